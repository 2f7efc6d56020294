"""What has happened to drops: the stream of events, read.

It is capped, so it tells the recent past only, and it is written without waiting, so an event may
be missing. What a drop *is* stands in its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from oncedrop_common.drops import DropId
from oncedrop_common.store import keys
from oncedrop_common.store.connection import StoreConnection
from oncedrop_common.tokens import is_drop_id

FROM_THE_BEGINNING = "0-0"
SAMPLE_SECONDS = 300
_PAGE = 500
# Longer than a stream's cap is overrun: XADD trims roughly.
_PAGES_MOST = 2 * keys.EVENTS_KEPT // _PAGE


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the stream.

    Attributes:
        entry_id: Its place in the stream.
        at_ms: When it was written, by Redis' clock.
        name: What happened.
        drop_id: To which drop; None for what happened to none.
        numbers: Further fields.
    """

    entry_id: str
    at_ms: int
    name: str
    drop_id: DropId | None = None
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """How much was stored at a time (ms)."""

    at_ms: int
    drops: int
    size: int


class Events(StoreConnection):
    """Reads the stream of events, which StoreConnection.record_event writes; and samples."""

    async def events_of(self, drop_id: DropId, from_ms: int, to_ms: int) -> list[Event]:
        """What happened to this drop in this time, as far as the stream still knows it."""
        found: list[Event] = []
        start = str(from_ms)
        for _ in range(_PAGES_MOST):
            page = _parsed(
                await self.call("XRANGE", keys.EVENTS, start, str(to_ms), "COUNT", _PAGE)
            )
            found += [event for event in page if event.drop_id == drop_id]
            if len(page) < _PAGE:
                break
            start = f"({page[-1].entry_id}"
        return found

    async def last_events(self, count: int) -> list[Event]:
        """The newest events, newest first."""
        return _parsed(await self.call("XREVRANGE", keys.EVENTS, "+", "-", "COUNT", count))

    def note_sample(self, at_ms: int, drops: int, size: int) -> None:
        """Keep how much is stored (size in bytes), once in SAMPLE_SECONDS, whoever comes first."""
        period = SAMPLE_SECONDS * 1000
        # Redis takes no entry twice, nor one before the last: janitors need not agree.
        place = f"{at_ms // period * period}-1"
        self.cast(
            "XADD", keys.SAMPLES, "MAXLEN", "~", keys.SAMPLES_KEPT, place,
            "drops", drops, "bytes", size,
        )  # fmt: skip

    async def samples(self) -> list[Sample]:
        """What was kept, the oldest first."""
        rows = _parsed(await self.call("XRANGE", keys.SAMPLES, "-", "+"))
        return [
            Sample(row.at_ms, row.numbers.get("drops", 0), row.numbers.get("bytes", 0))
            for row in rows
        ]

    async def events_after(self, entry_id: str, wait_ms: int) -> list[Event]:
        """What came after this entry; waits for the first, but no longer than wait_ms.

        Occupies a connection of its own meanwhile.
        """
        # Less than a single answer may take: silence must not look like a server that is away.
        wait_ms = max(1, min(wait_ms, int(self.timeout_seconds * 500)))
        async with self.answering():
            streams: Any = await self.client.execute_command(
                "XREAD", "COUNT", _PAGE, "BLOCK", wait_ms, "STREAMS", keys.EVENTS, entry_id
            )
        return [event for _, rows in streams or () for event in _parsed(rows)]


def _parsed(rows: Sequence[Any] | None) -> list[Event]:
    """Entries as redis-py gives them: pairs of id and fields; what cannot be read is left out."""
    events = []
    for entry_id, row in rows or ():
        pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=False)
        fields = {_text(name): _text(value) for name, value in pairs}
        place = _text(entry_id)
        name, drop_id = fields.pop("event", ""), fields.pop("drop_id", "")
        events.append(
            Event(
                place,
                int(place.partition("-")[0]),
                name,
                DropId(drop_id) if is_drop_id(drop_id) else None,
                {key: int(value) for key, value in fields.items() if value.isdecimal()},
            )
        )
    return events


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
