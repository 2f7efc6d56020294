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
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from oncedrop_common import blob_header
from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader, HeaderInvalid
from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.errors import BlobDamaged, BlobMissing, VolumeUnavailable
from oncedrop_common.tokens import is_drop_id
from oncedrop_common.volume.contents import FoundFile, OpenBlob, Part, Place, Stranger
from oncedrop_common.volume.failures import fsync_folder, must_exist, translated
from oncedrop_common.volume.ground import MARKER, PROBE, SHARDS, Ground

_SILLY_RENAME = ".nfs"
_CLAIMED_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})", re.ASCII)


class Volume(Ground):
    """One mounted volume."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._incoming, self._blobs, self._claimed = (f"{self.root}/{place}" for place in Place)

    # Paths, the only ones there are.

    def _part_path(self, drop_id: DropId) -> str:
        return f"{self._incoming}/{drop_id}"

    def _shard_path(self, drop_id: DropId) -> str:
        return f"{self._blobs}/{drop_id[:2]}"

    def _blob_path(self, drop_id: DropId) -> str:
        return f"{self._shard_path(drop_id)}/{drop_id}"

    def _real_blob_path(self, drop_id: DropId) -> str:
        """As _blob_path, where a file is to be moved or opened: never through a link."""
        if os.path.islink(self._shard_path(drop_id)):
            raise VolumeUnavailable("Something in the volume has a folder's name.")
        return self._blob_path(drop_id)

    def _claimed_path(self, drop_id: DropId, claim_hash: ClaimHash) -> str:
        return f"{self._claimed}/{drop_id}.{claim_hash}"

    def _path_of(self, found: FoundFile) -> str:
        if found.place is Place.INCOMING:
            return self._part_path(found.drop_id)
        if found.claim_hash is None:
            return self._blob_path(found.drop_id)
        return self._claimed_path(found.drop_id, found.claim_hash)

    def path_of(self, found: FoundFile) -> Path:
        """Where this file was found."""
        return Path(self._path_of(found))

    # Upload.

    def create_part(self, drop_id: DropId) -> Part:
        """A new, empty part.

        Raises:
            VolumeFull, VolumeUnavailable: It cannot be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with must_exist():
            return Part(drop_id, os.open(self._part_path(drop_id), flags, 0o600))

    def commit_part(self, part: Part, header: BlobHeader) -> None:
        """Make a part a blob: header, fsync, rename, fsync both folders; closes the part.

        When this returns, a power cut cannot take the blob away.

        Raises:
            VolumeFull, VolumeUnavailable: The blob may or may not be in place; see unlink.
        """
        CrashPoint.UPLOAD_BEFORE_HEADER.reached()
        part.write_at(0, blob_header.pack(header))
        CrashPoint.UPLOAD_AFTER_HEADER.reached()
        with must_exist():
            os.fsync(part.fd)
            CrashPoint.UPLOAD_AFTER_FSYNC.reached()
            os.rename(self._part_path(part.drop_id), self._real_blob_path(part.drop_id))
            CrashPoint.UPLOAD_AFTER_RENAME.reached()
            fsync_folder(self._shard_path(part.drop_id))
            CrashPoint.UPLOAD_BETWEEN_FOLDER_FSYNCS.reached()
            fsync_folder(self._incoming)
            CrashPoint.UPLOAD_AFTER_FOLDER_FSYNCS.reached()
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
            with translated():
                os.rename(self._real_blob_path(drop_id), self._claimed_path(drop_id, claim_hash))
        except FileNotFoundError:
            return False
        return True

    def give_back(self, drop_id: DropId, claim_hash: ClaimHash) -> bool:
        """Move a claimant's file back to blobs/.

        When this returns True, a power cut cannot put it under the claim again, with which it
        would be burnt if Redis lost what it knew.

        Returns:
            Whether this call moved it.

        Raises:
            VolumeUnavailable: The volume fails; the file may have been moved.
        """
        target = self._real_blob_path(drop_id)
        try:
            with translated():
                os.rename(self._claimed_path(drop_id, claim_hash), target)
        except FileNotFoundError:
            return False
        with must_exist():
            fsync_folder(self._shard_path(drop_id))
        return True

    def sync_claimed(self) -> None:
        """Make the entries of claimed/ survive a power cut.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        with must_exist():
            fsync_folder(self._claimed)

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
        return self._open(self._path_of(found), found.drop_id)

    def _open(self, path: str, drop_id: DropId) -> OpenBlob:
        # O_NONBLOCK: a FIFO with a drop's name must not hang the thread.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with translated():
                fd = os.open(path, flags)
        except FileNotFoundError as exc:
            raise BlobMissing("The file is not there.", drop_id=drop_id) from exc
        except VolumeUnavailable as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.ELOOP:
                raise BlobDamaged("The file is a link.", drop_id=drop_id) from exc
            raise
        try:
            with must_exist():
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
        with must_exist():
            names = os.listdir(self._claimed)
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
        if os.path.islink(self._shard_path(drop_id)):
            return []
        return self._look(Place.BLOBS, self._blob_path(drop_id), drop_id)

    @staticmethod
    def _look(
        place: Place, path: str, drop_id: DropId, claim_hash: ClaimHash | None = None
    ) -> list[FoundFile]:
        with contextlib.suppress(FileNotFoundError), translated():
            status = os.lstat(path)
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

    def sync_unlinked(self, drop_id: DropId) -> None:
        """Make the removal of this drop's files survive a power cut.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        with must_exist():
            for folder in (self._incoming, self._shard_path(drop_id), self._claimed):
                fsync_folder(folder)

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
        return self._unlink(self._path_of(found))

    def _unlink(self, path: str) -> int:
        try:
            with translated():
                status = os.lstat(path)
                if not stat.S_ISREG(status.st_mode):
                    return 0
                os.unlink(path)
        except FileNotFoundError:
            return 0
        return status.st_size

    # Sweep.

    def shards(self) -> tuple[str, ...]:
        """The names of the folders in blobs/ that a drop can lie in."""
        return SHARDS

    def scan_blobs(self, shard: str) -> list[FoundFile | Stranger]:
        """What lies in one shard of blobs/.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        return self._scan(Place.BLOBS, f"{self._blobs}/{shard}", shard)

    def scan_incoming(self) -> list[FoundFile | Stranger]:
        """What lies in incoming/, as scan_blobs."""
        return self._scan(Place.INCOMING, self._incoming)

    def scan_claimed(self) -> list[FoundFile | Stranger]:
        """What lies in claimed/, as scan_blobs."""
        return self._scan(Place.CLAIMED, self._claimed)

    def scan_strangers(self) -> list[Stranger]:
        """What lies in the root and in blobs/ itself and is not of the layout.

        Raises:
            VolumeUnavailable: The volume fails.
        """
        ours = {MARKER, "lost+found", *Place}
        with must_exist():
            strangers = [
                _stranger("root", entry)
                for entry in os.scandir(self.root)
                if entry.name not in ours and not entry.name.startswith(PROBE)
            ]
            strangers += [
                _stranger(Place.BLOBS, entry)
                for entry in os.scandir(self._blobs)
                if entry.name not in SHARDS or not entry.is_dir(follow_symlinks=False)
            ]
        return strangers

    def _scan(self, place: Place, folder: str, shard: str = "") -> list[FoundFile | Stranger]:
        result: list[FoundFile | Stranger] = []
        if os.path.islink(folder):
            return []  # itself a stranger, and reported as one
        with must_exist():
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
    mtime_ms = status.st_mtime_ns // 1_000_000
    inode = status.st_ino if status.st_nlink == 1 else 0
    return FoundFile(place, drop_id, claim_hash, status.st_size, mtime_ms, inode)


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
