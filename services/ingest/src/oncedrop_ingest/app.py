"""Composition root of ingest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from oncedrop_common.health import observability_routes
from oncedrop_common.metrics import Metrics
from oncedrop_common.middleware import install
from oncedrop_common.openapi import openapi_routes
from oncedrop_common.pages import Pages, static_routes
from oncedrop_common.pairing import Pairing
from oncedrop_common.passwords import Passwords
from oncedrop_common.problems import Problems
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_ingest.intake import Intake
from oncedrop_ingest.lingering import LingeringClose
from oncedrop_ingest.live import Newsroom
from oncedrop_ingest.pages import IngestPages
from oncedrop_ingest.receipt import Receipts
from oncedrop_ingest.upload import Tools
from oncedrop_ingest.uploads import Uploads

_NO_NAMES = "(?:o|d|c|static)/"


class _PutRoute(Route):
    """A path that exists for PUT only: to other methods it is not there, rather than not allowed.

    Every path is the name of a file that could be put; that makes none of them a page. A link's
    path is no name: whoever puts there by mistake would have its secret stored as one.
    """

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint, methods=["PUT"])
        # A name may hold a line break; clean_name takes it out.
        pattern = self.path_regex.pattern.replace("^/", f"^/(?!{_NO_NAMES})", 1)
        self.path_regex = re.compile(pattern, re.DOTALL)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Route's, without a partial match."""
        match, child = super().matches(scope)
        return (match, child) if match is Match.FULL else (Match.NONE, {})


async def _robots(_request: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


def create_app(settings: Settings, store: DropStore, volume: Volume) -> Starlette:
    """The application; connects to nothing until its lifespan starts."""
    metrics = Metrics("ingest")
    templates = Pages(["oncedrop_ingest"])
    pages = IngestPages(templates, settings)
    pairing = Pairing(store, volume, ephemeral=settings.ephemeral_volume)
    tools = Tools(settings, store, volume, metrics, Passwords())
    intake = Intake(settings, pairing, Uploads(tools), pages)
    newsroom = Newsroom(store)
    receipts = Receipts(store, volume, pairing, pages, metrics, newsroom)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with pairing.watched():
            yield
        await newsroom.close()
        await store.close()

    app = Starlette(
        routes=[
            Route("/", pages.form),
            Route("/upload", intake.post, methods=["POST"]),
            Route("/o/{receipt}", receipts.show),
            Route("/o/{receipt}/events", receipts.follow, methods=["GET"]),
            Route("/o/{receipt}", receipts.delete, methods=["DELETE", "POST"]),
            Route("/robots.txt", _robots),
            *observability_routes(metrics, {"store": store.ping, "volume": pairing.ready}),
            *static_routes(),
            *openapi_routes(),
            _PutRoute("/{name:path}", intake.put),
        ],
        lifespan=lifespan,
    )
    install(app, metrics, Problems(templates))
    app.add_middleware(LingeringClose)
    return app
