"""What is to be sent: one stream, or several files as the parts of a form."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from oncedrop_cli.failures import LocalFailure, UsageFailure

STDIN = "-"
FILES_MOST = 1000
"""Parts of one form that the server takes (docs/http-api.md)."""
_STDIN_NAME = "stdin"
_BLOCK_BYTES = 1024 * 1024

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of several.

    Attributes:
        name: Its path in the archive, with `/`.
        size: Bytes, when it was found.
    """

    path: Path
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """All that the arguments lead to.

    Attributes:
        left_out: What in the folders is neither file nor folder, symbolic links above all:
            nobody asked for what lies elsewhere.
    """

    entries: list[Entry]
    left_out: list[Path]


def find(paths: list[str]) -> Found:
    """The files that are named, and those in folders that are named.

    Raises:
        LocalFailure: Something is not there or cannot be read.
        UsageFailure: There is nothing, or too much, to send.
    """
    found = Found([], [])
    for text in paths:
        path = Path(text)
        if path.is_dir():
            _walk(path, found)
        else:
            found.entries.append(Entry(path, path.name, _stat(path).st_size))
    if not found.entries:
        raise UsageFailure("There is no file in there.")
    if len(found.entries) > FILES_MOST:
        raise UsageFailure(
            f"These are {len(found.entries)} files, and {FILES_MOST} can be sent at a time;"
            " `tar c FOLDER | oncedrop send - --name NAME.tar` knows no limit."
        )
    return found


def _walk(folder: Path, found: Found) -> None:
    # `send .` shall not lose the folder's name.
    base = folder.resolve().name

    def fail(exc: OSError) -> None:
        raise LocalFailure(f"{exc.filename}: {exc.strerror}.") from exc

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        found.left_out.extend(Path(parent, n) for n in folders if Path(parent, n).is_symlink())
        for name in sorted(names):
            path = Path(parent, name)
            status = _stat(path, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                inside = "/".join((base, *path.relative_to(folder).parts))
                found.entries.append(Entry(path, inside, status.st_size))
            else:
                found.left_out.append(path)


def _stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
    try:
        return path.stat(follow_symlinks=follow_symlinks)
    except OSError as exc:
        raise LocalFailure(f"{path}: {exc.strerror}.") from exc


class Stream:
    """One body, read as it goes out, with its length and digest.

    Args:
        path: The file; STDIN: standard input.

    Attributes:
        name: What the file is called.
        size: Bytes it will have; None: a pipe, nobody knows.
        sent: Bytes read so far.

    Raises:
        LocalFailure: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._file: BinaryIO
        try:
            if path == STDIN:
                self.name = _STDIN_NAME
                self._file = sys.stdin.buffer
            else:
                self.name = Path(path).name
                self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
            status = os.fstat(self._file.fileno())
            self.size: int | None = None
            if stat.S_ISREG(status.st_mode):
                # Standard input may be a file of which something was read already.
                self.size = max(0, status.st_size - self._file.tell())
        except OSError as exc:
            raise LocalFailure(f"{path}: {exc.strerror}.") from exc
        self.sent = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of what was sent."""
        return self._digest.hexdigest()

    def chunks(self, told: Told) -> Iterator[bytes]:
        """The body.

        Args:
            told: Is told how many bytes are out.

        Raises:
            LocalFailure: It cannot be read, or has become shorter than it was.
        """
        while self.size is None or self.sent < self.size:
            most = _BLOCK_BYTES if self.size is None else min(_BLOCK_BYTES, self.size - self.sent)
            try:
                chunk = self._file.read(most)
            except OSError as exc:
                raise LocalFailure(f"{self._path}: {exc.strerror}.") from exc
            if not chunk:
                break
            self._digest.update(chunk)
            yield chunk
            self.sent += len(chunk)
            told(self.sent)
        if self.size is not None and self.sent < self.size:
            raise LocalFailure(f"{self._path} became shorter while it was sent.")

    def close(self) -> None:
        """Let go of the file."""
        if self._path != STDIN:
            self._file.close()


class PartFile:
    """A file of a form, in the shape httpx reads; open only while its turn is.

    Args:
        entry: The file.
        told: Is told how many bytes were read each time.
    """

    def __init__(self, entry: Entry, told: Told) -> None:
        self._entry = entry
        self._told = told
        self._file: BinaryIO | None = None
        self._left = entry.size

    def tell(self) -> int:
        """Always at the begin: nobody reads twice."""
        return 0

    def seek(self, _offset: int, whence: int = os.SEEK_SET) -> int:
        """Only how httpx asks for the length."""
        return self._entry.size if whence == os.SEEK_END else 0

    def read(self, count: int) -> bytes:
        """Its next bytes; b"" at the length it had when it was found.

        Raises:
            LocalFailure: It cannot be read, or has become shorter.
        """
        try:
            if self._file is None:
                self._file = open(self._entry.path, "rb", buffering=0)  # noqa: SIM115
            chunk = self._file.read(min(count, self._left)) if self._left else b""
        except OSError as exc:
            raise LocalFailure(f"{self._entry.path}: {exc.strerror}.") from exc
        self._left -= len(chunk)
        self._told(len(chunk))
        if not chunk:
            self.close()
            if self._left:
                raise LocalFailure(f"{self._entry.path} became shorter while it was sent.")
        return chunk

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
