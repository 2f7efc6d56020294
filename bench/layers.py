"""The layers below oncedrop, each answering 1 KiB from memory: what no program on them can beat."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_BODY = b"x" * 1024


async def bare(scope: Scope, _receive: Receive, send: Send) -> None:
    """An ASGI program of two messages."""
    if scope["type"] == "http":
        headers = [(b"content-length", b"%d" % len(_BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})


async def _get(_request: Request) -> Response:
    return Response(_BODY)


starlette = Starlette(routes=[Route("/{name}", _get)])
