"""What clients asked and were given while things broke: the material that the model judges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class What(StrEnum):
    """What a request wants."""

    UPLOAD = "upload"
    TAKE = "take"
    RESUME = "resume"
    LOOK = "look"
    RECEIPT = "receipt"
    DELETE = "delete"


def body_of(seed: str, size: int) -> bytes:
    """The file that this seed stands for, so that no history holds files."""
    return Random(seed).randbytes(size)


@dataclass(frozen=True)
class Kept:
    """A drop whose upload was acknowledged, and what its uploader knows of it.

    Attributes:
        at: When the 201 came (seconds, monotonic, as all times here).
        seed: For body_of; empty: an archive, of which only the digest is known.
        sha256: Of the whole file, in hex.
    """

    id: str
    at: float
    size: int
    sha256: str
    seed: str = ""
    max_downloads: int = 1
    restorable: bool = False
    resumable: bool = True
    ttl_seconds: float = 86_400
    password: str = ""
    by_button: bool = False
    path: str = ""
    owner_path: str = ""

    def digest(self, start: int, count: int) -> str | None:
        """SHA-256 of this part of the file; None where only the whole is known."""
        if self.seed:
            part = body_of(self.seed, self.size)[start : start + count]
            return hashlib.sha256(part).hexdigest()
        return self.sha256 if (start, count) == (0, self.size) else None


@dataclass(frozen=True)
class Asked:
    """One request and what came of it.

    Attributes:
        headed: When the head of the answer had come; as ended if none did.
        status: None: no answer.
        claim: Claim id that the answer names; empty: it is not a file.
        start: Offset in the file of the first byte received.
        received: Bytes of the file received.
        digest: Their SHA-256, in hex.
        promised: Content-Length of the answer.
        complete: The answer came to its end.
        left_early: The client went away by itself.
        reason: A 410's `reason`, or a problem's slug.
        leaked: A refusal held bytes of the file.
        still_there: Names in the volume that led to the bytes when they had to be gone.
        settled: Asked after the faults, when leases and grace had passed.
    """

    drop: str
    what: What
    began: float
    headed: float
    ended: float
    status: int | None
    claim: str = ""
    start: int = 0
    received: int = 0
    digest: str = ""
    promised: int = 0
    complete: bool = False
    left_early: bool = False
    reason: str = ""
    leaked: bool = False
    still_there: tuple[str, ...] = ()
    settled: bool = False

    @property
    def fed(self) -> bool:
        """Whether bytes of the file came."""
        return self.received > 0


@dataclass(frozen=True)
class Fault:
    """Something broke.

    Attributes:
        forgets: Redis may know less afterwards than before.
    """

    name: str
    began: float
    ended: float
    forgets: bool = False


@dataclass
class History:
    """All that happened in one run."""

    lease_seconds: float
    kept: dict[str, Kept] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def of(self, drop_id: str, *whats: What) -> list[Asked]:
        """What was asked of a drop, in the order in which the answers began."""
        found = (a for a in self.asked if a.drop == drop_id and (not whats or a.what in whats))
        return sorted(found, key=lambda a: a.headed)

    def broken(self, since: float, until: float, *, forgets: bool = False) -> bool:
        """Whether anything was broken in this time; with forgets: so that Redis lost something."""
        return any(
            fault.began <= until and fault.ended >= since and (fault.forgets or not forgets)
            for fault in self.faults
        )

    def forgot(self, until: float) -> bool:
        """Whether Redis has lost anything before."""
        return self.broken(float("-inf"), until, forgets=True)

    def by_drop(self) -> dict[str, list[Asked]]:
        """Everything asked of the drops that were acknowledged."""
        found: dict[str, list[Asked]] = {drop_id: [] for drop_id in self.kept}
        for asked in sorted(self.asked, key=lambda a: a.headed):
            if asked.drop in found:
                found[asked.drop].append(asked)
        return found


def covers(size: int, parts: Iterable[Asked], *, unread: int = 0) -> bool:
    """Whether what these answers brought is the whole file.

    Args:
        size: Of the file, in bytes.
        parts: The answers.
        unread: So much more may have arrived at a client that did not read on: its kernel has
            acknowledged that for it.
    """
    at = 0
    spans = ((a.start, a.start + min(max(a.promised, a.received), a.received + unread))
             for a in parts)  # fmt: skip
    for start, end in sorted(spans):
        if start > at:
            return False
        at = max(at, end)
    return at >= size
