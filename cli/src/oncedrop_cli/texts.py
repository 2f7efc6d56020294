"""What strangers wrote, made fit for a terminal, and sizes and times in words."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from rich.filesize import decimal

_SHOWN_CHARACTERS = 300
# Controls (escape sequences), format characters (bidi controls), separators of lines, surrogates.
_UNSEEN_CATEGORIES = {"Cc", "Cf", "Zl", "Zp", "Cs"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def seen(text: str) -> str:
    """The text without what a terminal would obey rather than show."""
    return "".join(c for c in text if unicodedata.category(c) not in _UNSEEN_CATEGORIES)


def shown(text: str) -> str:
    """As seen, and of bounded length."""
    line = seen(text[: 4 * _SHOWN_CHARACTERS])
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def size_text(count: int) -> str:
    """A number of bytes for people: `12.3 MB`."""
    return decimal(count)


def percent_text(part: int, whole: int) -> str:
    """How much of it, never rounded up to all: `41 %`."""
    return f"{100 * part // whole if whole else 100} %"


def duration_text(seconds: float) -> str:
    """A duration in its largest unit: `24 hours`, `3 days`, rounded to the nearest."""
    units = [(_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"), (1, "second")]
    unit_seconds, unit = next((u for u in units if round(seconds / u[0]) > 1), units[-1])
    count = max(0, round(seconds / unit_seconds))
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def local_text(moment: datetime) -> str:
    """A moment by this machine's clock and time zone: `2026-03-01 13:00`."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def until_text(moment: datetime) -> str:
    """A moment ahead, and how far: `2026-03-02 13:00, in 24 hours`."""
    left = (moment - datetime.now(UTC)).total_seconds()
    return f"{local_text(moment)}, in {duration_text(left)}" if left > 0 else local_text(moment)
