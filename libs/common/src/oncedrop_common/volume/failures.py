"""What the volume's file system can answer, as errors of ours; and fsync of folders."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from oncedrop_common.errors import VolumeFull, VolumeUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """OSError becomes VolumeFull or VolumeUnavailable; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        name = errno.errorcode.get(exc.errno or 0, "error")
        if exc.errno in _FULL:
            raise VolumeFull("The volume has no space left.") from exc
        raise VolumeUnavailable(f"The volume does not work ({name}).") from exc


@contextlib.contextmanager
def must_exist() -> Iterator[None]:
    """As _translated, and a missing folder means that the volume is not there."""
    try:
        with translated():
            yield
    except FileNotFoundError as exc:
        raise VolumeUnavailable("The volume is not there.") from exc


def fsync_folder(path: str | Path) -> None:
    """Make the folder's entries survive a power cut; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
