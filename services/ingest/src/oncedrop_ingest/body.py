"""A request's body, as it comes: its announced length, its chunks, and its silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from oncedrop_common.errors import UploadIncomplete


def announced_length(request: Request) -> int | None:
    """The body's length by Content-Length (bytes); None when it comes in chunks.

    The server's parser has made sure that it is a number and stands alone.
    """
    text = request.headers.get("content-length")
    return int(text) if text is not None else None


async def chunks_of(request: Request, silent_seconds: float) -> AsyncIterator[bytes]:
    """The body, piece by piece; nothing more is read from the socket until a piece is taken.

    Args:
        request: Whose body.
        silent_seconds: How long the client may send nothing.

    Raises:
        ClientDisconnect: The client went away before the end.
        UploadIncomplete: It was silent for too long.
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(silent_seconds):
                message = await request.receive()
        except TimeoutError:
            raise UploadIncomplete(f"No byte came for {silent_seconds:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk
