"""The shared volume: the only module that turns an id into a path.

    .oncedrop                      marker: layout version, volume id, when it was made
    incoming/<id>                  a part: being written
    blobs/<2 hex>/<id>             ready to be claimed
    claimed/<id>.<claim hash>      taken by exactly one claimant

A file's place is its state. Files move by rename only, and are looked for and unlinked in the
order in which they move: incoming, blobs, claimed. Every method here blocks; services call them
in threads.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from oncedrop_common import blob_header
from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader, HeaderInvalid
from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.errors import BlobDamaged, BlobMissing, VolumeFull, VolumeUnavailable
from oncedrop_common.tokens import is_drop_id

_MARKER = ".oncedrop"
_PROBE = ".probe-"
_SHARDS = tuple(f"{n:02x}" for n in range(256))
_SILLY_RENAME = ".nfs"
_CLAIMED_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})", re.ASCII)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LAYOUT_VERSION = 1


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
    """

    place: Place
    drop_id: DropId
    claim_hash: ClaimHash | None
    size: int
    mtime_ms: int


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
        with _translated():
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
        with _translated():
            return os.pread(self.fd, count, offset)

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
        """Give the descriptor back; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
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
def _must_exist() -> Iterator[None]:
    """As _translated, and a missing folder means that the volume is not there."""
    try:
        with _translated():
            yield
    except FileNotFoundError as exc:
        raise VolumeUnavailable("The volume is not there.") from exc


def _fsync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Volume:
    """One mounted volume."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    # Paths, the only ones there are.

    def _part_path(self, drop_id: DropId) -> Path:
        return self.root / Place.INCOMING / drop_id

    def _blob_path(self, drop_id: DropId) -> Path:
        return self.root / Place.BLOBS / drop_id[:2] / drop_id

    def _real_blob_path(self, drop_id: DropId) -> Path:
        """As _blob_path, where a file is to be moved or opened: never through a link."""
        path = self._blob_path(drop_id)
        if path.parent.is_symlink():
            raise VolumeUnavailable("Something in the volume has a folder's name.")
        return path

    def _claimed_path(self, drop_id: DropId, claim_hash: ClaimHash) -> Path:
        return self.root / Place.CLAIMED / f"{drop_id}.{claim_hash}"

    @property
    def claimed_folder(self) -> Path:
        """The folder whose entries must be on disk before a taken file's first byte leaves."""
        return self.root / Place.CLAIMED

    def path_of(self, found: FoundFile) -> Path:
        """Where this file was found."""
        if found.place is Place.INCOMING:
            return self._part_path(found.drop_id)
        if found.claim_hash is None:
            return self._blob_path(found.drop_id)
        return self._claimed_path(found.drop_id, found.claim_hash)

    # The marker and the layout.

    def read_marker(self) -> Marker | None:
        """The marker, or None when the folder is there without one.

        Raises:
            VolumeUnavailable: No such folder, unreadable, or a marker that is not ours.
        """
        with _must_exist():
            self.root.stat()
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with _translated():
                fd = os.open(self.root / _MARKER, flags)
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
        with _must_exist():
            return not {n for n in os.listdir(self.root) if not n.startswith(_PROBE)} - {
                "lost+found"
            }

    def make_root(self) -> None:
        """Create the volume's folder for an embedded stack.

        Raises:
            VolumeUnavailable: It cannot be made.
        """
        with _must_exist():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_layout(self) -> None:
        """Create the folders that are missing; safe to repeat and to race.

        Raises:
            VolumeUnavailable: A folder cannot be made, or something else has its name.
            VolumeFull: No space or inode is left.
        """
        with _must_exist():
            folders = [self.root / place for place in Place]
            folders += [self.root / Place.BLOBS / shard for shard in _SHARDS]
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise VolumeUnavailable("Something in the volume has a folder's name.")
            _fsync_folder(self.root / Place.BLOBS)
            _fsync_folder(self.root)

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
        with _must_exist():
            draft = self.root / f"{_PROBE}{secrets.token_hex(8)}"
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "w") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(fd)
                if replace:
                    draft.rename(self.root / _MARKER)
                else:
                    with contextlib.suppress(FileExistsError):
                        os.link(draft, self.root / _MARKER)
                _fsync_folder(self.root)
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
        probe = self.root / f"{_PROBE}{secrets.token_hex(8)}"
        with _must_exist():
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
        with _must_exist():
            status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    # Upload.

    def create_part(self, drop_id: DropId) -> Part:
        """A new, empty part.

        Raises:
            VolumeFull, VolumeUnavailable: It cannot be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _must_exist():
            return Part(drop_id, os.open(self._part_path(drop_id), flags, 0o600))

    def commit_part(self, part: Part, header: BlobHeader) -> None:
        """Make a part a blob: header, fsync, rename, fsync both folders; closes the part.

        When this returns, a power cut cannot take the blob away.

        Raises:
            VolumeFull, VolumeUnavailable: The blob may or may not be in place; see unlink.
        """
        part.write_at(0, blob_header.pack(header))
        with _must_exist():
            os.fsync(part.fd)
            target = self._real_blob_path(part.drop_id)
            self._part_path(part.drop_id).rename(target)
            _fsync_folder(target.parent)
            _fsync_folder(self.root / Place.INCOMING)
        part.close()

    # Claim, serve, delete.

    def take(self, drop_id: DropId, claim_hash: ClaimHash) -> bool:
        """Move a blob to its claimant: the one step that can succeed for one caller only.

        Returns:
            Whether this call moved it; False when no blob lies in blobs/.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        try:
            with _translated():
                self._real_blob_path(drop_id).rename(self._claimed_path(drop_id, claim_hash))
        except FileNotFoundError:
            return False
        return True

    def give_back(self, drop_id: DropId, claim_hash: ClaimHash) -> bool:
        """Move a claimant's file back to blobs/.

        Returns:
            Whether this call moved it.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        try:
            with _translated():
                self._claimed_path(drop_id, claim_hash).rename(self._real_blob_path(drop_id))
        except FileNotFoundError:
            return False
        return True

    def sync_claimed(self) -> None:
        """Make the entries of claimed/ survive a power cut.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        with _must_exist():
            _fsync_folder(self.claimed_folder)

    def open_claimed(self, drop_id: DropId, claim_hash: ClaimHash) -> OpenBlob:
        """Open the file this claimant took.

        Raises:
            BlobMissing: It is not there.
            BlobDamaged: Header, name and size do not agree.
            VolumeUnavailable: The volume fails.
        """
        return self._open(self._claimed_path(drop_id, claim_hash), drop_id)

    def open_blob(self, drop_id: DropId) -> OpenBlob:
        """Open a blob in place, as BlobMissing, BlobDamaged, VolumeUnavailable allow."""
        return self._open(self._real_blob_path(drop_id), drop_id)

    def open_found(self, found: FoundFile) -> OpenBlob:
        """Open a file that was found, as open_blob."""
        return self._open(self.path_of(found), found.drop_id)

    def _open(self, path: Path, drop_id: DropId) -> OpenBlob:
        # O_NONBLOCK: a FIFO with a drop's name must not hang the thread.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with _translated():
                fd = os.open(path, flags)
        except FileNotFoundError as exc:
            raise BlobMissing("The file is not there.", drop_id=drop_id) from exc
        except VolumeUnavailable as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.ELOOP:
                raise BlobDamaged("The file is a link.", drop_id=drop_id) from exc
            raise
        try:
            with _must_exist():
                status = os.fstat(fd)
                page = os.pread(fd, HEADER_BYTES, 0) if stat.S_ISREG(status.st_mode) else b""
            try:
                header = blob_header.parse(page)
            except HeaderInvalid as exc:
                raise BlobDamaged(f"The file is damaged: {exc}.", drop_id=drop_id) from exc
            if header.drop_id != drop_id or status.st_size != header.body_offset + header.meta.size:
                raise BlobDamaged("The file is damaged: name or size.", drop_id=drop_id)
        except BaseException:
            os.close(fd)
            raise
        return OpenBlob(fd, header)

    def find(self, drop_id: DropId) -> list[FoundFile]:
        """Every file of this drop, looked for in the order in which files move.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        return self.find_many([drop_id])[drop_id]

    def find_many(self, drop_ids: Iterable[DropId]) -> dict[DropId, list[FoundFile]]:
        """Every file of each of these drops, as find; lists claimed/ once for all of them.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        files: dict[DropId, list[FoundFile]] = {drop_id: [] for drop_id in drop_ids}
        for drop_id, found in files.items():
            found.extend(self._look(Place.INCOMING, self._part_path(drop_id), drop_id))
            found.extend(self._look_in_blobs(drop_id))
        with _must_exist():
            names = os.listdir(self.claimed_folder)
        for name in names:
            match = _CLAIMED_NAME.fullmatch(name)
            if match and DropId(match[1]) in files:
                drop_id, claim_hash = DropId(match[1]), ClaimHash(match[2])
                path = self._claimed_path(drop_id, claim_hash)
                files[drop_id] += self._look(Place.CLAIMED, path, drop_id, claim_hash)
        for drop_id, found in files.items():
            if not found:
                # Given back between the two looks: the one move against the order.
                found.extend(self._look_in_blobs(drop_id))
        return files

    def _look_in_blobs(self, drop_id: DropId) -> list[FoundFile]:
        path = self._blob_path(drop_id)
        return [] if path.parent.is_symlink() else self._look(Place.BLOBS, path, drop_id)

    @staticmethod
    def _look(
        place: Place, path: Path, drop_id: DropId, claim_hash: ClaimHash | None = None
    ) -> list[FoundFile]:
        with contextlib.suppress(FileNotFoundError), _translated():
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                return [_found(place, drop_id, claim_hash, status)]
        return []

    def unlink(self, drop_id: DropId) -> int:
        """Remove every file of this drop, in the order in which files move.

        Returns:
            Bytes freed; 0 when nothing was there.

        Raises:
            VolumeUnavailable: A file could not be removed.
        """
        return sum(self.unlink_found(found) for found in self.find(drop_id))

    def unlink_claimed(self, drop_id: DropId, claim_hash: ClaimHash) -> int:
        """Remove the file this claimant took.

        Returns:
            Bytes freed; 0 when it was not there.

        Raises:
            VolumeUnavailable: It could not be removed.
        """
        return self._unlink(self._claimed_path(drop_id, claim_hash))

    def unlink_found(self, found: FoundFile) -> int:
        """Remove a file that was found, as unlink_claimed."""
        return self._unlink(self.path_of(found))

    def _unlink(self, path: Path) -> int:
        try:
            with _translated():
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    return 0
                path.unlink()
        except FileNotFoundError:
            return 0
        return status.st_size

    # Sweep.

    def shards(self) -> tuple[str, ...]:
        """The names of the folders in blobs/ that a drop can lie in."""
        return _SHARDS

    def scan_blobs(self, shard: str) -> list[FoundFile | Stranger]:
        """What lies in one shard of blobs/.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        return self._scan(Place.BLOBS, self.root / Place.BLOBS / shard, shard)

    def scan_incoming(self) -> list[FoundFile | Stranger]:
        """What lies in incoming/, as scan_blobs."""
        return self._scan(Place.INCOMING, self.root / Place.INCOMING)

    def scan_claimed(self) -> list[FoundFile | Stranger]:
        """What lies in claimed/, as scan_blobs."""
        return self._scan(Place.CLAIMED, self.claimed_folder)

    def scan_strangers(self) -> list[Stranger]:
        """What lies in the root and in blobs/ itself and is not of the layout.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        ours = {_MARKER, "lost+found", *Place}
        with _must_exist():
            strangers = [
                _stranger("root", entry)
                for entry in os.scandir(self.root)
                if entry.name not in ours and not entry.name.startswith(_PROBE)
            ]
            strangers += [
                _stranger(Place.BLOBS, entry)
                for entry in os.scandir(self.root / Place.BLOBS)
                if entry.name not in _SHARDS or not entry.is_dir(follow_symlinks=False)
            ]
        return strangers

    def _scan(self, place: Place, folder: Path, shard: str = "") -> list[FoundFile | Stranger]:
        result: list[FoundFile | Stranger] = []
        if folder.is_symlink():
            return []  # itself a stranger, and reported as one
        with _must_exist():
            for entry in os.scandir(folder):
                drop_id, claim_hash = _parse_name(place, entry.name)
                if drop_id is None or not drop_id.startswith(shard):
                    result.append(_stranger(place, entry))
                    continue
                # A file may move on between the listing and the look at it.
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        result.append(_found(place, drop_id, claim_hash, status))
                    else:
                        result.append(_stranger(place, entry))
        return result


def _parse_name(place: Place, name: str) -> tuple[DropId | None, ClaimHash | None]:
    if place is Place.CLAIMED:
        match = _CLAIMED_NAME.fullmatch(name)
        return (DropId(match[1]), ClaimHash(match[2])) if match else (None, None)
    return (DropId(name) if is_drop_id(name) else None), None


def _found(
    place: Place, drop_id: DropId, claim_hash: ClaimHash | None, status: os.stat_result
) -> FoundFile:
    return FoundFile(place, drop_id, claim_hash, status.st_size, status.st_mtime_ns // 1_000_000)


def _stranger(where: str, entry: os.DirEntry[str]) -> Stranger:
    if entry.is_symlink():
        kind = "symlink"
    elif entry.is_dir(follow_symlinks=False):
        kind = "folder"
    elif entry.is_file(follow_symlinks=False):
        kind = "file"
    else:
        kind = "special file"
    return Stranger(f"{kind} in {where}", ignorable=entry.name.startswith(_SILLY_RENAME))
