"""What an upload has written goes to the disk while more of it comes.

Without this all of a large file is left to the fsync at its end, and the disk is idle until then.
"""

from __future__ import annotations

import asyncio

from oncedrop_common.http.zero_copy import finished
from oncedrop_common.volume import Part

_EVERY_BYTES = 32 * 1024 * 1024
# Each takes a thread for as long as the disk needs; writing needs threads too.
_AT_A_TIME = 2


class SyncPlaces:
    """How many uploads sync early at a time; one for the whole service."""

    def __init__(self) -> None:
        self._free = _AT_A_TIME

    def take(self) -> bool:
        """Whether there was a place."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """It is free again."""
        self._free += 1


class EarlySync:
    """The early syncs of one upload, one after the other; skipped where there is no place."""

    def __init__(self, places: SyncPlaces) -> None:
        self._places = places
        self._running: asyncio.Task[None] | None = None
        self._begun_at = 0

    def written(self, part: Part, position: int) -> None:
        """So much of the part has been written: begin a sync if it is time for one.

        Raises:
            VolumeFull, VolumeUnavailable: The last one failed. The kernel tells that once only, so
                it must not be passed over.
        """
        if position - self._begun_at < _EVERY_BYTES:
            return
        if self._running is not None:
            if not self._running.done():
                return
            self._running.result()
        if self._places.take():
            self._begun_at = position
            self._running = asyncio.create_task(self._sync(part), name="early sync")

    async def _sync(self, part: Part) -> None:
        try:
            await finished(part.sync)
        finally:
            self._places.give_back()

    async def ended(self) -> None:
        """Wait until no sync runs; raises as written."""
        if self._running is not None:
            await asyncio.wait({self._running})
            self._running.result()
