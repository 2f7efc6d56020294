"""Bounded waits: a test that would hang says instead what it waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP_SECONDS = 0.01


def wait_until(predicate: Callable[[], object], timeout_seconds: float, *, what: str) -> None:
    """Return once predicate() is true.

    Raises:
        AssertionError: It was not within the time; names what was waited for.
    """
    deadline = time.monotonic() + timeout_seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds} s in vain for: {what}")
        time.sleep(_STEP_SECONDS)


async def wait_until_async(
    predicate: Callable[[], Awaitable[object]], timeout_seconds: float, *, what: str
) -> None:
    """As wait_until, for a predicate that is awaited; the loop runs on meanwhile.

    Raises:
        AssertionError: It was not within the time; names what was waited for.
    """
    deadline = time.monotonic() + timeout_seconds
    while not await predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds} s in vain for: {what}")
        await asyncio.sleep(_STEP_SECONDS)
