"""The life of a drop, as a list of what happened when: the record first, events for the detail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from oncedrop_common.drops import Drop, DropState, GoneReason
from oncedrop_common.store.events import Event


class Happening(StrEnum):
    """What can have happened; a drop that is gone ends with its GoneReason instead."""

    UPLOADED = "uploaded"
    CLAIMED = "claimed"
    PAUSED = "paused"
    RESUMED = "resumed"
    RESTORED = "restored"
    DOWNLOADED = "downloaded"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline.

    Attributes:
        at_ms: When; 0: not known.
        percent: How far a download had come, 0 to 100; None where that says nothing.
    """

    what: Happening | GoneReason
    at_ms: int
    percent: int | None = None


_HAPPENINGS = {
    "created": Happening.UPLOADED,
    "claimed": Happening.CLAIMED,
    "paused": Happening.PAUSED,
    "resumed": Happening.RESUMED,
    # Of a drop that lives on; the end of one that does not is in its record.
    "interrupted": Happening.RESTORED,
    "delivered": Happening.DOWNLOADED,
}


def timeline(drop: Drop, events: Iterable[Event]) -> list[Entry]:
    """What happened to the drop, the oldest first.

    Args:
        drop: Its record, which has the last word: beginning, last claim and end are from there.
        events: What the stream still knows of it, in order; none of it is needed.
    """
    entries: list[Entry] = []
    for event in events:
        what = _HAPPENINGS.get(event.name)
        # Ranges of one claimant break off and come back together, and that is told once.
        if what is None or (what is Happening.RESUMED and _last(entries) is not Happening.PAUSED):
            continue
        if what is Happening.PAUSED and _last(entries) is Happening.PAUSED:
            entries.pop()
        percent = _percent(event.numbers.get("bytes", 0), drop.size)
        told = what in (Happening.PAUSED, Happening.RESUMED)
        entries.append(Entry(what, event.at_ms, percent if told else None))
    if drop.created_ms and drop.state is not DropState.UPLOADING:
        entries = _with(entries, Entry(Happening.UPLOADED, drop.created_ms), at=0)
    if drop.claimed_ms:
        after = sum(entry.what is Happening.UPLOADED for entry in entries)
        entries = _with(entries, Entry(Happening.CLAIMED, drop.claimed_ms), at=after)
    if drop.state is DropState.GONE and drop.reason is not None:
        # Its own last event says the same, in other words and moments later.
        last = {GoneReason.DELIVERED: Happening.DOWNLOADED,
                GoneReason.INTERRUPTED: Happening.RESTORED}.get(drop.reason)  # fmt: skip
        if last is not None and _last(entries) is last:
            entries.pop()
        entries.append(Entry(drop.reason, drop.gone_ms, _at_the_end(drop)))
    elif drop.expired and not any(not claim.closed for claim in drop.claims):
        entries.append(Entry(GoneReason.EXPIRED, drop.expires_ms))
    return entries


def _with(entries: list[Entry], entry: Entry, *, at: int) -> list[Entry]:
    if any(each.what is entry.what for each in entries):
        return entries
    return [*entries[:at], entry, *entries[at:]]


def _last(entries: list[Entry]) -> Happening | GoneReason | None:
    return entries[-1].what if entries else None


def _at_the_end(drop: Drop) -> int | None:
    told = drop.reason in (GoneReason.INTERRUPTED, GoneReason.DELETED) and drop.claimed_ms
    return _percent(drop.acknowledged_bytes, drop.size) if told else None


def _percent(count: int, size: int) -> int | None:
    # Rounded down: 100 % is only what has arrived whole.
    return min(100, count * 100 // size) if size else None
