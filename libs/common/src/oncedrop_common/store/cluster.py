"""Many commands to a Redis Cluster: each node gets its share, and fails alone.

redis-py's own pipeline would not do: when one node is away it closes the connections to all, and
fails every command of the pipeline; and an error in the middle of it never makes it ask which node
has the slots now, so after a failover it would go on asking the dead one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TimeoutError,  # noqa: A004 - likewise
    TryAgainError,
)

Command: TypeAlias = tuple[str | bytes | int | float, ...]

_RETRIES = 2
_ELSEWHERE = (AskError, MovedError, TryAgainError)
_AWAY = (ClusterDownError, ConnectionError, SlotNotCoveredError, TimeoutError)
_SCRIPTS = ("EVAL", "EVALSHA")
_KEY_OF_SCRIPT = 3


def node_name(client: RedisCluster, command: Command) -> str:
    """Which node a command is for; empty: any, or not known yet."""
    node = _node(client, command)
    return node.name if node is not None else ""


def _node(client: RedisCluster, command: Command) -> ClusterNode | None:
    at = _KEY_OF_SCRIPT if command[0] in _SCRIPTS else 1
    if len(command) <= at or client.get_default_node() is None:
        return None
    try:
        node: ClusterNode | None = client.get_node_from_key(command[at])  # type: ignore[arg-type]
    except SlotNotCoveredError:
        return None
    return node


async def exchange(client: RedisCluster, commands: Sequence[Command]) -> list[Any]:
    """The replies to these commands; what a node refused, or could not be asked, is an error there.

    Nodes are asked at the same time. A node that is away is asked again where its slots are then.

    Raises:
        RedisError: No node could be reached.
    """
    try:
        await client.initialize()
        replies = await _ask(client, commands, range(len(commands)), [None] * len(commands))
        for _ in range(_RETRIES):
            away = [at for at, reply in enumerate(replies) if isinstance(reply, _AWAY)]
            if not away:
                break
            # The one that failed last: the others tell whether another took its place.
            await client.nodes_manager.initialize(
                last_failed_node_name=node_name(client, commands[away[0]]) or None
            )
            replies = await _ask(client, commands, away, replies)
    except RedisClusterException as exc:
        raise RedisError("the cluster cannot be used") from exc
    return replies


async def _ask(
    client: RedisCluster, commands: Sequence[Command], which: Iterable[int], replies: list[Any]
) -> list[Any]:
    """These replies, and the new ones to which of the commands."""
    shares: dict[str, list[int]] = {}
    nodes: dict[str, ClusterNode] = {}
    for at in which:
        node = _node(client, commands[at]) or client.get_default_node()
        if node is None:
            raise RedisClusterException("no node is known")
        nodes[node.name] = node
        shares.setdefault(node.name, []).append(at)
    answers = await asyncio.gather(
        *(_ask_node(client, nodes[name], [commands[at] for at in share])
          for name, share in shares.items())
    )  # fmt: skip
    replies = list(replies)
    for share, answered in zip(shares.values(), answers, strict=True):
        for at, reply in zip(share, answered, strict=True):
            replies[at] = reply
    return replies


async def _ask_node(
    client: RedisCluster, node: ClusterNode, commands: Sequence[Command]
) -> list[Any]:
    line = [PipelineCommand(at, *command) for at, command in enumerate(commands)]
    try:
        await node.execute_pipeline(line)
    except _AWAY as exc:
        return [exc] * len(commands)
    return [
        await _follow(client, command, sent.result)
        for command, sent in zip(commands, line, strict=True)
    ]


async def _follow(client: RedisCluster, command: Command, reply: Any) -> Any:
    """The reply of the node that has the slot, when this one says that another has it."""
    if not isinstance(reply, _ELSEWHERE):
        return reply
    try:
        return await client.execute_command(*command)
    except RedisError as exc:
        return exc
