"""A way to Redis on which replies get lost after the command was executed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self


class RedisProxy:
    """Passes TCP on to a server's socket.

    Args:
        target: The server's unix socket.

    Attributes:
        port: Where it listens, on loopback.
        lost: Replies that were lost so far.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._to_lose = 0
        self.lost = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """For services."""
        return f"redis://127.0.0.1:{self.port}/0"

    def lose(self, replies: int) -> None:
        """Let the next replies be lost: executed, not told, the connection reset."""
        self._to_lose += replies

    def cut(self) -> None:
        """Reset every connection, whatever is on its way."""
        self._to_lose = 0
        for writer in list(self._open):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back: asyncio.StreamWriter | None = None
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                replies, back = await asyncio.open_unix_connection(self._target)
                self._open.add(back)
                up = asyncio.create_task(self._pass_on(reader, back))
                try:
                    await self._pass_on(replies, writer, answers=True)
                finally:
                    up.cancel()
                    await asyncio.gather(up, return_exceptions=True)
        finally:
            for side in (writer, back):
                if side is not None:
                    self._open.discard(side)
                    side.transport.abort()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65_536):
                if answers and self._to_lose > 0:
                    self._to_lose -= 1
                    self.lost += 1
                    return
                sink.write(chunk)
                await sink.drain()
        # One side's end is the other's.
        sink.transport.abort()
