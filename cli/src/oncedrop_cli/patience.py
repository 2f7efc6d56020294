"""Trying again, ever more slowly, as long as it may still help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from oncedrop_cli.display import Display
from oncedrop_cli.failures import Unavailable
from oncedrop_cli.texts import duration_text

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

Result = TypeVar("Result")


def patiently(
    once: Callable[[], Result],
    seconds: float,
    display: Display,
    *,
    progress: Callable[[], int] = lambda: 0,
) -> Result:
    """The result of once(), called again while it raises Unavailable.

    Pauses double, with some chance in them so that many clients don't come at the same time, and
    are no shorter than the server asks for (Retry-After). Progress starts both clocks anew.

    Args:
        once: Safe to repeat.
        seconds: Without progress for so long, its failure is final.
        display: Says what went wrong each time.
        progress: Grows as it gets further.

    Raises:
        Unavailable: Of the last try.
    """
    since, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        before = progress()
        try:
            return once()
        except Unavailable as exc:
            now = time.monotonic()
            if progress() > before:
                since, pause = now, _FIRST_PAUSE_SECONDS
            wait = max(pause * random.uniform(0.5, 1), exc.retry_after_seconds or 0)  # noqa: S311
            if now + wait - since > seconds:
                raise
            display.note(f"{exc} Trying again in {duration_text(max(1, wait))}.")
        time.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
