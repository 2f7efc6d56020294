"""Where a download goes: a `.part` beside its final name, or standard output."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from oncedrop_cli.failures import LocalFailure, UsageFailure
from oncedrop_cli.names import with_suffix

if sys.platform != "win32":
    import fcntl

PART = ".part"
_BLOCK_BYTES = 1024 * 1024


class Sink(Protocol):
    """What takes the bytes of a download, in order.

    Attributes:
        received: How many it has.
    """

    received: int

    def write(self, data: bytes) -> None:
        """Take these too."""

    def sha256(self) -> bytes:
        """Digest of all it has."""


class Target:
    """A name in a folder, known or still to be told by the server.

    Args:
        output: As -o has it: a file, or a folder; None: the current folder.
        force: What has the name already is replaced.
    """

    def __init__(self, output: str | None, *, force: bool) -> None:
        given = Path(output or ".")
        self._force = force
        self.folder = given if given.is_dir() else given.parent
        self._name = None if given.is_dir() else given.name
        if not self.folder.is_dir():
            raise LocalFailure(f"{self.folder}: there is no such folder.")

    def path(self, server_name: str) -> Path:
        """The final name.

        Args:
            server_name: A safe name, for where none was given.
        """
        return self.folder / (self._name or server_name)

    def part(self, path: Path) -> Path:
        """Where the bytes are until all have come."""
        return path.with_name(with_suffix(path.name, PART))

    def check(self, path: Path) -> None:
        """See to it that the final name is free.

        Raises:
            LocalFailure: It is not.
        """
        self._check_free(path)

    def check_all(self, path: Path, size: int) -> None:
        """See to it, before anything is taken, that the file can be put there.

        Raises:
            LocalFailure: Something is in the way, or there is no room.
        """
        self.check(path)
        self._check_free(self.part(path))
        if not os.access(self.folder, os.W_OK):
            raise LocalFailure(f"{self.folder}: nothing can be written there.")
        if shutil.disk_usage(self.folder).free < size:
            raise LocalFailure(f"{self.folder}: there is no room for the file.")

    def _check_free(self, path: Path) -> None:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as exc:
            raise LocalFailure(f"{path}: {exc.strerror}.") from exc
        if not stat.S_ISREG(mode):
            raise LocalFailure(f"{path} is there already, and is no plain file.")
        if not self._force:
            raise LocalFailure(f"{path} is there already; --force replaces it.")

    def put(self, part: Path, path: Path) -> None:
        """Give the whole file its final name.

        Raises:
            LocalFailure: Something else got that name meanwhile.
        """
        try:
            if self._force:
                part.replace(path)
            else:
                _rename_without_replacing(part, path)
            _sync_folder(path.parent)
        except FileExistsError:
            raise LocalFailure(
                f"{path} appeared meanwhile; the file is whole, in {part}."
            ) from None
        except OSError as exc:
            raise LocalFailure(f"{path}: {exc.strerror}; the file is whole, in {part}.") from exc


def _rename_without_replacing(part: Path, path: Path) -> None:
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # A file system without hard links: as good as it gets there.
        if path.exists():
            raise FileExistsError from None
        part.rename(path)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut, where that is possible: the server has no copy."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class PartSink:
    """The `.part` file.

    Args:
        path: Of it.
        resume: Go on behind what it has; else it begins anew.

    Raises:
        LocalFailure: It cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with self._failing():
            fd = os.open(path, flags, 0o666)
            self._file: BinaryIO = os.fdopen(fd, "r+b", buffering=0)
        try:
            _lock(self._file, path)
            self._digest = hashlib.sha256()
            self.received = 0
            with self._failing():
                if resume:
                    self._read_back()
                else:
                    self._file.truncate(0)
        except BaseException:
            self._file.close()
            raise

    def _read_back(self) -> None:
        while block := self._file.read(_BLOCK_BYTES):
            self._digest.update(block)
            self.received += len(block)

    def write(self, data: bytes) -> None:
        """Take these bytes too.

        Raises:
            LocalFailure: The disk will not.
        """
        view = memoryview(data)
        with self._failing():
            while view:
                view = view[self._file.write(view) :]
        self._digest.update(data)
        self.received += len(data)

    def sha256(self) -> bytes:
        """Digest of all it has."""
        return self._digest.digest()

    def sync(self) -> None:
        """Make it survive a power cut.

        Raises:
            LocalFailure: The disk will not.
        """
        with self._failing():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise LocalFailure(f"{self._path}: {exc.strerror}.") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        # Some file systems have no locks.
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LocalFailure(f"{path}: another download is writing it.") from None


class StdoutSink:
    """Standard output: nothing can be taken back.

    Raises:
        UsageFailure: It is a terminal, which would obey what a stranger sent.
    """

    def __init__(self) -> None:
        if sys.stdout.isatty():
            raise UsageFailure("Standard output is a terminal; `| cat` if that is meant.")
        self._out = sys.stdout.buffer
        self._digest = hashlib.sha256()
        self.received = 0

    def write(self, data: bytes) -> None:
        """Pass these bytes on."""
        self._out.write(data)
        self._digest.update(data)
        self.received += len(data)

    def sha256(self) -> bytes:
        """Digest of all that was passed on."""
        return self._digest.digest()

    def flush(self) -> None:
        """Let the last bytes go."""
        self._out.flush()
