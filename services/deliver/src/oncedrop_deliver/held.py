"""A claim that holds its file: what a request needs in order to send it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from oncedrop_common.drops import ClaimHash, Drop, DropId, DropMeta
from oncedrop_common.tokens import claim_hash
from oncedrop_common.volume import OpenBlob


def boottime() -> float:
    """Seconds that go on while the machine sleeps or this process is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Held:
    """One request's hold on a claim and its file.

    Attributes:
        request_id: Tells this request from others of the same claimant.
        deadline: When the lease ends at the earliest, in boottime seconds.
        claim_hash: Under which the store and the volume know the claim.
    """

    drop_id: DropId
    claim_id: str
    request_id: str
    meta: DropMeta
    blob: OpenBlob
    deadline: float
    claim_hash: ClaimHash = field(init=False)

    def __post_init__(self) -> None:
        """Make its digest once: it is asked for at each step."""
        self.claim_hash = claim_hash(self.claim_id)

    @property
    def single(self) -> bool:
        """Whether the file moved to claimed/ and goes with this claim."""
        return self.meta.max_downloads == 1

    def alive(self) -> bool:
        """Whether the lease still lasts; asked before each step of a transfer."""
        return boottime() < self.deadline

    def extend(self, drop: Drop, asked_at: float) -> None:
        """Take over the lease's end from the record.

        Args:
            drop: As answered.
            asked_at: boottime() before it was asked for, so that the end is never put too late.
        """
        claim = drop.claim(self.claim_hash)
        if claim is not None:
            self.deadline = asked_at + (claim.deadline_ms - drop.now_ms) / 1000
