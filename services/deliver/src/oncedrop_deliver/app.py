"""Composition root of deliver."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oncedrop_common.errors import (
    OncedropError,
    PasswordNeeded,
    PasswordWrong,
    RateLimited,
    RequestError,
)
from oncedrop_common.health import observability_routes
from oncedrop_common.metrics import Metrics
from oncedrop_common.middleware import install
from oncedrop_common.openapi import openapi_routes
from oncedrop_common.pages import Pages, static_routes
from oncedrop_common.pairing import Pairing
from oncedrop_common.passwords import Passwords
from oncedrop_common.problems import PageMaker, Problems
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_deliver.claiming import Claiming
from oncedrop_deliver.delivery import Delivery
from oncedrop_deliver.guarding import PasswordGuard
from oncedrop_deliver.landing import Landing
from oncedrop_deliver.links import Links


def create_app(settings: Settings, store: DropStore, volume: Volume) -> Starlette:
    """The application; connects to nothing until its lifespan starts."""
    metrics = Metrics("deliver")
    pages = Pages(["oncedrop_deliver"])
    pairing = Pairing(store, volume, ephemeral=settings.ephemeral_volume)
    claiming = Claiming(store, volume, pairing, metrics)
    delivery = Delivery(store, volume, claiming, metrics)
    landing = Landing(pages, settings.claim_lease_seconds)
    links = Links(
        store=store,
        claiming=claiming,
        delivery=delivery,
        guard=PasswordGuard(store, volume, claiming, Passwords(), metrics),
        pairing=pairing,
        landing=landing,
        metrics=metrics,
        secure=(settings.public_url or "").startswith("https:"),
    )

    async def password_page(request: Request, exc: RequestError, status: int) -> Response:
        """The landing page again, with what was wrong."""
        if exc.drop_id is None:
            raise exc
        drop, meta = await claiming.look(exc.drop_id)
        return landing.page(request, drop, meta, status, exc)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with pairing.watched():
            yield
        await delivery.close()
        await store.close()

    app = Starlette(
        routes=[
            # Starlette adds HEAD to GET by itself; here both are named because they differ.
            Route("/d/{token}", links.link, methods=["GET", "HEAD", "POST"]),
            Route("/c/{claim}", links.claim, methods=["GET", "HEAD"]),
            Route("/c/{claim}/{name:path}", links.claim, methods=["GET", "HEAD"]),
            *observability_routes(metrics, {"store": store.ping, "volume": pairing.ready}),
            *static_routes(),
            *openapi_routes(),
        ],
        lifespan=lifespan,
    )
    overrides: dict[type[OncedropError], PageMaker] = {
        PasswordNeeded: password_page,
        PasswordWrong: password_page,
        RateLimited: password_page,
    }
    install(app, metrics, Problems(pages, overrides))
    return app
