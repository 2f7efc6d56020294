"""Composition root of janitor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.routing import Route

from oncedrop_common.errors import AdminUnauthorized
from oncedrop_common.health import observability_routes
from oncedrop_common.metrics import Metrics
from oncedrop_common.middleware import install
from oncedrop_common.openapi import openapi_routes
from oncedrop_common.pages import Pages, static_routes
from oncedrop_common.pairing import Pairing
from oncedrop_common.problems import Problems
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_janitor.leadership import Leadership
from oncedrop_janitor.operators import Operators
from oncedrop_janitor.passes import Passes
from oncedrop_janitor.schedule import Schedule
from oncedrop_janitor.sessions import Sessions
from oncedrop_janitor.status import Status


def create_app(settings: Settings, store: DropStore, volume: Volume) -> Starlette:
    """The application; connects to nothing until its lifespan starts."""
    metrics = Metrics("janitor")
    pages = Pages(["oncedrop_janitor"])
    pairing = Pairing(store, volume, ephemeral=settings.ephemeral_volume)
    passes = Passes(settings, store, volume, pairing, metrics)
    leadership = Leadership(store, locked=settings.leader_lock)
    schedule = Schedule(settings, passes, leadership)
    secure = (settings.public_url or "").startswith("https:")
    sessions = Sessions(settings.admin_token, secure=secure)
    status = Status(settings, store, volume, pairing, passes, schedule, leadership, sessions, pages)
    operators = Operators(sessions, store, volume, pairing, passes, metrics)
    checks = {"store": store.ping, "volume": pairing.ready, "guard": passes.require_unguarded}

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with pairing.watched(), schedule.running():
            yield
        await store.close()

    app = Starlette(
        routes=[
            Route("/", status.endpoint),
            Route("/status", status.endpoint),
            Route("/login", operators.login, methods=["POST"]),
            Route("/logout", operators.logout, methods=["POST"]),
            Route("/sweep", operators.sweep, methods=["POST"]),
            Route("/drops", operators.drops),
            Route("/drops/{drop_id}", operators.delete, methods=["DELETE"]),
            *observability_routes(metrics, checks),
            *static_routes(),
            *openapi_routes(),
        ],
        lifespan=lifespan,
    )
    install(app, metrics, Problems(pages, {AdminUnauthorized: status.refused}))
    return app
