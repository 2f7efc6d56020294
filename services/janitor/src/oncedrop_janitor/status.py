"""How things are, for operators: `/status`, as JSON or as a page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oncedrop_common.accept import Accept
from oncedrop_common.errors import AdminUnauthorized, DependencyError, StoreUnavailable
from oncedrop_common.pages import Pages
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.events import Event
from oncedrop_common.times import iso_utc
from oncedrop_common.volume import Volume
from oncedrop_janitor.leadership import Leadership
from oncedrop_janitor.passes import DUE, SWEEP, Passes
from oncedrop_janitor.plot import Curve, curve
from oncedrop_janitor.report import Report, standing_objection
from oncedrop_janitor.schedule import Schedule
from oncedrop_janitor.sessions import Sessions

_EVENTS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Insight:
    """What the page shows to who has logged in.

    Attributes:
        events: The newest first.
        since_ms: Where the curves begin.
        drops, stored: How many drops, and how many bytes, over time.
    """

    events: list[Event]
    since_ms: int
    drops: Curve
    stored: Curve


class Status:
    """Gathers what `/status` shows; answers 200 also while Redis or the volume is away."""

    def __init__(
        self,
        settings: Settings,
        store: DropStore,
        volume: Volume,
        pairing: Pairing,
        passes: Passes,
        schedule: Schedule,
        leadership: Leadership,
        sessions: Sessions,
        pages: Pages,
    ) -> None:
        self._settings = settings
        self._store = store
        self._volume = volume
        self._pairing = pairing
        self._passes = passes
        self._schedule = schedule
        self._leadership = leadership
        self._sessions = sessions
        self._pages = pages

    async def endpoint(self, request: Request) -> Response:
        """`GET /status` and `GET /`."""
        if not Accept.of(request).prefers_page:
            return JSONResponse(await self.document())
        return await self._page(request, 200)

    async def refused(self, request: Request, exc: AdminUnauthorized, status: int) -> Response:
        """The page for who is not the operator, or gave another token: it asks again."""
        del exc  # the page has words of its own
        return await self._page(request, status)

    async def _page(self, request: Request, status: int) -> Response:
        refused = status == HTTPStatus.UNAUTHORIZED
        logged_in = not refused and self._sessions.logged_in(request)
        return self._pages.render(
            request,
            "status.html",
            status,
            status=await self.document(),
            quota=int(self._settings.max_stored_bytes),
            can_log_in=self._settings.admin_token is not None,
            refused=refused,
            insight=await self._insight() if logged_in else None,
        )

    async def _insight(self) -> Insight:
        """What is for the operator alone; as much of it as there is while Redis is away."""
        try:
            events, samples = await asyncio.gather(
                self._store.last_events(_EVENTS_SHOWN), self._store.samples()
            )
        except StoreUnavailable:
            events, samples = [], []
        times = [sample.at_ms for sample in samples]
        return Insight(
            events,
            since_ms=times[0] if times else 0,
            drops=curve(times, [sample.drops for sample in samples]),
            stored=curve(times, [sample.size for sample in samples]),
        )

    async def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        sweep, due, (usage, warnings) = await asyncio.gather(
            self._passes.last(SWEEP), self._passes.last(DUE), self._dependencies()
        )
        told = (self._problem(), standing_objection(sweep), standing_objection(due))
        reasons = [text for text in told if text]
        next_runs = self._schedule.next_runs()
        if self._settings.admin_token is None:
            warnings.append("No admin token is set: operators' calls are refused.")
        return {
            "leading": self._leadership.leading,
            "paired": self._pairing.problem is None,
            "guard": {"active": bool(reasons), "reasons": list(dict.fromkeys(reasons))},
            "usage": usage,
            "warnings": warnings,
            "passes": {
                name: {
                    # A janitor of another version may have kept fewer numbers.
                    "last": {**Report(name, 0).document(), **last} if last else None,
                    "next_run": _iso(next_runs[name]),
                }
                for name, last in ((SWEEP, sweep), (DUE, due))
            },
        }

    def _problem(self) -> str | None:
        problem = self._pairing.problem
        return problem.detail if problem is not None else None

    async def _dependencies(self) -> tuple[dict[str, int | None], list[str]]:
        warnings: list[str] = []
        stored: int | None = None
        files: int | None = None
        free: int | None = None
        try:
            stored, files = await self._store.usage()
            warnings += await self._store.server_warnings()
        except DependencyError as exc:
            warnings.append(exc.detail)
        try:
            free = await asyncio.to_thread(self._volume.free_bytes)
        except DependencyError as exc:
            warnings.append(exc.detail)
        return {"stored_bytes": stored, "files": files, "free_bytes": free}, warnings


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(round(moment.timestamp() * 1000))
