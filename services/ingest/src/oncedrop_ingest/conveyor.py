"""Work on the blocks of one upload, in order, in a thread, while the next ones are received.

The thread stays as long as there is more: a trip there and back takes about as long as hashing a
block does, and would be waited for at every one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

# Then whoever else waits for a thread gets this one.
_MOST_PER_TRIP = 8


class Conveyor(Generic[ItemT]):
    """Takes items and works on one after the other; for one task at a time.

    Args:
        work: Runs in a thread; what it raises, `put` or `join` raises, and the rest is dropped.
        most: How many items there may be, the one that is being worked on included.
    """

    def __init__(self, work: Callable[[ItemT], None], most: int) -> None:
        self._work = work
        self._most = most
        self._items: deque[ItemT] = deque()
        self._unfinished = 0
        self._trip: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()

    async def put(self, item: ItemT) -> None:
        """Put an item on, once there is room for it.

        Raises:
            Exception: What the work on an earlier one raised.
        """
        while self._unfinished >= self._most:
            await self._change()
        self._check()
        self._items.append(item)
        self._unfinished += 1
        if self._trip is None:
            self._set_out()

    async def join(self) -> None:
        """Wait until all is done; raises as put."""
        while self._trip is not None:
            await self._change()
        self._check()

    async def stop(self) -> None:
        """Drop what is not being worked on, and wait for what is; raises nothing.

        Nothing may be put on it afterwards.
        """
        self._items.clear()
        while self._trip is not None:
            await self._change()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _set_out(self) -> None:
        loop = asyncio.get_running_loop()
        self._trip = loop.run_in_executor(None, self._run, loop)
        self._trip.add_done_callback(self._came_back)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(_MOST_PER_TRIP):
            try:
                item = self._items.popleft()
            except IndexError:
                return
            self._work(item)
            loop.call_soon_threadsafe(self._finished_one)

    def _finished_one(self) -> None:
        self._unfinished -= 1
        self._changed.set()

    def _came_back(self, trip: asyncio.Future[None]) -> None:
        self._trip = None
        self._failure = self._failure or trip.exception()
        if self._failure is not None:
            self._items.clear()
            self._unfinished = 0
        elif self._items:
            self._set_out()
        self._changed.set()
