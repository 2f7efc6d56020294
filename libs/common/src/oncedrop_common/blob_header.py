"""The 4096-byte page a blob begins with; pure packing and parsing.

offset  bytes  content
     0      8  magic "oncedrop"
     8      2  layout version, big-endian
    10      4  length of the JSON
    14      8  offset of the body in the file
    22     32  SHA-256 over bytes 8..22 and the JSON
    54      …  the JSON: drop id and metadata; zeros to the end of the page
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import asdict, dataclass

from oncedrop_common.drops import (
    CONTENT_TYPE_MAX_BYTES,
    NAME_MAX_BYTES,
    Confirm,
    DropId,
    DropMeta,
    IfInterrupted,
)
from oncedrop_common.tokens import is_drop_id

HEADER_BYTES = 4096
LAYOUT_VERSION = 1
_MAGIC = b"oncedrop"
_FIXED = struct.Struct(">HIQ")
_JSON_AT = len(_MAGIC) + _FIXED.size + 32
_MAX_BODY_OFFSET = 64 * 1024
# Above any size or time, below what doubles in Lua hold exactly.
_MAX_NUMBER = 10**14
_HEX_64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class HeaderInvalid(ValueError):
    """The page is not a header of ours, or was damaged."""


@dataclass(frozen=True, slots=True)
class BlobHeader:
    """What a blob says of itself.

    Attributes:
        body_offset: Where in the file the body begins (bytes, at least HEADER_BYTES).
    """

    drop_id: DropId
    meta: DropMeta
    body_offset: int = HEADER_BYTES


def pack(header: BlobHeader) -> bytes:
    """The page for this header, HEADER_BYTES long.

    Raises:
        ValueError: Name or content type are longer than their caps, or the offset is off.
    """
    meta = header.meta
    if not HEADER_BYTES <= header.body_offset <= _MAX_BODY_OFFSET:
        raise ValueError("body offset")
    if len(meta.name.encode()) > NAME_MAX_BYTES:
        raise ValueError("name is too long for the header")
    if len(meta.content_type.encode()) > CONTENT_TYPE_MAX_BYTES:
        raise ValueError("content type is too long for the header")
    document = {"drop_id": header.drop_id, **asdict(meta)}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    fixed = _FIXED.pack(LAYOUT_VERSION, len(text), header.body_offset)
    page = _MAGIC + fixed + hashlib.sha256(fixed + text).digest() + text
    if len(page) > HEADER_BYTES:
        raise ValueError("metadata does not fit the header page")
    return page.ljust(HEADER_BYTES, b"\0")


def parse(page: bytes) -> BlobHeader:
    """Read a header page.

    Raises:
        HeaderInvalid: Wrong magic, version, checksum or content.
    """
    if len(page) < HEADER_BYTES or not page.startswith(_MAGIC):
        raise HeaderInvalid("no header page")
    fixed = page[len(_MAGIC) : len(_MAGIC) + _FIXED.size]
    version, length, body_offset = _FIXED.unpack(fixed)
    if version != LAYOUT_VERSION:
        raise HeaderInvalid(f"layout version {version}")
    text = page[_JSON_AT : _JSON_AT + length]
    if length > HEADER_BYTES - _JSON_AT:
        raise HeaderInvalid("header length")
    if hashlib.sha256(fixed + text).digest() != page[_JSON_AT - 32 : _JSON_AT]:
        raise HeaderInvalid("header checksum")
    if not HEADER_BYTES <= body_offset <= _MAX_BODY_OFFSET:
        raise HeaderInvalid("body offset")
    try:
        document = json.loads(text)
        drop_id = document.pop("drop_id")
        document["if_interrupted"] = IfInterrupted(document["if_interrupted"])
        document["confirm"] = Confirm(document["confirm"])
        meta = DropMeta(**document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise HeaderInvalid("header content") from exc
    if not isinstance(drop_id, str) or not is_drop_id(drop_id) or not _sound(meta):
        raise HeaderInvalid("header content")
    return BlobHeader(DropId(drop_id), meta, body_offset)


def _sound(meta: DropMeta) -> bool:
    """Whether every field has its type and range: a valid checksum proves no good intention."""
    texts: tuple[object, ...] = (
        meta.name,
        meta.content_type,
        meta.sha256,
        meta.owner_hash,
        meta.password_hash,
    )
    numbers: tuple[object, ...] = (
        meta.size, meta.created_ms, meta.expires_ms, meta.max_downloads,
    )  # fmt: skip
    resume: object = meta.resume
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and 0 <= number < _MAX_NUMBER for number in numbers)
        and isinstance(resume, bool)
        and meta.max_downloads > 0
        and all(_HEX_64.fullmatch(digest) for digest in (meta.sha256, meta.owner_hash))
    )
