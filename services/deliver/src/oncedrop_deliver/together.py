"""Short blocking work of many requests, done together in one trip to a thread.

A trip to a thread and back costs more than a rename or an unlink does, and one fsync serves any
number of renames before it. Who comes while all lanes are taken goes with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# With more companions all requests march in step: the loop is idle while all are in the thread. On
# a slow volume the last of them would wait for too many.
_MOST = 16


class Together(Generic[ItemT, ResultT]):
    """Collects items until the loop turns and a lane is free, then works on all of them.

    Args:
        work: Runs in a thread; for each item its result, or what shall be raised for it.
        lanes: How many threads may work at a time.
    """

    def __init__(
        self, work: Callable[[Sequence[ItemT]], Sequence[ResultT | BaseException]], lanes: int
    ) -> None:
        self._work = work
        self._free = lanes
        self._waiting: list[tuple[ItemT, asyncio.Future[ResultT]]] = []

    def __call__(self, item: ItemT) -> asyncio.Future[ResultT]:
        """The item's result; the work is done also where nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == 1 and self._free:
            loop.call_soon(self._set_out, loop)
        return future

    def _set_out(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting or not self._free:
            return
        self._free -= 1
        together, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        loop.run_in_executor(None, self._run, loop, together)
        self._set_out(loop)

    def _run(
        self, loop: asyncio.AbstractEventLoop, together: list[tuple[ItemT, asyncio.Future[ResultT]]]
    ) -> None:
        results: Sequence[ResultT | BaseException]
        try:
            results = self._work([item for item, _ in together])
        except BaseException as exc:  # noqa: BLE001  it belongs to those who wait
            results = [exc] * len(together)
        loop.call_soon_threadsafe(self._come_back, loop, together, results)

    def _come_back(
        self,
        loop: asyncio.AbstractEventLoop,
        together: list[tuple[ItemT, asyncio.Future[ResultT]]],
        results: Sequence[ResultT | BaseException],
    ) -> None:
        self._free += 1
        for (_, future), result in zip(together, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._set_out(loop)
