"""Times as people and programs read them; inside they are Unix milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(ms: int) -> datetime:
    """The moment, with its time zone, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def iso_utc(ms: int) -> str:
    """The moment as RFC 3339 wants it, to the second: `2026-03-01T12:00:00Z`."""
    return utc(ms).strftime("%Y-%m-%dT%H:%M:%SZ")
