"""Full looks at drops: the record first, then the volume, in the order in which files move.

So a script that names the record's revision does nothing if anything changed since the look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oncedrop_common.drops import Drop, DropId, DropState
from oncedrop_common.errors import (
    BlobDamaged,
    BlobMissing,
    DependencyError,
    OncedropError,
    VolumeUnavailable,
)
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import FoundFile, Place, Volume
from oncedrop_janitor.plan import Look, SeenFile

Seen = tuple[tuple[SeenFile, ...], bool]
"""The files of a drop, and whether one of them moved meanwhile."""


class Looker:
    """Looks at many drops at a time."""

    def __init__(self, store: DropStore, volume: Volume) -> None:
        self._store = store
        self._volume = volume

    async def look(
        self, drop_ids: Sequence[DropId], volume_now_ms: int
    ) -> dict[DropId, Look | OncedropError]:
        """A look at each of these drops, or why there is none.

        Args:
            drop_ids: Which drops; a few hundred at most.
            volume_now_ms: What the volume's clock showed at the latest now.

        Raises:
            StoreUnavailable: Redis does not answer at all.
        """
        redis_now_ms = await self._store.now_ms()
        records = dict(
            zip(
                drop_ids,
                await asyncio.gather(
                    *(self._store.read(drop_id) for drop_id in drop_ids), return_exceptions=True
                ),
                strict=True,
            )
        )
        with_headers = {
            drop_id
            for drop_id, record in records.items()
            if not (isinstance(record, Drop) and record.state is DropState.GONE)
        }
        files = await asyncio.to_thread(self._files, drop_ids, with_headers)
        looks: dict[DropId, Look | OncedropError] = {}
        for drop_id, record in records.items():
            seen = files[drop_id]
            if isinstance(record, BaseException) and not isinstance(record, OncedropError):
                raise record
            if isinstance(seen, DependencyError):
                looks[drop_id] = seen
            elif isinstance(record, OncedropError) and not isinstance(record, BlobDamaged):
                looks[drop_id] = record
            else:
                looks[drop_id] = Look(
                    drop_id=drop_id,
                    drop=record if isinstance(record, Drop) else None,
                    files=seen[0],
                    redis_now_ms=record.now_ms if isinstance(record, Drop) else redis_now_ms,
                    volume_now_ms=volume_now_ms,
                    record_damaged=isinstance(record, BlobDamaged),
                    moving=seen[1],
                )
        return looks

    def _files(
        self, drop_ids: Sequence[DropId], with_headers: set[DropId]
    ) -> dict[DropId, Seen | DependencyError]:
        try:
            found = self._volume.find_many(drop_ids)
        except VolumeUnavailable:
            # One bad entry must not hide the others.
            return {d: self._seen(d, None, with_headers=d in with_headers) for d in drop_ids}
        return {d: self._seen(d, found[d], with_headers=d in with_headers) for d in drop_ids}

    def _seen(
        self, drop_id: DropId, found: list[FoundFile] | None, *, with_headers: bool
    ) -> Seen | DependencyError:
        try:
            files = self._volume.find(drop_id) if found is None else found
            if not with_headers:
                return tuple(SeenFile(file) for file in files), False
            if _renamed(files):
                return (), True
            return tuple(self._with_header(file) for file in files), False
        except BlobMissing:
            return (), True
        except DependencyError as exc:
            return exc

    def _with_header(self, file: FoundFile) -> SeenFile:
        if file.place is Place.INCOMING:
            return SeenFile(file)
        try:
            with self._volume.open_found(file) as blob:
                return SeenFile(file, blob.header.meta)
        except BlobDamaged:
            return SeenFile(file)


def _renamed(files: Sequence[FoundFile]) -> bool:
    """One file under two names: a network file system shows the old one for a moment longer."""
    inodes = [file.inode for file in files if file.inode]
    return len(set(inodes)) < len(inodes)
