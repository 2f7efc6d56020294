"""Reads a record's fields into a Drop, and a drop's metadata into fields.

What lies in Redis is input like any other: a record that cannot be read is damaged, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from oncedrop_common.drops import (
    Claim,
    ClaimHash,
    Confirm,
    Drop,
    DropId,
    DropMeta,
    DropState,
    GoneReason,
    IfInterrupted,
)
from oncedrop_common.errors import BlobDamaged

_UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
_CLAIM = "claim"
_LAPSED = "lapsed"


def meta_fields(meta: DropMeta) -> list[str | int]:
    """Field, value, field, value … as commit and rebuild store them."""
    return [
        "name", meta.name,
        "content_type", meta.content_type,
        "size", meta.size,
        "sha256", meta.sha256,
        "created_ms", meta.created_ms,
        "expires_ms", meta.expires_ms,
        "owner_hash", meta.owner_hash,
        "max_downloads", meta.max_downloads,
        "if_interrupted", meta.if_interrupted.value,
        "resume", int(meta.resume),
        "confirm", meta.confirm.value,
        "password_hash", meta.password_hash,
    ]  # fmt: skip


def intervals_text(intervals: Sequence[tuple[int, int]]) -> str:
    """Half-open byte intervals as scripts take them: `0-10 20-30`."""
    return " ".join(f"{start}-{end}" for start, end in intervals)


def parse_drop(drop_id: DropId, now_ms: int, flat: Sequence[bytes]) -> Drop:
    """The record whose HGETALL answered this, read at now_ms by Redis' clock.

    Raises:
        BlobDamaged: Fields are missing or are not what they must be.
    """
    try:
        texts = iter([item.decode() for item in flat])
        return _parse(drop_id, now_ms, dict(zip(texts, texts, strict=True)))
    except _UNREADABLE as exc:
        raise BlobDamaged("The record is damaged.", drop_id=drop_id) from exc


def _parse(drop_id: DropId, now_ms: int, fields: dict[str, str]) -> Drop:
    state = DropState(fields["state"])
    claims: list[Claim] = []
    lapsed: list[ClaimHash] = []
    for name, value in fields.items():
        if ":" not in name:
            continue
        kind, _, claim_hash = name.partition(":")
        if kind == _CLAIM:
            claims.append(_claim(ClaimHash(claim_hash), json.loads(value)))
        elif kind == _LAPSED:
            lapsed.append(ClaimHash(claim_hash))
    return Drop(
        drop_id=drop_id,
        state=state,
        revision=int(fields["revision"]),
        now_ms=now_ms,
        owner_hash=fields["owner_hash"],
        meta=_meta(fields) if state in (DropState.READY, DropState.CLAIMED) else None,
        upload_deadline_ms=int(fields.get("upload_deadline_ms", 0)),
        downloads_left=int(fields.get("downloads_left", 0)),
        claims=tuple(claims),
        lapsed=frozenset(lapsed),
        reason=GoneReason(fields["reason"]) if state is DropState.GONE else None,
        created_ms=int(fields.get("created_ms", 0)),
        expires_ms=int(fields.get("expires_ms", 0)),
        claimed_ms=int(fields.get("claimed_ms", 0)),
        gone_ms=int(fields.get("gone_ms", 0)),
        size=int(fields.get("size", 0)),
        acknowledged_bytes=int(fields.get("acknowledged", 0)),
    )


def _meta(fields: dict[str, str]) -> DropMeta:
    return DropMeta(
        name=fields["name"],
        content_type=fields["content_type"],
        size=int(fields["size"]),
        sha256=fields["sha256"],
        created_ms=int(fields["created_ms"]),
        expires_ms=int(fields["expires_ms"]),
        owner_hash=fields["owner_hash"],
        max_downloads=int(fields["max_downloads"]),
        if_interrupted=IfInterrupted(fields["if_interrupted"]),
        resume=fields["resume"] == "1",
        confirm=Confirm(fields["confirm"]),
        password_hash=fields["password_hash"],
    )


def _claim(claim_hash: ClaimHash, document: dict[str, Any]) -> Claim:
    pairs = (part.split("-") for part in document["ranges"].split())
    return Claim(
        claim_hash=claim_hash,
        started_ms=int(document["started"]),
        deadline_ms=int(document["deadline"]),
        acknowledged=tuple((int(start), int(end)) for start, end in pairs),
        closed=bool(document.get("closed")),
        unsent=bool(document.get("unsent")),
        rebuilt=bool(document.get("rebuilt")),
    )
