"""Whether a process lives, and whether it can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from oncedrop_common.errors import OncedropError
from oncedrop_common.metrics import Metrics

Check = Callable[[], Awaitable[None]]
"""Returns when all is well, raises an OncedropError that says what is not."""

_OK = "ok"
_CHECK_SECONDS = 3.0


def observability_routes(
    metrics: Metrics, checks: Mapping[str, Check], *, check_seconds: float = _CHECK_SECONDS
) -> list[BaseRoute]:
    """`/healthz`, `/readyz` and `/metrics`; none of them belongs on a public address.

    Args:
        metrics: What `/metrics` shows.
        checks: What must be well for `/readyz` to answer 200, by name.
        check_seconds: How long one check may take before it counts as failed.
    """
    readiness = Readiness(checks, check_seconds)
    return [
        Route("/healthz", _healthz),
        Route("/readyz", readiness.endpoint),
        Route("/metrics", metrics.endpoint),
    ]


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"alive": True})


class Readiness:
    """Runs all checks side by side and says how each went."""

    def __init__(self, checks: Mapping[str, Check], check_seconds: float) -> None:
        self._checks = dict(checks)
        self._seconds = check_seconds
        self._running: dict[str, asyncio.Task[str]] = {}

    async def outcomes(self) -> dict[str, str]:
        """What each check found: `ok`, or a sentence that says what is wrong."""
        tasks = {name: self._task(name) for name in self._checks}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=self._seconds)
        late = f"No answer within {self._seconds:g} seconds."
        return {name: task.result() if task.done() else late for name, task in tasks.items()}

    def _task(self, name: str) -> asyncio.Task[str]:
        # A check that hangs in a thread, on a dead network volume say, is not started again:
        # every probe would cost a thread until none is left for the real work.
        task = self._running.get(name)
        if task is None or task.done():
            task = asyncio.create_task(_outcome(self._checks[name]), name=f"check {name}")
            self._running[name] = task
        return task

    async def endpoint(self, _request: Request) -> Response:
        """200 if every check is well, else 503; the body names each."""
        outcomes = await self.outcomes()
        ready = all(outcome == _OK for outcome in outcomes.values())
        return JSONResponse({"ready": ready, "checks": outcomes}, 200 if ready else 503)


async def _outcome(check: Check) -> str:
    try:
        await check()
    except OncedropError as exc:
        return exc.detail
    return _OK
