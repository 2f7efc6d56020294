"""The cheap part of a sweep: which drops need a full look at all.

Each record is glanced at once and written into a ledger, 25 bytes each, by the shard its file
would lie in; then the shards' folders are listed one by one against it. What obviously agrees
(ready, not due, the file in its place and of its size) is done with; all else is a suspect. The
two sides are seen seconds apart, so a suspect is no more than a reason to look.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from oncedrop_common.blob_header import HEADER_BYTES
from oncedrop_common.drops import DropId, DropState
from oncedrop_common.errors import StoreUnavailable
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.housekeeping import Glance
from oncedrop_common.volume import FoundFile, Place, Stranger, Volume

# More would hold the loop for more than a few milliseconds at a time.
_PAGE = 250
_PAGES_AHEAD = 4
# Where a body can begin, at the latest (blob_header.py).
_MOST_AHEAD_BYTES = 64 * 1024
_ENTRY = struct.Struct("=16sBq")


class _Expect(IntEnum):
    """What the volume should hold for a record."""

    NOTHING = 0
    ANYTHING = 1
    BLOB = 2
    A_LOOK = 3


@dataclass(slots=True)
class ShardResult:
    """What comparing one shard found.

    Attributes:
        suspects: Drops that need a full look.
        files: How many files of ours there are.
        size: Their bytes, header pages included.
    """

    suspects: list[DropId]
    files: int
    size: int
    strangers: list[Stranger]


@dataclass(slots=True)
class Ledger:
    """All records, each as the little that its file is compared with.

    Attributes:
        records: How many there are, tombstones included.
        living: Those that are not gone.
    """

    records: int = 0
    living: int = 0
    _shards: dict[str, bytearray] = field(default_factory=dict)

    def enter(self, drop_id: DropId, glance: Glance | None, now_ms: int) -> None:
        """Note a record; without a glance it is one that cannot be read."""
        expect = _Expect.A_LOOK
        if glance is not None and glance.state is DropState.GONE:
            expect = _Expect.NOTHING
        elif glance is not None and glance.due_ms > now_ms:
            uploading = glance.state is DropState.UPLOADING
            expect = _Expect.ANYTHING if uploading else _Expect.BLOB
        self.records += 1
        self.living += expect is not _Expect.NOTHING
        entry = _ENTRY.pack(bytes.fromhex(drop_id), expect, glance.size if glance else 0)
        self._shards.setdefault(drop_id[:2], bytearray()).extend(entry)

    def compare(self, shard: str, files: Sequence[FoundFile]) -> set[DropId]:
        """The suspects among this shard's records and files."""
        records = {
            key: (expect, size)
            for key, expect, size in _ENTRY.iter_unpack(self._shards.get(shard, b""))
        }
        suspects = set()
        for file in files:
            key = bytes.fromhex(file.drop_id)
            expect, size = records.get(key, (_Expect.A_LOOK, 0))
            if expect == _Expect.BLOB and file.place is Place.BLOBS:
                if HEADER_BYTES <= file.size - size <= _MOST_AHEAD_BYTES:
                    records[key] = (_Expect.NOTHING, 0)
                    continue
            elif expect == _Expect.ANYTHING:
                continue
            suspects.add(file.drop_id)
        suspects |= {
            DropId(key.hex())
            for key, (expect, _) in records.items()
            if expect in (_Expect.BLOB, _Expect.A_LOOK)
        }
        return suspects


class Scan:
    """Reads both sides for one sweep."""

    def __init__(self, store: DropStore, volume: Volume) -> None:
        self._store = store
        self._volume = volume
        self._elsewhere: dict[str, list[FoundFile]] = {}

    async def read_records(self, *, note_due: bool) -> Ledger:
        """Glance at every record.

        Args:
            note_due: List those that the due index has lost.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        ledger = Ledger()
        now_ms = await self._store.now_ms()
        # Redis works on some pages while others are entered.
        ahead: deque[asyncio.Task[None]] = deque()
        try:
            async for ids in self._store.scan(_PAGE):
                if len(ahead) == _PAGES_AHEAD:
                    await ahead.popleft()
                work = self._enter(ledger, ids, now_ms, note_due=note_due)
                ahead.append(asyncio.create_task(work))
            while ahead:
                await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        return ledger

    async def _enter(
        self, ledger: Ledger, ids: list[DropId], now_ms: int, *, note_due: bool
    ) -> None:
        due = {}
        for drop_id, glance in (await self._glance(ids)).items():
            ledger.enter(drop_id, glance, now_ms)
            if glance is not None and glance.due_ms > now_ms:
                due[drop_id] = glance.due_ms
        if note_due:
            await self._store.note_due_times(due, only_missing=True)

    async def _glance(self, page: list[DropId]) -> dict[DropId, Glance | None]:
        """The records of a page that are still there; None for what is no record."""
        try:
            glances = await self._store.glance(page)
        except StoreUnavailable:
            # Redis is away, which the next call says; or a key of the page is of another type,
            # and must not hide the others.
            await self._store.ping()
            return dict.fromkeys(page)
        return {d: g for d, g in zip(page, glances, strict=True) if g is not None}

    async def read_elsewhere(self) -> list[Stranger]:
        """List what lies outside blobs/, and whatever is not of the layout.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        strangers = await asyncio.to_thread(self._volume.scan_strangers)
        for listing in (self._volume.scan_incoming, self._volume.scan_claimed):
            for item in await asyncio.to_thread(listing):
                if isinstance(item, Stranger):
                    strangers.append(item)
                else:
                    self._elsewhere.setdefault(item.drop_id[:2], []).append(item)
        return strangers

    async def compare(self, ledger: Ledger, shard: str) -> ShardResult:
        """List one shard of blobs/ and compare it, and what lies elsewhere, with the ledger.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        return await asyncio.to_thread(self._compare, ledger, shard)

    def _compare(self, ledger: Ledger, shard: str) -> ShardResult:
        listed = self._volume.scan_blobs(shard)
        files = [item for item in listed if isinstance(item, FoundFile)]
        files += self._elsewhere.get(shard, [])
        return ShardResult(
            suspects=sorted(ledger.compare(shard, files)),
            files=len(files),
            size=sum(file.size for file in files),
            strangers=[item for item in listed if isinstance(item, Stranger)],
        )


def count_strangers(strangers: Sequence[Stranger]) -> tuple[int, int, dict[str, int]]:
    """How many there are, how many of them go away by themselves, and of which kinds the rest."""
    kinds = Counter(s.where for s in strangers if not s.ignorable)
    ignored = sum(s.ignorable for s in strangers)
    return kinds.total(), ignored, dict(sorted(kinds.items()))
