"""Commands of one loop turn travel to Redis as one pipeline.

Most of a command's cost is redis-py's, per round trip; sharing one makes it small. Replies come
back each to its own caller. A pipeline whose reply was lost is repeated as a whole, which is safe
because every script is. (Sums may then be counted twice: a guide, mended by each sweep.)

In a cluster each node has its share of them (cluster.py). On a single server the pipeline is
written to redis-py's connection itself: its Pipeline object, which also does transactions, watches
and callbacks, costs as much again as all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from oncedrop_common.store import cluster
from oncedrop_common.store.client import RedisClient
from oncedrop_common.store.cluster import Command

Waiting: TypeAlias = tuple[Command, asyncio.Future[Any] | None]
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
        self._waiting: list[Waiting] = []
        self._sums: dict[tuple[str, str], int] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def call(self, *command: str | bytes | float) -> Any:
        """Redis' reply to this command, as the server sends it.

        Raises:
            RedisError: The server refused it or could not be reached.
            TimeoutError: It did not answer in time.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send_soon()
        self._waiting.append((command, future))
        return await future

    def cast(self, *command: str | bytes | float) -> None:
        """Send this command when there is time; whether it arrives is not known."""
        self._send_soon()
        self._waiting.append((command, None))

    def add(self, key: str, field: str, number: int) -> None:
        """As cast of HINCRBY; what is added to one field in one loop turn is added at once."""
        self._send_soon()
        self._sums[key, field] = self._sums.get((key, field), 0) + number

    async def drain(self) -> None:
        """Wait until all that was cast or called is sent and answered."""
        while self._waiting or self._sums or self._sending:
            await asyncio.sleep(0)
            if self._sending:
                await asyncio.wait(self._sending)

    def _send_soon(self) -> None:
        if not self._waiting and not self._sums:
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        sums, self._sums = self._sums, {}
        waiting += [(("HINCRBY", *where, number), None) for where, number in sums.items()]
        for share in self._shares(waiting):
            for first in range(0, len(share), _MOST):
                task = asyncio.create_task(self._run(share[first : first + _MOST]))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    def _shares(self, waiting: list[Waiting]) -> Iterable[list[Waiting]]:
        """All at once; in a cluster a share for each node, so that none waits for a slow one."""
        if not isinstance(self._client, RedisCluster):
            return [waiting]
        shares: dict[str, list[Waiting]] = {}
        for command, future in waiting:
            name = cluster.node_name(self._client, command)
            shares.setdefault(name, []).append((command, future))
        return shares.values()

    async def _run(self, waiting: list[Waiting]) -> None:
        replies: list[Any]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies = await exchange(self._client, [command for command, _ in waiting])
        except Exception as exc:  # noqa: BLE001  every caller waits for its own answer
            replies = [exc] * len(waiting)
        for (_, future), reply in zip(waiting, replies, strict=True):
            if future is None or future.done():
                continue
            if isinstance(reply, BaseException):
                future.set_exception(reply)
            else:
                future.set_result(reply)


async def exchange(client: RedisClient, commands: Sequence[Command]) -> list[Any]:
    """The server's replies to these commands in one round trip; what it refused is a ResponseError.

    In a cluster a node that could not be asked fails its own commands only: their replies are the
    error.

    Raises:
        RedisError: It could not be reached.
    """
    if isinstance(client, RedisCluster):
        return await cluster.exchange(client, commands)
    return await _exchange_directly(client, commands)


async def _exchange_directly(client: Redis, commands: Sequence[Command]) -> list[Any]:
    pool = client.connection_pool
    connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
    # Its stub knows tuples of one item only.
    packed = [b"".join([pack_command(c) for c in commands])]  # type: ignore[arg-type]

    async def once() -> list[Any]:
        await connection.send_packed_command(packed)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as exc:  # the others are read all the same
                replies.append(exc)
        return replies

    async def failed(_error: Exception) -> None:
        await connection.disconnect()

    try:
        return await connection.retry.call_with_retry(once, failed)
    finally:
        await pool.release(connection)
