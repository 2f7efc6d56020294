"""Receipts that change by themselves: server-sent events, from the stream all services write to.

One reader in each process, however many pages are open, and none while no page is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import structlog

from oncedrop_common.drops import DropId
from oncedrop_common.errors import RateLimited, StoreUnavailable
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.events import FROM_THE_BEGINNING, Event

LISTENERS_MOST = 256
LISTENERS_PER_DROP = 8
_WAIT_MS = 1000
_AGAIN_SECONDS = 1.0
_FULL_RETRY_SECONDS = 60

log = structlog.get_logger()


class Listener:
    """What one open page has yet to see.

    Attributes:
        events: What happened since it began to listen.
    """

    def __init__(self, drop_id: DropId) -> None:
        self.drop_id = drop_id
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def tell(self, event: Event | None) -> None:
        """Wake it; None: something may have been missed."""
        if event is not None:
            self.events.append(event)
        self._news.set()

    async def news(self, seconds: float) -> bool:
        """Whether something happened within this time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        happened = self._news.is_set()
        self._news.clear()
        return happened


class Newsroom:
    """Tells listeners what happens to their drops.

    Args:
        store: Whose stream is read.
        most: How many pages may be open at a time.
    """

    def __init__(self, store: DropStore, most: int = LISTENERS_MOST) -> None:
        self._store = store
        self._most = most
        self._listeners: set[Listener] = set()
        self._reader: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self, drop_id: DropId) -> AsyncIterator[Listener]:
        """A listener for the length of the block.

        Raises:
            RateLimited: Too many pages are open, or too many of this drop.
        """
        drops = Counter(listener.drop_id for listener in self._listeners)
        if len(self._listeners) >= self._most or drops[drop_id] >= LISTENERS_PER_DROP:
            raise RateLimited(
                "Too many live pages are open.", retry_after_seconds=_FULL_RETRY_SECONDS
            )
        listener = Listener(drop_id)
        self._listeners.add(listener)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="read events")
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        """Wait for the reader, which ends when nobody listens any more."""
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=2 * _WAIT_MS / 1000)

    async def _read(self) -> None:
        """Read until nobody listens: at most for one more wait."""
        place: str | None = None
        while self._listeners:
            try:
                if place is None:
                    newest = await self._store.last_events(1)
                    place = newest[0].entry_id if newest else FROM_THE_BEGINNING
                    # Whoever came before there was a place to go on from looks once more.
                    for listener in self._listeners:
                        listener.tell(None)
                for event in await self._store.events_after(place, _WAIT_MS):
                    place = event.entry_id
                    for listener in self._listeners:
                        if listener.drop_id == event.drop_id:
                            listener.tell(event)
            except StoreUnavailable as exc:
                log.debug("events_not_read", detail=exc.detail)
                await asyncio.sleep(_AGAIN_SECONDS)
        self._reader = None
