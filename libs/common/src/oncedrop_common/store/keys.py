"""Every key there is, with type, lifetime and writer.

| key | type | lifetime | written by |
| --- | --- | --- | --- |
| oncedrop:drop:<id> | hash | expiry + tombstone time | the scripts in lua/, nothing else |
| oncedrop:due:<hex> | sorted set | none; sweeps rebuild it | arrows (no waiting), due pass |
| oncedrop:events | stream | capped at EVENTS_KEPT | arrows (no waiting) |
| oncedrop:volume | string | none | pairing, `force` |
| oncedrop:usage | hash | none; sweeps rewrite it | ingest, whoever unlinks, sweeps |
| oncedrop:janitor:leader | string | lease of the leading janitor | janitor |
| oncedrop:janitor:pass:<name> | string, JSON | none | janitor |
| oncedrop:janitor:samples | stream | capped at SAMPLES_KEPT | janitor |
"""

from __future__ import annotations

from oncedrop_common.drops import DropId

DROP_PREFIX = "oncedrop:drop:"
EVENTS = "oncedrop:events"
EVENTS_KEPT = 10_000
VOLUME = "oncedrop:volume"
USAGE = "oncedrop:usage"
LEADER = "oncedrop:janitor:leader"
PASS_PREFIX = "oncedrop:janitor:pass:"  # noqa: S105 - a janitor pass
SAMPLES = "oncedrop:janitor:samples"
# Of every five minutes, a week.
SAMPLES_KEPT = 2016
DUE_SHARDS = tuple(f"oncedrop:due:{n:x}" for n in range(16))


def drop(drop_id: DropId) -> str:
    """The record's key."""
    return DROP_PREFIX + drop_id


def due(drop_id: DropId) -> str:
    """The shard of the due index in which this drop is listed."""
    return DUE_SHARDS[int(drop_id[0], 16)]
