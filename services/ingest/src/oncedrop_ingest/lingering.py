"""Closing in peace on a client that still sends.

An answer given while a body is unread ends the connection. If it were closed at once, the bytes
still under way would make the kernel reset it, and a reset can reach the client before the answer
has been read. So the answer goes out whole, and what comes after it is discarded for a moment
(RFC 9112 section 9.6).
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FIRST_ERROR = 400
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 32 * 1024 * 1024


class LingeringClose:
    """Discards the rest of a refused body after its answer; the outermost layer.

    Args:
        app: What answers.
        seconds: How long at most.
        most_bytes: How much at most.
    """

    def __init__(
        self, app: ASGIApp, seconds: float = _LINGER_SECONDS, most_bytes: int = _LINGER_BYTES
    ) -> None:
        self.app = app
        self.seconds = seconds
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the last message of an early refusal waits for the client."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        unread = b"content-length" in names or b"transfer-encoding" in names
        refused = False

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] >= _FIRST_ERROR
            elif refused and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, watched_receive, lingering_send)

    async def _discard(self, receive: Receive) -> None:
        left = self.most_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                while left > 0:
                    message = await receive()
                    if not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
