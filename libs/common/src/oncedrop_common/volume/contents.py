"""What lies in the volume: its marker, parts, blobs, and strangers."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from oncedrop_common.blob_header import BlobHeader
from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.volume.failures import translated


class Place(StrEnum):
    """The three folders a drop's file moves through, in this order."""

    INCOMING = "incoming"
    BLOBS = "blobs"
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True)
class Marker:
    """What the volume says of itself.

    Attributes:
        volume_id: Paired with Redis' `oncedrop:volume`.
        created_ms: When this volume was taken into use.
    """

    volume_id: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of ours met in the volume.

    Attributes:
        size: Whole file, header page included (bytes).
        mtime_ms: By the volume's clock, which may not be ours.
        inode: Its number in the file system while this is its only name, else 0.
    """

    place: Place
    drop_id: DropId
    claim_hash: ClaimHash | None
    size: int
    mtime_ms: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Stranger:
    """Something that is not one of ours: reported, never touched.

    Attributes:
        where: Folder and kind; the name itself is somebody else's text.
        ignorable: An NFS client's `.nfs*` leftover that goes away by itself.
    """

    where: str
    ignorable: bool = False


class Part:
    """A blob being written: positions are file offsets in bytes, the header page included."""

    def __init__(self, drop_id: DropId, fd: int) -> None:
        self.drop_id = drop_id
        self.fd = fd

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of data at this offset.

        Raises:
            VolumeFull: No space left.
            VolumeUnavailable: Any other failure.
        """
        with translated():
            view = memoryview(data)
            while view:
                written = os.pwrite(self.fd, view, offset)
                view = view[written:]
                offset += written

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to count bytes from this offset; empty at the end.

        Raises:
            VolumeUnavailable: The file cannot be read.
        """
        with translated():
            return os.pread(self.fd, count, offset)

    def sync(self) -> None:
        """Bring to the disk what was written before.

        Raises:
            VolumeFull, VolumeUnavailable: Not all of it is there, and no later call will say so.
        """
        with translated():
            os.fdatasync(self.fd)

    def close(self) -> None:
        """Give the descriptor back; safe to repeat."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self.fd = -1


class OpenBlob:
    """A blob opened for reading, its header checked against its name and size."""

    def __init__(self, fd: int, header: BlobHeader) -> None:
        self.fd = fd
        self.header = header

    def close(self) -> None:
        """Give the descriptor back; safe to repeat, also while another thread does it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
