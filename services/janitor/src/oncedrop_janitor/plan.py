"""What is to be done about one drop, decided from what was seen of it; pure.

The table of what a sweep does, as code. A look holds the record and the files at nearly the same
instant, the record first; one action is decided at a time, applied, and then the drop is looked
at again, until the answer is to keep things as they are.

Nothing here deletes a drop that is uploading within its lease, ready, or under a live claim,
with one exception that its operator asked for: on an ephemeral volume that was emptied, records
older than the volume have no file and never will.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from oncedrop_common.drops import Claim, ClaimHash, Drop, DropId, DropMeta, DropState
from oncedrop_common.volume import FoundFile, Place


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file of the drop.

    Attributes:
        meta: From its header; None for a part, and for a header or size that is not in order.
    """

    found: FoundFile
    meta: DropMeta | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One drop as seen in Redis and then in the volume.

    Attributes:
        drop: Its record; None when there is none.
        files: In the order in which files move.
        redis_now_ms: By the clock that wrote the record's times.
        volume_now_ms: By the clock that wrote the files' times, at the latest now.
        record_damaged: There is a record, and it cannot be read.
        moving: A file was renamed or unlinked while, or just before, it was looked at.
    """

    drop_id: DropId
    drop: Drop | None
    files: tuple[SeenFile, ...]
    redis_now_ms: int
    volume_now_ms: int
    record_damaged: bool = False
    moving: bool = False

    @property
    def part(self) -> SeenFile | None:
        """What lies in incoming/."""
        return next((f for f in self.files if f.found.place is Place.INCOMING), None)

    @property
    def bodies(self) -> tuple[SeenFile, ...]:
        """Whole blobs: what lies in blobs/ and claimed/."""
        return tuple(f for f in self.files if f.found.place is not Place.INCOMING)

    @property
    def blob(self) -> SeenFile | None:
        """What lies in blobs/."""
        return next((f for f in self.files if f.found.place is Place.BLOBS), None)

    @property
    def taken(self) -> dict[ClaimHash, SeenFile]:
        """What lies in claimed/, by the hash in its name."""
        return {f.found.claim_hash: f for f in self.files if f.found.claim_hash is not None}

    def age_ms(self, seen: SeenFile) -> int:
        """How long ago the file was written to, by the volume's clock."""
        return self.volume_now_ms - seen.found.mtime_ms


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator can choose about all this.

    Attributes:
        grace_ms: Age below which a thing without its counterpart is left alone.
        upload_lease_ms: How long an upload may make no progress.
        volume_born_ms: On an ephemeral volume, when it was taken into use: records older than
            that lost their files with its predecessor. 0: the volume is to be kept.
    """

    grace_ms: int
    upload_lease_ms: int
    volume_born_ms: int = 0


class Why(StrEnum):
    """Why nothing is done."""

    AGREES = "agrees"
    NOTHING = "nothing"
    UPLOADING = "uploading"
    CLAIMED = "claimed"
    GRACE = "grace"
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all.

    Attributes:
        counter: The field of a pass's report that counts it.
        deletes: It can take bytes or a drop away; planned first, done when the guard agrees.
    """

    counter: ClassVar[str] = ""
    deletes: ClassVar[bool] = False

    @property
    def mismatched(self) -> bool:
        """It deletes because Redis and the volume do not agree; what the guard counts."""
        return False


@dataclass(frozen=True, slots=True)
class Keep(Action):
    """Leave it alone.

    Attributes:
        again_ms: When to look again, by Redis' clock; 0: when the record says.
    """

    why: Why
    again_ms: int = 0


@dataclass(frozen=True, slots=True)
class Damaged(Action):
    """Report it; never served, and never deleted while its record lives."""

    counter: ClassVar[str] = "damaged"

    what: str


@dataclass(frozen=True, slots=True)
class Rebuild(Action):
    """Redis forgot a blob: make its record again; as claimed if it lies in claimed/."""

    counter: ClassVar[str] = "rebuilt"

    meta: DropMeta
    claim_hash: ClaimHash | None


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """The record becomes claimed by the hash under which its file lies in claimed/."""

    counter: ClassVar[str] = "adopted"

    claim_hash: ClaimHash
    revision: int


@dataclass(frozen=True, slots=True)
class GiveBack(Action):
    """Finish a closed claim: its file back to blobs/, then the record back to ready."""

    counter: ClassVar[str] = "restored"

    claim_hash: ClaimHash
    revision: int


@dataclass(frozen=True, slots=True)
class MoveBack(Action):
    """A file taken by a claim that was closed before: back to blobs/; the record is right."""

    counter: ClassVar[str] = "restored"

    claim_hash: ClaimHash


@dataclass(frozen=True, slots=True)
class Commit(Action):
    """The blob is in place and its commit was lost: make the record ready."""

    counter: ClassVar[str] = "committed"

    meta: DropMeta


@dataclass(frozen=True, slots=True)
class Lapse(Action):
    """Close a claim whose lease is over; the script says what becomes of the drop."""

    counter: ClassVar[str] = "lapsed"
    deletes: ClassVar[bool] = True

    claim_hash: ClaimHash
    revision: int
    place: Place


@dataclass(frozen=True, slots=True)
class Expire(Action):
    """The drop's time is over."""

    counter: ClassVar[str] = "expired"
    deletes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Abandon(Action):
    """An upload whose lease lapsed and of which no whole blob is there."""

    counter: ClassVar[str] = "abandoned"
    deletes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class UnlinkGone(Action):
    """The drop is gone, its file is not."""

    counter: ClassVar[str] = "leftovers"
    deletes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class UnlinkOrphan(Action):
    """A file without a record from which none can be made."""

    counter: ClassVar[str] = "orphan_files"
    deletes: ClassVar[bool] = True

    found: FoundFile

    @property
    def mismatched(self) -> bool:
        """A volume that is not ours would look like this."""
        return True


@dataclass(frozen=True, slots=True)
class Lose(Action):
    """A record without a file.

    Attributes:
        expected: The volume is ephemeral and younger than the record.
    """

    counter: ClassVar[str] = "orphan_records"
    deletes: ClassVar[bool] = True

    revision: int
    expected: bool = False

    @property
    def mismatched(self) -> bool:
        """A volume that is not ours would look like this."""
        return not self.expected


def decide(look: Look, rules: Rules) -> Action:
    """The next thing to do about this drop."""
    drop = look.drop
    if look.moving:
        action: Action = Keep(Why.MOVING)
    elif look.record_damaged:
        action = Damaged("record")
    elif drop is None:
        action = _without_record(look, rules)
    elif drop.state is DropState.UPLOADING:
        action = _uploading(look, drop, rules)
    elif drop.state is DropState.GONE:
        action = UnlinkGone() if look.files else Keep(Why.NOTHING)
    elif drop.meta is None:
        action = Damaged("record")
    elif not look.bodies:
        action = _without_file(look, drop, rules)
    else:
        action = _with_file(look, drop, drop.meta, rules)
    return action


def _without_record(look: Look, rules: Rules) -> Action:
    meta = next((f.meta for f in look.bodies if f.meta is not None), None)
    if meta is not None:
        taken = min(look.taken, default=None)
        if taken is not None or meta.expires_ms > look.redis_now_ms:
            return Rebuild(meta, taken)
    if not look.files:
        return Keep(Why.NOTHING)
    oldest = max(look.files, key=look.age_ms)
    left_ms = rules.grace_ms - look.age_ms(oldest)
    if left_ms <= 0:
        return UnlinkOrphan(oldest.found)
    return Keep(Why.GRACE, look.redis_now_ms + left_ms)


def _uploading(look: Look, drop: Drop, rules: Rules) -> Action:
    if drop.upload_deadline_ms > drop.now_ms:
        return Keep(Why.UPLOADING, drop.upload_deadline_ms)
    meta = next((f.meta for f in look.bodies if f.meta is not None), None)
    if meta is not None:
        return Commit(meta)
    # A part that was written to within a lease belongs to an upload that lives, whatever an
    # older state of Redis says: its next renewal will say so.
    left_ms = max(
        (
            (rules.upload_lease_ms if f is look.part else rules.grace_ms) - look.age_ms(f)
            for f in look.files
        ),
        default=0,
    )
    return Abandon() if left_ms <= 0 else Keep(Why.GRACE, drop.now_ms + left_ms)


def _without_file(look: Look, drop: Drop, rules: Rules) -> Action:
    if drop.created_ms < rules.volume_born_ms:
        return Lose(drop.revision, expected=True)
    live = _live(drop)
    if live:
        # Whoever streams it still holds it open.
        return Keep(Why.CLAIMED, min(c.deadline_ms for c in live))
    if drop.state is DropState.READY and drop.expired and not drop.claims:
        return Expire()
    left_ms = rules.grace_ms - (drop.now_ms - max(drop.created_ms, drop.claimed_ms))
    if left_ms > 0:
        return Keep(Why.GRACE, drop.now_ms + left_ms)
    return _old_part(look, rules) or Lose(drop.revision)


def _with_file(look: Look, drop: Drop, meta: DropMeta, rules: Rules) -> Action:
    return (
        _taken_by_others(look, drop, meta)
        or _claim_over(look, drop, meta)
        or _time_over(drop)
        or _old_part(look, rules)
        or _at_rest(look, drop, meta)
    )


def _taken_by_others(look: Look, drop: Drop, meta: DropMeta) -> Action | None:
    """The volume knows of a claim that the record does not."""
    taken = look.taken
    known = {claim.claim_hash for claim in drop.claims}
    strays = sorted(taken.keys() - known)
    if not strays or known & taken.keys():
        return None
    unlisted = [claim_hash for claim_hash in strays if claim_hash not in drop.lapsed]
    stray = (unlisted or strays)[0]
    if not _agrees(taken[stray], meta):
        return Damaged("claimed file")
    if unlisted and meta.max_downloads == 1:
        return Adopt(stray, drop.revision)
    # Closed before it took the file, so that nothing was sent; or one of several downloads,
    # which never take it.
    return MoveBack(stray)


def _claim_over(look: Look, drop: Drop, meta: DropMeta) -> Action | None:
    over = [c for c in drop.claims if c.closed or c.deadline_ms <= drop.now_ms]
    if not over:
        return None
    claim = min(over, key=lambda c: c.claim_hash)
    if claim.closed and meta.max_downloads == 1:
        return GiveBack(claim.claim_hash, drop.revision)
    place = Place.CLAIMED if claim.claim_hash in look.taken else Place.BLOBS
    return Lapse(claim.claim_hash, drop.revision, place)


def _time_over(drop: Drop) -> Action | None:
    return Expire() if drop.state is DropState.READY and drop.expired else None


def _old_part(look: Look, rules: Rules) -> Action | None:
    """A part beside a drop whose upload is over."""
    part = look.part
    if part is None or look.age_ms(part) < rules.grace_ms:
        return None
    return UnlinkOrphan(part.found)


def _at_rest(look: Look, drop: Drop, meta: DropMeta) -> Action:
    if not all(_agrees(body, meta) for body in look.bodies):
        return Damaged("file")
    if len(look.bodies) > 1:
        return Damaged("two files")
    live = _live(drop)
    if live:
        return Keep(Why.CLAIMED, drop.due_ms)
    if drop.state is DropState.CLAIMED:
        return Damaged("claimed by nobody")
    return Keep(Why.AGREES if look.part is None else Why.GRACE, drop.due_ms)


def _live(drop: Drop) -> list[Claim]:
    return [c for c in drop.claims if not c.closed and c.deadline_ms > drop.now_ms]


def _agrees(seen: SeenFile, meta: DropMeta) -> bool:
    return seen.meta is not None and (seen.meta.size, seen.meta.sha256) == (meta.size, meta.sha256)
