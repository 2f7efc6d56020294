"""Makes free memory quick to use, so that what is measured is the server."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_BLOCK = bytes(2**20)
_FREE_BYTES = 2 * 2**30
# What the bench itself stores, three files of 8 GiB at most, and a little more.
_DISK_BYTES = 26 * 2**30
_FILL = "fill"


def fill_page_cache(folder: Path) -> None:
    """Bring a file in folder into memory, such that little is free; it gives way to other files.

    On a virtual machine the host takes free memory back after about two seconds (virtio-balloon's
    free page reporting), and a page's first touch then costs microseconds: seen, 2 instead of 0.25
    CPU seconds for each GiB that is stored. What is in the page cache stays, and what is taken
    from there is quick to use.
    """
    block = bytearray(len(_BLOCK))
    with (folder / _FILL).open("ab+", buffering=0) as file:
        file.seek(0)
        # What gave way since the last time comes back.
        while file.readinto(block) and _free_bytes() > _FREE_BYTES:
            pass
        size = min(_free_bytes() - _FREE_BYTES, shutil.disk_usage(folder).free - _DISK_BYTES)
        for _ in range(0, size, len(_BLOCK)):
            file.write(_BLOCK)
        os.fsync(file.fileno())


def _free_bytes() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(re.findall(r"MemFree: +(\d+) kB", text)[0]) * 1024


def warm_memory(folder: Path, size: int) -> None:
    """Write a file of this size and remove it: its pages are the next ones to be used.

    What was freed a while ago the host may have taken back, see fill_page_cache; whoever comes
    first after a pause would pay for that.
    """
    path = folder / "warm"
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, len(_BLOCK)):
            file.write(_BLOCK)
    path.unlink()


def forget(path: Path) -> None:
    """Take a file's pages out of memory; those that are not on disk yet stay."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
