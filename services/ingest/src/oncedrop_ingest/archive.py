"""Several files as one zip, written as they come.

The records are those of PKWARE's APPNOTE.TXT 6.3.10, whose sections are named below. Every file is
stored as it is; its length and CRC are known only after it has passed, so they follow it in a data
descriptor (4.3.9). Libraries that stream zips pull files one after the other and own the output;
here the first file lies in the volume before anyone knows that there will be an archive.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import datetime

from oncedrop_common.file_names import NumberedNames, clean_entry_name, clean_name

CONTENT_TYPE = "application/zip"
ENTRIES_MOST = 1000
_MIXED = "files"

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_DESCRIPTOR = struct.Struct("<4s3L")  # 4.3.9
_DESCRIPTOR_64 = struct.Struct("<4sL2Q")  # 4.3.9.2
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15
_END = struct.Struct("<4s4H2LH")  # 4.3.16

_VERSION = 20
_VERSION_64 = 45  # 4.4.3.2: zip64
_MADE_BY_UNIX = 3 << 8  # 4.4.2.2
_FLAGS = 0x0008 | 0x0800  # 4.4.4: bit 3, a data descriptor; bit 11, the name is UTF-8
_STORED = 0
_ZIP64_EXTRA = 0x0001  # 4.5.3
_FULL = 0xFFFFFFFF
_PLAIN_FILE = 0o100644 << 16
# Below this a zip needs no zip64 even with all its records: they take less than the difference.
_CERTAINLY_SMALL = 0xF0000000
_DOS_EPOCH_YEAR = 1980


class Crc32:
    """The CRC-32 of what it sees (4.4.7)."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes, /) -> None:
        """See these bytes."""
        self.value = zlib.crc32(data, self.value)


@dataclass(slots=True)
class _Entry:
    """One file in the archive.

    Attributes:
        offset: Of its local header, from the archive's begin (bytes).
        size: Length of the file (bytes).
    """

    name: bytes
    offset: int
    size: int = 0
    crc: int = 0


class Archive:
    """The records of one zip; each method returns bytes to be written next.

    Args:
        most_bytes: What the archive's files can have together; decides whether it is a zip64.
        made: The files' time.
    """

    def __init__(self, most_bytes: int, made: datetime) -> None:
        self._zip64 = most_bytes >= _CERTAINLY_SMALL
        # 4.4.6: MS-DOS time, in steps of two seconds.
        self._time = made.hour << 11 | made.minute << 5 | made.second // 2
        self._date = (made.year - _DOS_EPOCH_YEAR) << 9 | made.month << 5 | made.day
        self._names = NumberedNames()
        self._entries: list[_Entry] = []

    @property
    def _version(self) -> int:
        return _VERSION_64 if self._zip64 else _VERSION

    def begin(self, raw_name: str, offset: int) -> bytes:
        """The local header of the next file.

        Args:
            raw_name: As the uploader sent it.
            offset: Where in the archive this header will stand (bytes).
        """
        name = self._names.take(clean_entry_name(raw_name)).encode()
        self._entries.append(_Entry(name, offset))
        size, extra = 0, b""
        if self._zip64:
            # 4.3.9.2: with this extra field the descriptor's lengths have eight bytes.
            size, extra = _FULL, struct.pack("<2H2Q", _ZIP64_EXTRA, 16, 0, 0)
        return (
            _LOCAL.pack(
                b"PK\x03\x04", self._version, _FLAGS, _STORED, self._time, self._date,
                0, size, size, len(name), len(extra),
            )
            + name
            + extra
        )  # fmt: skip

    def end(self, size: int, crc: int) -> bytes:
        """The data descriptor of the file that has passed (its bytes, their CRC-32)."""
        entry = self._entries[-1]
        entry.size, entry.crc = size, crc
        kind = _DESCRIPTOR_64 if self._zip64 else _DESCRIPTOR
        return kind.pack(b"PK\x07\x08", crc, size, size)

    def directory(self, offset: int) -> bytes:
        """The central directory and the end of the archive.

        Args:
            offset: Where in the archive it will stand (bytes).
        """
        records = b"".join(map(self._central, self._entries))
        count, size = len(self._entries), len(records)
        if offset >= _FULL:
            end_64 = _END_64.pack(
                b"PK\x06\x06", _END_64.size - 12, _MADE_BY_UNIX | _VERSION_64, _VERSION_64,
                0, 0, count, count, size, offset,
            )  # fmt: skip
            records += end_64 + _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1)
        return records + _END.pack(b"PK\x05\x06", 0, 0, count, count, size, min(offset, _FULL), 0)

    def _central(self, entry: _Entry) -> bytes:
        # 4.5.3: only what does not fit its own field, in this order.
        large = [n for n in (entry.size, entry.size, entry.offset) if n >= _FULL]
        extra = struct.pack(f"<2H{len(large)}Q", _ZIP64_EXTRA, 8 * len(large), *large)
        extra = extra if large else b""
        size = min(entry.size, _FULL)
        return (
            _CENTRAL.pack(
                b"PK\x01\x02", _MADE_BY_UNIX | self._version, self._version, _FLAGS, _STORED,
                self._time, self._date, entry.crc, size, size, len(entry.name), len(extra),
                0, 0, 0, _PLAIN_FILE, min(entry.offset, _FULL),
            )
            + entry.name
            + extra
        )  # fmt: skip

    @property
    def name(self) -> str:
        """What to call it: by the folder that all files are in, or else plainly."""
        folders = {entry.name.decode().partition("/")[::2] for entry in self._entries}
        tops = {top for top, rest in folders if rest}
        whole = len(tops) == 1 and all(rest for _, rest in folders)
        return clean_name(f"{tops.pop() if whole else _MIXED}.zip")
