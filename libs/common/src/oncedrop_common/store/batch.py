"""Commands of one loop turn travel to Redis as one pipeline.

Most of a command's cost is redis-py's, per round trip; sharing one makes it small. Replies come
back each to its own caller. A pipeline whose reply was lost is repeated as a whole, which is safe
because every script is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from oncedrop_common.store.client import RedisClient

Command = tuple[str | bytes | int | float, ...]
_MOST = 256


class Batch:
    """Collects commands until the loop turns, then sends them.

    Args:
        client: What they are sent by.
        timeout_seconds: How long one pipeline may take, all tries and look-ups included.
    """

    def __init__(self, client: RedisClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._waiting: list[tuple[Command, asyncio.Future[Any] | None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def call(self, *command: str | bytes | float) -> Any:
        """Redis' reply to this command.

        Raises:
            RedisError: The server refused it or could not be reached.
            TimeoutError: It did not answer in time.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(command, future)
        return await future

    def cast(self, *command: str | bytes | float) -> None:
        """Send this command when there is time; whether it arrives is not known."""
        self._add(command, None)

    async def drain(self) -> None:
        """Wait until all that was cast or called is sent and answered."""
        while self._waiting or self._sending:
            await asyncio.sleep(0)
            if self._sending:
                await asyncio.wait(self._sending)

    def _add(self, command: Command, future: asyncio.Future[Any] | None) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((command, future))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _MOST):
            task = asyncio.create_task(self._run(waiting[first : first + _MOST]))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _run(self, waiting: list[tuple[Command, asyncio.Future[Any] | None]]) -> None:
        replies: list[Any]
        try:
            pipeline = self._client.pipeline(transaction=False)
            for command, _ in waiting:
                pipeline.execute_command(*command)
            async with asyncio.timeout(self._timeout_seconds):
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as exc:  # noqa: BLE001  every caller waits for its own answer
            replies = [exc] * len(waiting)
        for (_, future), reply in zip(waiting, replies, strict=True):
            if future is None or future.done():
                continue
            if isinstance(reply, BaseException):
                future.set_exception(reply)
            else:
                future.set_result(reply)
