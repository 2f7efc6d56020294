"""Makes free memory quick to use, so that what is measured is the server."""

from __future__ import annotations

import os
from pathlib import Path

_BLOCK = bytes(2**20)


def warm_memory(folder: Path, size: int) -> None:
    """Write a file of this size and remove it: its pages are the next ones to be used.

    On a virtual machine the host takes free memory back after about two seconds (virtio-balloon's
    free page reporting), and a page's first touch then costs microseconds: seen, 2 instead of 0.25
    CPU seconds for each GiB that nginx stores. Whoever comes first after a pause would pay that.
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
