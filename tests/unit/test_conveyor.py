"""Blocks are worked on in order beside the loop, never too many, and a failure is not lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oncedrop_ingest.conveyor import Conveyor


class Work:
    """What a thread does: notes each item, when it is let."""

    def __init__(self, *, open_gate: bool = True, bad: int | None = None) -> None:
        self.done: list[int] = []
        self.gate = threading.Semaphore(1_000_000 if open_gate else 0)
        self.began = threading.Event()
        self._bad = bad

    def __call__(self, item: int) -> None:
        """Work on one."""
        self.began.set()
        if not self.gate.acquire(timeout=10):
            raise TimeoutError
        if item == self._bad:
            raise OSError(f"item {item}")
        self.done.append(item)


async def put_all(conveyor: Conveyor[int], count: int) -> None:
    for item in range(count):
        await conveyor.put(item)


async def test_all_are_worked_on_in_order_also_over_several_trips() -> None:
    work = Work()
    conveyor = Conveyor(work, 3)

    await put_all(conveyor, 100)
    await conveyor.join()
    assert work.done == list(range(100))

    # And once more, after it had run empty.
    await conveyor.put(100)
    await conveyor.join()
    assert work.done[-1] == 100


async def test_no_more_lie_on_it_than_may() -> None:
    work = Work(open_gate=False)
    conveyor = Conveyor(work, 2)
    await put_all(conveyor, 2)

    third = asyncio.create_task(conveyor.put(2))
    await asyncio.sleep(0.05)
    assert not third.done()

    work.gate.release()
    await asyncio.wait_for(third, 10)
    joined = asyncio.create_task(conveyor.join())
    await asyncio.sleep(0.05)
    assert not joined.done()
    work.gate.release(2)
    await asyncio.wait_for(joined, 10)
    assert work.done == [0, 1, 2]


@pytest.mark.parametrize("bad", [0, 1, 20])
async def test_a_failure_reaches_whoever_comes_next_and_nothing_is_done_after_it(bad: int) -> None:
    work = Work(bad=bad)
    conveyor = Conveyor(work, 2)

    with pytest.raises(OSError, match=f"item {bad}"):
        await put_all(conveyor, 50)
    assert work.done == list(range(bad))
    # It stays so: what follows would leave a hole.
    with pytest.raises(OSError, match=f"item {bad}"):
        await conveyor.put(99)
    with pytest.raises(OSError, match=f"item {bad}"):
        await conveyor.join()
    assert work.done == list(range(bad))


async def test_a_failure_of_the_last_one_is_told_at_the_end() -> None:
    conveyor = Conveyor(Work(bad=0), 2)
    await conveyor.put(0)

    with pytest.raises(OSError, match="item 0"):
        await conveyor.join()


async def test_stopping_waits_for_the_thread_and_drops_what_it_has_not_begun() -> None:
    work = Work(open_gate=False)
    conveyor = Conveyor(work, 3)
    await put_all(conveyor, 3)
    await asyncio.to_thread(work.began.wait, 10)

    stopping = asyncio.create_task(conveyor.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()

    work.gate.release(3)
    await asyncio.wait_for(stopping, 10)
    assert work.done == [0]


async def test_stopping_after_a_failure_is_quiet() -> None:
    conveyor = Conveyor(Work(bad=0), 2)
    await conveyor.put(0)

    await conveyor.stop()
