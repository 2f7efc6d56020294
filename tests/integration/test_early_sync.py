"""Large uploads go to the disk while they come, and a disk that fails then is not overlooked."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator

import pytest

from oncedrop_common.drops import DropId
from oncedrop_common.errors import VolumeFull, VolumeUnavailable
from oncedrop_common.volume import Part, Volume
from oncedrop_ingest.early_sync import EarlySync, SyncPlaces
from support.waiting import wait_until

MIB = 2**20
DROPS = [DropId(f"{n:032x}") for n in range(3)]


class Disk:
    """os.fdatasync, held up for as long as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: list[int] = []
        self.error = 0
        self.free = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, fd: int) -> None:
        self.began.append(fd)
        assert self.free.wait(10)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self._real(fd)

    async def begun(self, count: int) -> None:
        """Wait until so many have begun."""
        await asyncio.to_thread(wait_until, lambda: len(self.began) >= count, 10, what="a sync")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def parts(volume: Volume) -> Iterator[list[Part]]:
    parts = [volume.create_part(drop_id) for drop_id in DROPS]
    yield parts
    for part in parts:
        part.close()


async def test_what_was_written_is_synced_beside_and_the_end_waits_for_it(
    disk: Disk, parts: list[Part]
) -> None:
    sync = EarlySync(SyncPlaces())
    sync.written(parts[0], 31 * MIB)
    await sync.ended()
    assert disk.began == []

    sync.written(parts[0], 32 * MIB)
    await disk.begun(1)
    # One at a time: while it runs, nothing is begun.
    sync.written(parts[0], 200 * MIB)
    ended = asyncio.create_task(sync.ended())
    await asyncio.sleep(0.05)
    assert not ended.done()
    disk.free.set()
    await ended
    assert disk.began == [parts[0].fd]

    sync.written(parts[0], 200 * MIB)
    await sync.ended()
    assert disk.began == [parts[0].fd] * 2


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, VolumeUnavailable), (errno.ENOSPC, VolumeFull)]
)
async def test_a_disk_that_fails_meanwhile_fails_the_upload(
    disk: Disk, parts: list[Part], number: int, error: type[Exception]
) -> None:
    """The kernel tells a descriptor of a lost write once; the fsync at the end would succeed."""
    disk.free.set()
    disk.error = number
    sync = EarlySync(SyncPlaces())
    sync.written(parts[0], 32 * MIB)
    with pytest.raises(error):
        await sync.ended()
    # Also where more is written meanwhile.
    with pytest.raises(error):
        sync.written(parts[0], 64 * MIB)


async def test_only_so_many_uploads_sync_at_a_time(disk: Disk, parts: list[Part]) -> None:
    places = SyncPlaces()
    syncs = [EarlySync(places) for _ in parts]
    for sync, part in zip(syncs, parts, strict=True):
        sync.written(part, 32 * MIB)
    await disk.begun(2)
    disk.free.set()
    await asyncio.gather(*(sync.ended() for sync in syncs))
    assert disk.began == [parts[0].fd, parts[1].fd]

    # Who had no place gets one later.
    syncs[2].written(parts[2], 34 * MIB)
    await syncs[2].ended()
    assert disk.began[2:] == [parts[2].fd]
