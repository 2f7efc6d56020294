"""A model of the invariants (DESIGN section 10), and what of a history it cannot explain.

The model does not know what the services did, only what clients asked, when, and what broke when.
So it judges by what may have happened: an answer is a violation when nothing that was asked, and
no fault, can be the reason for it.

What is written nowhere in a history is checked beside it: that sweeps converge (5) and that no
secret lies about (8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from support.history import Asked, History, Kept, What, covers

# What is over for the model is not over at once for a service that has just come back.
SETTLE_SECONDS = 12.0
# A renewal may be a second old when a service dies, and Redis may lose one more; some for us.
_LEASE_MARGIN_SECONDS = 4.0
_CLOCK_SECONDS = 1.5
# What a client's kernel takes for it, whether it reads or not.
_UNREAD_BYTES = 1024 * 1024

_ALLOWED = {
    What.UPLOAD: {201, 400, 503, 507},
    What.TAKE: {200, 206, 303, 401, 404, 409, 410, 429, 503},
    What.RESUME: {200, 206, 404, 409, 410, 412, 416, 429, 503},
    What.LOOK: {200, 401, 404, 409, 410, 429, 503},
    What.RECEIPT: {200, 404, 503},
    What.DELETE: {200, 404, 503},
}


def violations(history: History) -> list[str]:
    """Everything in this history that breaks an invariant, each with the invariant's number."""
    found = [*_answers(history)]
    for drop_id, asked in history.by_drop().items():
        drop = history.kept[drop_id]
        for check in (_once, _whole, _kept, _gone, _spared):
            found += [f"{text}: drop {drop_id}" for text in check(history, drop, asked)]
    return found


def _answers(history: History) -> Iterator[str]:
    """9 (dependencies away), and that there is an answer at all."""
    for asked in history.asked:
        where = f"{asked.what} at {asked.began:.3f} {asked.reason}: drop {asked.drop}"
        if asked.status is not None and asked.status not in _ALLOWED[asked.what]:
            yield f"answer {asked.status} to {where}"
        if asked.leaked:
            yield f"1 a refusal held bytes of the file: {where}"
        calm = not history.broken(asked.began - SETTLE_SECONDS, asked.ended)
        if asked.status is None and not asked.left_early and calm:
            yield f"9 no answer, and nothing was broken: {where}"
        if _cut(asked) and calm:
            yield f"9 half an answer, and nothing was broken: {where}"
        missing = asked.reason == "blob_missing" and history.forgot(asked.ended)
        if asked.status == 503 and calm and not missing:
            yield f"9 still {asked.status} after all was mended: {where}"
        if asked.status == 507 and calm:
            yield f"9 still full: {where}"


def _cut(asked: Asked) -> bool:
    """Whether an answer that is no file broke off; a file may, when its claim is over."""
    file = asked.what in (What.TAKE, What.RESUME) and asked.status in (200, 206)
    return not (file or asked.status is None or asked.complete or asked.left_early)


def _once(history: History, drop: Kept, asked: Sequence[Asked]) -> Iterator[str]:
    """1: no more claims are fed than there are downloads; with restore never two at a time."""
    fed = [a for a in asked if a.fed]
    if any(not a.claim for a in fed):
        yield "1 bytes without a claim"
    if drop.restorable:
        if drop.max_downloads == 1:
            yield from _one_after_the_other(history, drop, fed)
        return
    claims = {a.claim for a in fed}
    # Of several downloads Redis alone keeps count; a lost count is told in the README.
    counted = drop.max_downloads == 1 or not history.forgot(max((a.ended for a in fed), default=0))
    if counted and len(claims) > drop.max_downloads:
        yield f"1 {len(claims)} claims were fed, {drop.max_downloads} may be"


def _one_after_the_other(history: History, drop: Kept, fed: Sequence[Asked]) -> Iterator[str]:
    """1, for a drop that is given to the next when a download broke off."""
    for late in fed:
        before = [a for a in fed if a.claim == late.claim and a.headed < late.began]
        others = (a for a in fed if a.claim != late.claim and a.headed < late.began)
        if before and any(a.headed > before[0].headed for a in others):
            yield "1 a claim was fed again after the next one"
    if not drop.resumable:
        # There each answer is a download of its own: no second chance.
        fed = [a for a in fed if a.received == drop.size]
    claims = dict.fromkeys(a.claim for a in fed)
    whole = [c for c in claims if covers(drop.size, [a for a in fed if a.claim == c])]
    for claim in whole[:-1]:
        ended = max(a.ended for a in fed if a.claim == claim)
        # Who knew that it had arrived may have died, or Redis was away until the lease was over.
        if not history.broken(ended - SETTLE_SECONDS, ended + history.lease_seconds):
            yield "1 a second claimant has the whole file"


def _whole(_: History, drop: Kept, asked: Sequence[Asked]) -> Iterator[str]:
    """2: what came is what was uploaded."""
    for a in asked:
        if not a.claim:
            continue
        expected = drop.digest(a.start, a.received)
        if a.fed and expected is not None and a.digest != expected:
            yield f"2 wrong bytes at {a.start}"
        # A range was asked for up to the end.
        if a.complete and a.status in (200, 206) and a.start + a.received != drop.size:
            yield f"2 a complete answer ends at {a.start + a.received} of {drop.size}"


def _may_have_taken(history: History, a: Asked) -> bool:
    """Whether this request may have used a download up: it was, or may have been, sent a byte."""
    if a.what not in (What.TAKE, What.RESUME):
        return False
    if a.status in (200, 206):
        return bool(a.claim)
    # A process that died between rename and head: told in docs/faults.md.
    return a.status is None and (a.left_early or history.broken(a.began - 1, a.ended))


def _ended(history: History, drop: Kept, asked: Sequence[Asked], at: Asked) -> bool:
    """Whether this drop may have been over when this answer came."""
    before = [a for a in asked if a.began < at.ended and a is not at]
    if any(a.what is What.DELETE for a in before):
        return True
    if at.ended > drop.at + drop.ttl_seconds - _CLOCK_SECONDS:
        return True
    taken = [a for a in before if _may_have_taken(history, a)]
    if drop.restorable and not history.forgot(at.ended):
        parts = {a.claim: [b for b in taken if b.claim == a.claim] for a in taken if a.claim}
        whole = [c for c in parts if covers(drop.size, parts[c], unread=_UNREAD_BYTES)]
        # Of a download without a head we do not even know that it was none.
        unknown = [a for a in taken if not a.claim]
        return len(whole) + len(unknown) >= drop.max_downloads
    return len(taken) >= drop.max_downloads


def _kept(history: History, drop: Kept, asked: Sequence[Asked]) -> Iterator[str]:
    """3 (acknowledged means kept), 7 (looking is free: to look is no reason for an end)."""
    for a in asked:
        # A record that came back older than the end of its drop is kept until grace is over.
        held = a.settled and a.status == 409
        missing = (a.reason == "blob_missing" or held) and history.forgot(a.ended)
        answers = (200, 206, 303, 404, 410)
        if a.settled and a.what is What.TAKE and not missing and a.status not in answers:
            yield f"3 in the end {a.status} {a.reason}"
        # That a claim is over says nothing of the drop; see _spared.
        if (
            (a.status not in (404, 410) and not missing)
            or a.ended < drop.at
            or a.what is What.RESUME
        ):
            continue
        if a.status != 404 and a.reason in ("claimed", "", "blob_missing") and not a.settled:
            # Somebody's for a while, even if that somebody was told nothing. An answer to HEAD,
            # or one that was not read, gives no reason.
            takes = (b for b in asked if b.what in (What.TAKE, What.RESUME) and b is not a)
            if any(b.began < a.ended for b in takes):
                continue
        if not _ended(history, drop, asked, a):
            yield f"3 {a.status} {a.reason} to {a.what}, and nothing had ended it"
        elif a.status == 404 and not history.forgot(a.ended):
            yield f"3 404 to {a.what}, though nothing was forgotten"


def _gone(history: History, _: Kept, asked: Sequence[Asked]) -> Iterator[str]:
    """4: gone means gone."""
    for a in asked:
        if not a.still_there:
            continue
        if a.what is What.DELETE or not history.broken(a.began - SETTLE_SECONDS, a.ended + 5):
            yield f"4 still there after {a.what}: {', '.join(a.still_there)}"


def _spared(history: History, drop: Kept, asked: Sequence[Asked]) -> Iterator[str]:
    """6: whoever has a live claim goes on, whatever sweeps do."""
    for a in asked:
        if a.what is not What.RESUME or a.status not in (404, 409, 410, 412):
            continue
        if not drop.resumable or any(b.what is What.DELETE and b.began < a.ended for b in asked):
            # Nothing is owed to a claimant any more.
            continue
        if drop.max_downloads > 1 and history.forgot(a.ended):
            # Only Redis knew of this claim.
            continue
        mine = [b for b in asked if b.fed and b.claim == a.claim]
        before = [b for b in mine if b.headed < a.began]
        until_now = [b for b in mine if b.headed < a.ended]
        if not before or covers(drop.size, until_now, unread=_UNREAD_BYTES):
            continue
        # Of a slow reader the server may have seen less than it has, so its heads count.
        since = max(b.headed for b in before)
        if a.ended - since < history.lease_seconds - _LEASE_MARGIN_SECONDS:
            yield f"6 {a.status} {a.reason} to the claimant {a.ended - since:.1f} s after its bytes"


def summary(history: History) -> str:
    """The numbers of a run, in words."""
    faults: dict[str, int] = {}
    for fault in history.faults:
        faults[fault.name] = faults.get(fault.name, 0) + 1
    unusual = sum(a.left_early for a in history.asked)
    times = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
    return (
        f"{len(history.asked)} operations ({unusual} clients left early), "
        f"{len(history.kept)} drops kept, {sum(a.fed for a in history.asked)} answers with bytes, "
        f"{len(history.faults)} faults injected ({times})"
    )


def story(history: History, drop_id: str) -> str:
    """What happened to one drop, a line each, for whoever looks for the reason."""
    drop = history.kept[drop_id]
    lines = [f"{drop}"]
    for a in history.of(drop_id):
        claim = f" claim {a.claim[:4]}" if a.claim else ""
        lines.append(
            f"{a.began - drop.at:8.3f} {a.headed - drop.at:8.3f} {a.ended - drop.at:8.3f} {a.what} "
            f"{a.status} {a.reason}{claim} {a.start}+{a.received}"
            f"{' complete' if a.complete else ''}{' left early' if a.left_early else ''}"
            f"{' in the end' if a.settled else ''}"
        )
    lines += [
        f"{f.began - drop.at:8.3f} {'':8} {f.ended - drop.at:8.3f} ({f.name})"
        for f in history.faults
        if f.ended > drop.at
    ]
    return "\n".join(lines)
