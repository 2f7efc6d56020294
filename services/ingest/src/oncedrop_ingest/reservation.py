"""Room in the volume for one upload: under the quota, and on the disk."""

from __future__ import annotations

import asyncio

from oncedrop_common.errors import VolumeFull
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume


class Reservation:
    """What one file takes of the usage that all services count in Redis (bytes)."""

    def __init__(self, settings: Settings, store: DropStore, volume: Volume) -> None:
        self._settings = settings
        self._store = store
        self._volume = volume
        self._reserved = 0

    async def grow(self, total: int) -> None:
        """Make sure that there is room for a file of this size, header page included.

        Args:
            total: Bytes the file has or will have.

        Raises:
            VolumeFull: Over the quota, or less would stay free than must.
            StoreUnavailable, VolumeUnavailable: One of them does not answer.
        """
        if total <= self._reserved:
            return
        free = await asyncio.to_thread(self._volume.free_bytes)
        # What was reserved before is written by now, and no longer free.
        if free - self._settings.min_free_bytes < total - self._reserved:
            raise VolumeFull("The volume has too little free space for this upload.")
        stored = await self._store.reserve(total - self._reserved)
        self._reserved = total
        quota = self._settings.max_stored_bytes
        if quota and stored > quota:
            raise VolumeFull("The server's quota for stored files is used up.")

    async def settle(self, total: int) -> None:
        """Keep what the finished file takes and give the rest back.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        if total != self._reserved:
            await self._store.reserve(total - self._reserved)
            self._reserved = total

    async def give_back(self) -> None:
        """Give all back: there is no file.

        Raises:
            StoreUnavailable: Redis does not answer; the next sweep counts anew.
        """
        await self.settle(0)
