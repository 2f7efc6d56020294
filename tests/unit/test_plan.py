"""What is to be done about a drop: the table of DESIGN, row by row, and what must never happen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncedrop_common.drops import (
    Claim,
    ClaimHash,
    Drop,
    DropId,
    DropMeta,
    DropState,
    GoneReason,
    IfInterrupted,
)
from oncedrop_common.volume import FoundFile, Place
from oncedrop_janitor import plan
from oncedrop_janitor.plan import Action, Keep, Look, Rules, SeenFile, Why, decide

NOW = 1_800_000_000_000
# The volume's clock is another one.
VOLUME_NOW = NOW - 5_000_000
GRACE = 900_000
LEASE = 600_000
RULES = Rules(grace_ms=GRACE, upload_lease_ms=LEASE)
ID = DropId("0" * 32)
A, B = ClaimHash("a" * 32), ClaimHash("b" * 32)
META = DropMeta(
    name="report.pdf",
    content_type="application/pdf",
    size=10,
    sha256="1" * 64,
    created_ms=NOW - 2 * GRACE,
    expires_ms=NOW + 86_400_000,
    owner_hash="2" * 64,
)
EXPIRED = replace(META, expires_ms=NOW - 1)
LIVE = Claim(A, NOW - 1000, NOW + 1000)
OVER = Claim(A, NOW - LEASE, NOW)
CLOSED = replace(OVER, closed=True)


def part(age_ms: int = 10 * GRACE) -> SeenFile:
    return SeenFile(FoundFile(Place.INCOMING, ID, None, 0, VOLUME_NOW - age_ms))


def blob(meta: DropMeta | None = META, age_ms: int = 10 * GRACE) -> SeenFile:
    return SeenFile(FoundFile(Place.BLOBS, ID, None, 4106, VOLUME_NOW - age_ms), meta)


def taken(
    claim_hash: ClaimHash = A, meta: DropMeta | None = META, age_ms: int = 10 * GRACE
) -> SeenFile:
    return SeenFile(FoundFile(Place.CLAIMED, ID, claim_hash, 4106, VOLUME_NOW - age_ms), meta)


def uploading(deadline_ms: int) -> Drop:
    return Drop(ID, DropState.UPLOADING, 4, NOW, upload_deadline_ms=deadline_ms)


def ready(meta: DropMeta = META, *claims: Claim, lapsed: tuple[ClaimHash, ...] = ()) -> Drop:
    return Drop(
        ID,
        DropState.READY,
        5,
        NOW,
        meta=meta,
        claims=claims,
        lapsed=frozenset(lapsed),
        downloads_left=meta.max_downloads,
        created_ms=meta.created_ms,
        expires_ms=meta.expires_ms,
        size=meta.size,
    )


def claimed(*claims: Claim, meta: DropMeta = META, lapsed: tuple[ClaimHash, ...] = ()) -> Drop:
    return replace(
        ready(meta, *claims, lapsed=lapsed),
        state=DropState.CLAIMED,
        downloads_left=0,
        claimed_ms=min((c.started_ms for c in claims), default=0),
    )


GONE = Drop(ID, DropState.GONE, 9, NOW, reason=GoneReason.DELIVERED)


def look(drop: Drop | None, *files: SeenFile, moving: bool = False, damaged: bool = False) -> Look:
    return Look(ID, drop, files, NOW, VOLUME_NOW, record_damaged=damaged, moving=moving)


def decided(drop: Drop | None, *files: SeenFile, rules: Rules = RULES) -> Action:
    return decide(look(drop, *files), rules)


# blob, no record


def test_a_blob_that_redis_forgot_is_rebuilt_whatever_its_age() -> None:
    assert decided(None, blob(age_ms=0)) == plan.Rebuild(META, None)


@pytest.mark.parametrize("meta", [EXPIRED, None], ids=["expired", "bad header"])
def test_a_blob_from_which_no_record_can_be_made_is_an_orphan_after_grace(
    meta: DropMeta | None,
) -> None:
    old, young = blob(meta, age_ms=GRACE), blob(meta, age_ms=GRACE - 1)
    assert decided(None, old) == plan.UnlinkOrphan(old.found)
    assert decided(None, young) == Keep(Why.GRACE, NOW + 1)


# blob, record says gone


@pytest.mark.parametrize("file", [part(0), blob(age_ms=0), taken(age_ms=0)])
def test_files_of_a_gone_drop_are_unlinked_whatever_their_age(file: SeenFile) -> None:
    assert decided(GONE, file) == plan.UnlinkGone()


def test_a_gone_drop_without_files_needs_nothing() -> None:
    assert decided(GONE) == Keep(Why.NOTHING)


# part, no record or lapsed lease


def test_a_part_without_record_is_an_orphan_after_grace() -> None:
    old = part(GRACE)
    assert decided(None, old) == plan.UnlinkOrphan(old.found)
    assert decided(None, part(GRACE - 1000)) == Keep(Why.GRACE, NOW + 1000)


def test_a_part_within_its_lease_is_kept_until_the_lease_ends() -> None:
    assert decided(uploading(NOW + 7), part()) == Keep(Why.UPLOADING, NOW + 7)


def test_a_mere_part_whose_lease_lapsed_is_abandoned() -> None:
    assert decided(uploading(NOW), part(LEASE)) == plan.Abandon()


def test_a_part_that_is_written_to_is_kept_whatever_an_old_record_says() -> None:
    assert decided(uploading(NOW - GRACE), part(1000)) == Keep(Why.GRACE, NOW + LEASE - 1000)


def test_an_upload_of_which_nothing_is_there_is_abandoned_with_its_lease() -> None:
    assert decided(uploading(NOW)) == plan.Abandon()


# claimed file, no record


@pytest.mark.parametrize("meta", [META, EXPIRED])
def test_a_claimed_file_that_redis_forgot_is_rebuilt_as_claimed_by_its_hash(meta: DropMeta) -> None:
    assert decided(None, taken(B, meta)) == plan.Rebuild(meta, B)


def test_a_claimed_file_decides_over_a_blob_beside_it() -> None:
    assert decided(None, blob(), taken(B)) == plan.Rebuild(META, B)
    assert decided(None, blob(), taken(B, None)) == plan.Rebuild(META, B)


# claimed file, not the record's live claim


def test_a_file_whose_hash_is_listed_as_lapsed_goes_back() -> None:
    restore = replace(META, if_interrupted=IfInterrupted.RESTORE)
    assert decided(ready(restore, lapsed=(A,)), taken(meta=restore)) == plan.MoveBack(A)


def test_a_file_whose_hash_is_unlisted_is_adopted() -> None:
    assert decided(ready(lapsed=(B,)), taken(A)) == plan.Adopt(A, 5)
    assert decided(claimed(LIVE), taken(B)) == plan.Adopt(B, 5)


def test_an_unlisted_hash_is_adopted_before_the_drop_expires() -> None:
    assert decided(ready(EXPIRED), taken(A, EXPIRED)) == plan.Adopt(A, 5)


def test_a_claimed_file_beside_that_of_the_live_claim_is_reported() -> None:
    assert decided(claimed(LIVE), taken(A), taken(B)) == plan.Damaged("two files")


def test_a_damaged_file_is_never_adopted() -> None:
    assert decided(ready(), taken(A, None)) == plan.Damaged("claimed file")


# blob, record still uploading


@pytest.mark.parametrize("meta", [META, EXPIRED])
def test_an_upload_whose_commit_was_lost_is_committed(meta: DropMeta) -> None:
    assert decided(uploading(NOW), blob(meta, age_ms=0)) == plan.Commit(meta)
    assert decided(uploading(NOW), taken(A, meta)) == plan.Commit(meta)


def test_an_upload_that_commits_right_now_is_left_to_its_uploader() -> None:
    assert decided(uploading(NOW + 1), blob()) == Keep(Why.UPLOADING, NOW + 1)


def test_a_bad_blob_of_a_lapsed_upload_is_abandoned_after_grace() -> None:
    assert decided(uploading(NOW), blob(None, GRACE)) == plan.Abandon()
    assert decided(uploading(NOW), blob(None, GRACE - 9)) == Keep(Why.GRACE, NOW + 9)


# record claimed


def test_a_claim_that_has_not_taken_its_file_yet_is_kept() -> None:
    assert decided(claimed(LIVE), blob()) == Keep(Why.CLAIMED, LIVE.deadline_ms)


def test_a_live_claim_with_its_file_is_kept() -> None:
    assert decided(claimed(LIVE), taken()) == Keep(Why.CLAIMED, LIVE.deadline_ms)


def test_a_lapsed_claim_names_where_its_file_lies() -> None:
    assert decided(claimed(OVER), blob()) == plan.Lapse(A, 5, Place.BLOBS)
    assert decided(claimed(OVER), taken()) == plan.Lapse(A, 5, Place.CLAIMED)


@pytest.mark.parametrize("file", [blob(), taken()])
def test_a_closed_claim_is_finished_by_giving_its_file_back(file: SeenFile) -> None:
    assert decided(claimed(CLOSED), file) == plan.GiveBack(A, 5)


def test_claims_of_several_downloads_lapse_in_place() -> None:
    many = replace(META, max_downloads=3)
    over = (OVER, replace(LIVE, claim_hash=B))
    assert decided(ready(many, *over), blob(many)) == plan.Lapse(A, 5, Place.BLOBS)
    assert decided(ready(many, replace(LIVE)), blob(many)) == Keep(Why.CLAIMED, LIVE.deadline_ms)


def test_a_file_of_several_downloads_never_stays_in_claimed() -> None:
    many = replace(META, max_downloads=3)
    assert decided(ready(many), taken(meta=many)) == plan.MoveBack(A)


# record ready or claimed, no file anywhere


def test_a_record_without_file_is_lost_after_grace() -> None:
    assert decided(ready()) == plan.Lose(5)
    young = replace(ready(), created_ms=NOW - GRACE + 1)
    assert decided(young) == Keep(Why.GRACE, NOW + 1)
    assert decided(claimed(replace(OVER, started_ms=NOW - GRACE))) == plan.Lose(5)
    assert decided(claimed(OVER)) == Keep(Why.GRACE, NOW + GRACE - LEASE)


def test_a_live_claim_without_file_is_kept_until_it_lapses() -> None:
    assert decided(claimed(LIVE)) == Keep(Why.CLAIMED, LIVE.deadline_ms)


def test_records_older_than_an_ephemeral_volume_are_lost_at_once_and_expected() -> None:
    born = replace(RULES, volume_born_ms=NOW)
    assert decided(ready(), rules=born) == plan.Lose(5, expected=True)
    assert not decided(ready(), rules=born).mismatched
    assert decided(ready(), rules=replace(born, volume_born_ms=META.created_ms)).mismatched


def test_an_expired_record_without_file_is_expired_not_lost() -> None:
    assert decided(ready(EXPIRED)) == plan.Expire()


# the due pass, and what is at rest


def test_a_ready_drop_expires_when_its_time_is_over() -> None:
    assert decided(ready(), blob()) == Keep(Why.AGREES, META.expires_ms)
    assert decided(ready(EXPIRED), blob(EXPIRED)) == plan.Expire()


def test_an_old_part_beside_a_ready_drop_is_an_orphan() -> None:
    old = part()
    assert decided(ready(), old, blob()) == plan.UnlinkOrphan(old.found)
    assert decided(ready(), part(5), blob()) == Keep(Why.GRACE, META.expires_ms)


@pytest.mark.parametrize("file", [blob(None), blob(replace(META, sha256="9" * 64))])
def test_a_blob_that_does_not_agree_with_its_record_is_reported_and_kept(file: SeenFile) -> None:
    assert decided(ready(), file) == plan.Damaged("file")


def test_a_record_that_cannot_be_read_is_reported() -> None:
    assert decide(look(None, blob(), damaged=True), RULES) == plan.Damaged("record")
    assert decided(replace(ready(), meta=None), blob()) == plan.Damaged("record")


def test_a_record_claimed_by_nobody_is_reported() -> None:
    assert decided(claimed(), blob()) == plan.Damaged("claimed by nobody")


def test_a_file_that_moves_while_it_is_looked_at_is_left_alone() -> None:
    assert decide(look(ready(), moving=True), RULES) == Keep(Why.MOVING)


# Invariants, over everything that can be seen.


@st.composite
def claims_of(draw: st.DrawFn, hashes: tuple[ClaimHash, ...]) -> tuple[Claim, ...]:
    chosen = draw(st.sets(st.sampled_from(hashes)))
    return tuple(
        Claim(
            claim_hash,
            NOW - draw(st.integers(0, 2 * GRACE)),
            NOW + draw(st.integers(-GRACE, GRACE)),
            closed=draw(st.booleans()),
            unsent=draw(st.booleans()),
            rebuilt=draw(st.booleans()),
        )
        for claim_hash in sorted(chosen)
    )


METAS = st.builds(
    lambda expires, downloads, policy, created: replace(
        META,
        expires_ms=NOW + expires,
        max_downloads=downloads,
        if_interrupted=policy,
        created_ms=NOW - created,
    ),
    st.integers(-GRACE, GRACE),
    st.sampled_from([1, 1, 3]),
    st.sampled_from(IfInterrupted),
    st.integers(0, 3 * GRACE),
)


@st.composite
def looks(draw: st.DrawFn) -> Look:
    """Any record with any files: what faults, old copies and hands can lead to."""
    meta = draw(METAS)
    ages = st.integers(0, 3 * GRACE)
    headers = st.sampled_from([meta, meta, None])
    files = []
    if draw(st.booleans()):
        files.append(part(draw(ages)))
    if draw(st.booleans()):
        files.append(blob(draw(headers), draw(ages)))
    for claim_hash in sorted(draw(st.sets(st.sampled_from([A, B])))):
        files.append(taken(claim_hash, draw(headers), draw(ages)))  # noqa: PERF401 - draws in order
    lapsed = tuple(draw(st.sets(st.sampled_from([A, B]))))
    hashes = tuple(h for h in (A, B) if h not in lapsed)
    claims = draw(claims_of(hashes)) if hashes else ()
    if meta.max_downloads == 1:
        claims = claims[:1]
    record = draw(st.sampled_from(["none", "uploading", "ready", "claimed", "gone"]))
    drops = {
        "none": None,
        "uploading": uploading(NOW + draw(st.integers(-GRACE, GRACE))),
        # Nobody holds the claim of a ready drop that allows one download.
        "ready": ready(meta, *(claims if meta.max_downloads > 1 else ()), lapsed=lapsed),
        "claimed": claimed(*claims, meta=meta, lapsed=lapsed),
        "gone": GONE,
    }
    return look(drops[record], *files)


@given(looks())
def test_nothing_is_deleted_that_is_uploading_ready_or_under_a_live_claim(seen: Look) -> None:
    action = decide(seen, RULES)
    drop = seen.drop
    if not action.deletes or drop is None:
        return
    if isinstance(action, plan.UnlinkOrphan):
        assert action.found.place is Place.INCOMING, "of a living drop only a stale part"
        return
    assert drop.state is not DropState.UPLOADING or drop.upload_deadline_ms <= NOW
    if isinstance(action, plan.Expire):
        assert drop.expires_ms <= NOW
    elif isinstance(action, plan.Lapse):
        claim = drop.claim(action.claim_hash)
        assert claim is not None
        assert claim.closed or claim.deadline_ms <= NOW
    elif isinstance(action, plan.Lose):
        assert not seen.bodies
        assert all(c.closed or c.deadline_ms <= NOW for c in drop.claims)


@given(looks())
def test_young_things_are_never_taken_for_orphans(seen: Look) -> None:
    action = decide(seen, RULES)
    if isinstance(action, plan.UnlinkOrphan):
        assert VOLUME_NOW - action.found.mtime_ms >= GRACE
    if isinstance(action, plan.Lose):
        assert seen.drop is not None
        assert NOW - seen.drop.created_ms >= GRACE


def _bury(drop: Drop) -> Drop:
    return replace(drop, state=DropState.GONE, meta=None, claims=(), lapsed=frozenset())


def _closed(drop: Drop, claim_hash: ClaimHash, **changes: object) -> Drop:
    rest = tuple(c for c in drop.claims if c.claim_hash != claim_hash)
    closed = replace(drop, claims=rest, lapsed=drop.lapsed | {claim_hash})
    return replace(closed, **changes)  # type: ignore[arg-type]


def _lapsed(drop: Drop, action: plan.Lapse) -> Drop:
    """What lapse.lua makes of the record."""
    claim = drop.claim(action.claim_hash)
    assert claim is not None
    assert drop.meta is not None
    restorable = claim.unsent or (
        drop.meta.if_interrupted is IfInterrupted.RESTORE and not claim.rebuilt
    )
    single = drop.meta.max_downloads == 1
    if (single and action.place is Place.BLOBS) or (restorable and not single):
        return _closed(
            drop,
            claim.claim_hash,
            state=DropState.READY,
            downloads_left=drop.downloads_left + 1,
        )
    if restorable:
        others = tuple(c for c in drop.claims if c is not claim)
        return replace(drop, claims=(*others, replace(claim, closed=True)))
    rest = _closed(drop, claim.claim_hash)
    return _bury(rest) if rest.downloads_left <= 0 and not rest.claims else rest


def _renamed(files: tuple[SeenFile, ...], claim_hash: ClaimHash) -> tuple[SeenFile, ...]:
    """The claimed file back in blobs/, over whatever lies there."""
    file = next((f for f in files if f.found.claim_hash == claim_hash), None)
    if file is None:
        return files
    back = SeenFile(replace(file.found, place=Place.BLOBS, claim_hash=None), file.meta)
    others = [f for f in files if f is not file and f.found.place is not Place.BLOBS]
    return (*(f for f in others if f.found.place is Place.INCOMING), back,
            *(f for f in others if f.found.place is Place.CLAIMED))  # fmt: skip


def _applied(seen: Look, action: Action) -> Look:
    """A model of scripts and volume: what a look would see after the action."""
    drop, files = seen.drop, seen.files
    match action:
        case plan.Rebuild(meta, None):
            drop = ready(meta)
        case plan.Rebuild(meta, claim_hash):
            assert claim_hash is not None
            drop = claimed(Claim(claim_hash, NOW, NOW + LEASE, rebuilt=True), meta=meta)
        case plan.Commit(meta):
            drop = ready(meta)
        case plan.UnlinkOrphan(found):
            files = tuple(f for f in files if f.found != found)
        case plan.UnlinkGone():
            files = ()
        case plan.MoveBack(claim_hash):
            files = _renamed(files, claim_hash)
        case _:
            assert drop is not None
            drop, files = _ended(drop, files, action)
    return replace(seen, drop=drop, files=files)


def _ended(
    drop: Drop, files: tuple[SeenFile, ...], action: Action
) -> tuple[Drop, tuple[SeenFile, ...]]:
    match action:
        case plan.Adopt(claim_hash, revision):
            assert revision == drop.revision
            lapsed = drop.lapsed | {c.claim_hash for c in drop.claims}
            adopted = Claim(claim_hash, NOW, NOW + LEASE, rebuilt=True)
            drop = replace(
                drop, state=DropState.CLAIMED, claims=(adopted,), lapsed=lapsed, downloads_left=0
            )
        case plan.GiveBack(claim_hash, _):
            drop = _closed(drop, claim_hash, state=DropState.READY, downloads_left=1)
            files = _renamed(files, claim_hash)
        case plan.Lapse():
            drop = _lapsed(drop, action)
        case plan.Expire() if drop.claims:
            drop = replace(drop, state=DropState.CLAIMED, downloads_left=0)
        case plan.Expire() | plan.Abandon():
            drop, files = _bury(drop), ()
        case plan.Lose():
            drop = _bury(drop)
    return drop, files


@given(looks())
def test_the_plan_converges_and_a_second_sweep_has_nothing_to_do(seen: Look) -> None:
    rounds = 0
    while not isinstance(action := decide(seen, RULES), (Keep, plan.Damaged)):
        seen = _applied(seen, action)
        rounds += 1
        assert rounds <= 8, action
    assert decide(seen, RULES) == action
