"""One fsync for all who need it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SharedSync:
    """Runs a blocking sync in a thread; callers that come while one runs share the next."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when a sync that began after this call has ended.

        Raises:
            Exception: Whatever the sync raised, for each of its callers.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._sync)
