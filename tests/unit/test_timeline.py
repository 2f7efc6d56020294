"""A drop's life as its owner is told it: the record has the last word, events the detail."""

from __future__ import annotations

from typing import Any

import pytest

from oncedrop_common.drops import Claim, ClaimHash, Drop, DropId, DropState, GoneReason
from oncedrop_common.store.events import Event
from oncedrop_ingest.timeline import Entry, Happening, timeline

DROP_ID = DropId("0123456789abcdef0123456789abcdef")
CREATED, CLAIMED, GONE = 1000, 2000, 9000


def drop(state: DropState = DropState.READY, **fields: Any) -> Drop:
    known = {"created_ms": CREATED, "expires_ms": 100_000, "size": 1000, "now_ms": 5000}
    return Drop(DROP_ID, state, revision=1, **{**known, **fields})


def gone(reason: GoneReason, **fields: Any) -> Drop:
    return drop(DropState.GONE, reason=reason, gone_ms=GONE, claimed_ms=CLAIMED, **fields)


def event(name: str, at_ms: int, **numbers: int) -> Event:
    return Event(f"{at_ms}-0", at_ms, name, DROP_ID, numbers)


def whats(entries: list[Entry]) -> list[str]:
    return [entry.what.value for entry in entries]


def test_without_any_event_the_record_tells_beginning_claim_and_end() -> None:
    entries = timeline(gone(GoneReason.DELIVERED), [])

    assert entries == [
        Entry(Happening.UPLOADED, CREATED),
        Entry(Happening.CLAIMED, CLAIMED),
        Entry(GoneReason.DELIVERED, GONE),
    ]


def test_a_download_that_broke_off_and_went_on_is_told_with_how_far_it_was() -> None:
    events = [
        event("created", CREATED),
        event("claimed", CLAIMED),
        event("paused", 3000, bytes=417),
        event("resumed", 4000, bytes=417),
        event("delivered", GONE + 1),
    ]
    entries = timeline(gone(GoneReason.DELIVERED), events)

    assert whats(entries) == ["uploaded", "claimed", "paused", "resumed", "delivered"]
    assert [entry.percent for entry in entries] == [None, None, 41, 41, None]


def test_ranges_that_break_off_together_are_told_once() -> None:
    events = [
        event("resumed", 2100, bytes=10),
        event("paused", 3000, bytes=100),
        event("paused", 3001, bytes=200),
        event("resumed", 4000, bytes=200),
        event("resumed", 4001, bytes=200),
    ]
    entries = timeline(drop(DropState.CLAIMED, claimed_ms=CLAIMED), events)

    assert whats(entries) == ["uploaded", "claimed", "paused", "resumed"]
    assert entries[2] == Entry(Happening.PAUSED, 3001, 20)


def test_each_download_of_several_is_told() -> None:
    events = [event(name, at) for at, name in enumerate(["claimed", "delivered"] * 2, 2000)]
    entries = timeline(drop(claimed_ms=2002, downloads_left=1), events)

    assert whats(entries) == ["uploaded", *(["claimed", "downloaded"] * 2)]


def test_a_drop_that_was_given_back_goes_on() -> None:
    events = [event("claimed", 2000), event("paused", 2500, bytes=1), event("interrupted", 3000)]
    entries = timeline(drop(claimed_ms=2000), events)

    assert whats(entries) == ["uploaded", "claimed", "paused", "restored"]


@pytest.mark.parametrize("reason", list(GoneReason))
def test_every_end_is_told_once_and_last(reason: GoneReason) -> None:
    entries = timeline(
        gone(reason, acknowledged_bytes=999), [event("claimed", 2000), event(reason.value, 9001)]
    )

    assert whats(entries) == ["uploaded", "claimed", reason.value]
    told = reason in (GoneReason.INTERRUPTED, GoneReason.DELETED)
    assert entries[-1] == Entry(reason, GONE, 99 if told else None)


def test_a_drop_is_expired_before_the_janitor_comes_but_not_under_a_live_claim() -> None:
    late = drop(now_ms=100_000)
    claim = Claim(ClaimHash("a" * 32), started_ms=2000, deadline_ms=200_000)

    assert whats(timeline(late, [])) == ["uploaded", "expired"]
    held = drop(DropState.CLAIMED, now_ms=100_000, claimed_ms=2000, claims=(claim,))
    assert whats(timeline(held, [])) == ["uploaded", "claimed"]


def test_an_empty_file_and_an_upload_under_way_have_nothing_to_measure() -> None:
    assert timeline(drop(size=0, claimed_ms=2000), [event("paused", 3000, bytes=0)])[-1] == Entry(
        Happening.PAUSED, 3000
    )
    assert timeline(drop(DropState.UPLOADING), []) == []
