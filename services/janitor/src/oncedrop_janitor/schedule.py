"""When the passes run; the only module that knows the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import (  # type: ignore[import-untyped]
    AsyncIOScheduler,
)
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]

from oncedrop_common.settings import Settings
from oncedrop_janitor.leadership import RENEW_SECONDS, Leadership
from oncedrop_janitor.passes import DUE, SWEEP, Passes

_LEAD = "lead"
# So that janitors started together do not work together.
_JITTER_SHARE = 0.1
# A sweep that could not run to its end, because Redis or the volume was away, comes again soon.
_RETRY_SECONDS = 10


class Schedule:
    """Runs the sweep at once and then at its interval, the due pass at its own.

    A run that is late runs once, however many it missed, and never beside itself.
    """

    def __init__(self, settings: Settings, passes: Passes, leadership: Leadership) -> None:
        self._settings = settings
        self._passes = passes
        self._leadership = leadership
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._running: set[asyncio.Task[None]] = set()
        self._first_sweep = True

    def next_runs(self) -> dict[str, datetime | None]:
        """When each pass runs next; None while it runs, or when the schedule stands still."""
        jobs = {name: self._scheduler.get_job(name) for name in (SWEEP, DUE)}
        return {name: getattr(job, "next_run_time", None) for name, job in jobs.items()}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep to the schedule while the block runs; what runs at its end is cancelled."""
        await self._leadership.renew()
        settings = self._settings
        self._add(_LEAD, self._renew, RENEW_SECONDS)
        self._add(DUE, self._due, settings.due_interval_seconds)
        self._add(SWEEP, self._sweep, settings.sweep_interval_seconds, at_once=True)
        self._scheduler.start()
        try:
            yield
        finally:
            self._scheduler.shutdown(wait=False)
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _add(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
        seconds: int,
        *,
        at_once: bool = False,
    ) -> None:
        async def tracked() -> None:
            # The scheduler cancels what runs when it stops, but nobody waits for its end.
            task = asyncio.create_task(work())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await task

        trigger = IntervalTrigger(seconds=seconds, jitter=seconds * _JITTER_SHARE, timezone=UTC)
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(tracked, trigger, id=name, **first)

    async def _renew(self) -> None:
        await self._leadership.renew()

    async def _due(self) -> None:
        if self._leadership.leading:
            await self._passes.due()

    async def _sweep(self) -> None:
        # The first heals what happened while nobody was here; the lock may still be held by a
        # janitor that died with the rest.
        if not self._leadership.leading and not self._first_sweep:
            return
        report = await self._passes.sweep()
        self._first_sweep = report.failure is not None
        if report.failure is not None:
            soon = datetime.now(UTC) + timedelta(
                seconds=min(_RETRY_SECONDS, self._settings.sweep_interval_seconds)
            )
            self._scheduler.modify_job(SWEEP, next_run_time=soon)
