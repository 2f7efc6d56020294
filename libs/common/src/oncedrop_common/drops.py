"""What a drop is: its states, options, metadata and claims. No I/O here.

Times are Unix times in milliseconds (`*_ms`), durations seconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

DropId = NewType("DropId", str)
"""32 hex digits; names record and blob; no secret."""

ClaimHash = NewType("ClaimHash", str)
"""32 hex digits made from a claim id; names the claimed file; no secret."""

NAME_MAX_BYTES = 255
CONTENT_TYPE_MAX_BYTES = 127


class DropState(StrEnum):
    """Where a drop is in its life."""

    UPLOADING = "uploading"
    READY = "ready"
    CLAIMED = "claimed"
    GONE = "gone"


class GoneReason(StrEnum):
    """Why a drop is gone."""

    DELIVERED = "delivered"
    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    DELETED = "deleted"
    LOCKED = "locked"
    LOST = "lost"
    ABANDONED = "abandoned"


class IfInterrupted(StrEnum):
    """What becomes of a drop whose claim lapsed after it had begun to send."""

    BURN = "burn"
    RESTORE = "restore"


class Confirm(StrEnum):
    """Who gets a page with a button instead of the file: browsers and bots, or everyone."""

    AUTO = "auto"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class DropMeta:
    """What is known of a drop once its upload is whole; the blob's header holds exactly this.

    Attributes:
        name: Cleaned display name, at most NAME_MAX_BYTES of UTF-8; never a path.
        content_type: At most CONTENT_TYPE_MAX_BYTES of ASCII.
        size: Body length in bytes.
        sha256: Hex digest of the body.
        created_ms: When the upload was complete.
        expires_ms: From when on it can no longer be claimed.
        password_hash: Argon2id, encoded; empty when there is no password.
        owner_hash: Digest of the owner key.
    """

    name: str
    content_type: str
    size: int
    sha256: str
    created_ms: int
    expires_ms: int
    owner_hash: str
    max_downloads: int = 1
    if_interrupted: IfInterrupted = IfInterrupted.BURN
    resume: bool = True
    confirm: Confirm = Confirm.AUTO
    password_hash: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One visitor's right to one download.

    Attributes:
        deadline_ms: When it lapses unless it makes progress before.
        acknowledged: Half-open byte intervals [start, end), sorted and disjoint.
        closed: It lapsed or was released; it can never be renewed or used again.
        unsent: It was closed before its first byte left; the drop goes back to ready.
        rebuilt: Made again from the volume: nobody knows how far it went.
    """

    claim_hash: ClaimHash
    started_ms: int
    deadline_ms: int
    acknowledged: tuple[tuple[int, int], ...] = ()
    closed: bool = False
    unsent: bool = False
    rebuilt: bool = False

    @property
    def acknowledged_bytes(self) -> int:
        """How many distinct bytes the other side's kernel has acknowledged."""
        return sum(end - start for start, end in self.acknowledged)


@dataclass(frozen=True, slots=True)
class Drop:
    """A record as read from Redis.

    Attributes:
        revision: Incremented by every change of state; scripts that act on what was seen in the
            volume name it and do nothing when it has changed.
        now_ms: Redis' clock when the record was read.
        meta: None while uploading and when gone.
        owner_hash: Digest of the owner key, also kept by the tombstone.
        upload_deadline_ms: When an upload without progress is given up (uploading only).
        lapsed: Hashes of claims that were closed and never come back.
        size, acknowledged_bytes: Kept by the tombstone too, for the receipt.
    """

    drop_id: DropId
    state: DropState
    revision: int
    now_ms: int
    owner_hash: str = ""
    meta: DropMeta | None = None
    upload_deadline_ms: int = 0
    downloads_left: int = 0
    claims: tuple[Claim, ...] = ()
    lapsed: frozenset[ClaimHash] = field(default_factory=frozenset)
    reason: GoneReason | None = None
    created_ms: int = 0
    expires_ms: int = 0
    claimed_ms: int = 0
    gone_ms: int = 0
    size: int = 0
    acknowledged_bytes: int = 0

    @property
    def expired(self) -> bool:
        """Whether its time is over by Redis' clock (a live claim may still finish)."""
        return self.state in (DropState.READY, DropState.CLAIMED) and self.now_ms >= self.expires_ms

    def claim(self, claim_hash: ClaimHash) -> Claim | None:
        """The claim with this hash, live or closed, if the record has one."""
        return next((c for c in self.claims if c.claim_hash == claim_hash), None)

    @property
    def due_ms(self) -> int:
        """When the janitor must look at it next; 0 means now."""
        match self.state:
            case DropState.UPLOADING:
                return self.upload_deadline_ms
            case DropState.GONE:
                return 0
            case _:
                times = [0 if c.closed else c.deadline_ms for c in self.claims]
                if self.state is DropState.READY:
                    times.append(self.expires_ms)
                return min(times, default=self.expires_ms)
