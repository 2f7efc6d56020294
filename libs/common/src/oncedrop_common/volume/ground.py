"""The ground that drops lie on: marker, folders, clock and free space of one mounted volume."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path

from oncedrop_common.blob_header import HEADER_BYTES
from oncedrop_common.errors import VolumeUnavailable
from oncedrop_common.volume.contents import Marker, Place
from oncedrop_common.volume.failures import fsync_folder, must_exist, translated

MARKER = ".oncedrop"
PROBE = ".probe-"
SHARDS = tuple(f"{n:02x}" for n in range(256))
_LAYOUT_VERSION = 1


class Ground:
    """The volume's root, whatever drops lie in it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def read_marker(self) -> Marker | None:
        """The marker, or None when the folder is there without one.

        Raises:
            VolumeUnavailable: No such folder, unreadable, or a marker that is not ours.
        """
        with must_exist():
            self.root.stat()
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with translated():
                fd = os.open(self.root / MARKER, flags)
                try:
                    regular = stat.S_ISREG(os.fstat(fd).st_mode)
                    text = os.read(fd, HEADER_BYTES) if regular else b""
                finally:
                    os.close(fd)
        except FileNotFoundError:
            return None
        try:
            document = json.loads(text)
            if document["layout"] != _LAYOUT_VERSION:
                raise VolumeUnavailable("The volume has another layout version.")
            return Marker(str(document["volume_id"]), int(document["created_ms"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
            raise VolumeUnavailable("The volume's marker cannot be read.") from exc

    def is_empty(self) -> bool:
        """Whether nothing but the file system's own lost+found lies in the volume's folder.

        Raises:
            VolumeUnavailable: No such folder, or unreadable.
        """
        with must_exist():
            return not {n for n in os.listdir(self.root) if not n.startswith(PROBE)} - {
                "lost+found"
            }

    def make_root(self) -> None:
        """Create the volume's folder for an embedded stack.

        Raises:
            VolumeUnavailable: It cannot be made.
        """
        with must_exist():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_layout(self) -> None:
        """Create the folders that are missing; safe to repeat and to race.

        Raises:
            VolumeUnavailable: A folder cannot be made, or something else has its name.
            VolumeFull: No space or inode is left.
        """
        with must_exist():
            folders = [self.root / place for place in Place]
            folders += [self.root / Place.BLOBS / shard for shard in SHARDS]
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise VolumeUnavailable("Something in the volume has a folder's name.")
            fsync_folder(self.root / Place.BLOBS)
            fsync_folder(self.root)

    def write_marker(self, marker: Marker, *, replace: bool = False) -> Marker:
        """Put the marker in place, once; of several racing callers one wins.

        Returns:
            The marker that stands afterwards.

        Raises:
            VolumeUnavailable, VolumeFull: It cannot be written.
        """
        text = json.dumps(
            {
                "layout": _LAYOUT_VERSION,
                "volume_id": marker.volume_id,
                "created_ms": marker.created_ms,
            }
        )
        with must_exist():
            draft = self.root / f"{PROBE}{secrets.token_hex(8)}"
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "w") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(fd)
                if replace:
                    draft.rename(self.root / MARKER)
                else:
                    with contextlib.suppress(FileExistsError):
                        os.link(draft, self.root / MARKER)
                fsync_folder(self.root)
            finally:
                draft.unlink(missing_ok=True)
        standing = self.read_marker()
        if standing is None:
            raise VolumeUnavailable("The volume's marker vanished.")
        return standing

    def probe_clock_ms(self) -> int:
        """What time the volume's file system thinks it is; also shows that it can be written.

        Raises:
            VolumeUnavailable, VolumeFull: It cannot.
        """
        probe = self.root / f"{PROBE}{secrets.token_hex(8)}"
        with must_exist():
            fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b"\0")
                return os.fstat(fd).st_mtime_ns // 1_000_000
            finally:
                os.close(fd)
                probe.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Space an unprivileged writer can still use.

        Raises:
            VolumeUnavailable: The volume does not answer.
        """
        with must_exist():
            status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize
