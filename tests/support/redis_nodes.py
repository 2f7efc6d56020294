"""Several valkey-servers on loopback: a Cluster, or a primary with a replica and Sentinels."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import redis

from oncedrop_common.embedded.valkey import find_server
from support.waiting import wait_until

START_SECONDS = 20
FAILOVER_SECONDS = 30
_NODE_TIMEOUT_MS = 1000
_SLOTS = 16_384
_BUS_OFFSET = 10_000
_SERVICE = "oncedrop"


def _port() -> int:
    """One that is free, and whose cluster bus port is."""
    while True:
        port = Random().randrange(20_000, 30_000)
        with contextlib.suppress(OSError):
            for number in (port, port + _BUS_OFFSET):
                socket.create_server(("127.0.0.1", number)).close()
            return port


class Node:
    """One server, to be killed, stopped and started again.

    Args:
        folder: Its own.
        *words: Options beyond an append-only file on loopback.
        sentinel: It watches others instead.
    """

    def __init__(self, folder: Path, *words: str, sentinel: bool = False) -> None:
        self.port = _port()
        self.folder = folder
        folder.mkdir()
        config = folder / "node.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{folder}"',
            f'logfile "{folder}/log"',
        ]
        if not sentinel:
            lines += ["appendonly yes", 'save ""', "repl-diskless-sync-delay 0"]
        config.write_text("\n".join([*lines, *words, ""]))
        self._command = [find_server(), str(config), *(["--sentinel"] if sentinel else [])]
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.try_call("PING"), START_SECONDS, what="a node")
        return process

    def call(self, *command: str | int) -> Any:
        """Its reply."""
        with contextlib.closing(
            redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)
        ) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def try_call(self, *command: str | int) -> Any:
        """Its reply; None while it has none."""
        with contextlib.suppress(redis.RedisError):
            return self.call(*command)
        return None

    def start(self) -> None:
        """Start it again."""
        self.process = self._spawn()

    def end(self) -> None:
        """`kill -9`, stopped or not."""
        self.process.kill()
        self.process.wait(START_SECONDS)


@contextlib.contextmanager
def running_cluster(folder: Path, *, replica: bool = False) -> Iterator[list[Node]]:
    """Three primaries that share the slots; with replica a fourth node stands by for the first."""
    words = ("cluster-enabled yes", f"cluster-node-timeout {_NODE_TIMEOUT_MS}",
             "cluster-require-full-coverage no")  # fmt: skip
    nodes: list[Node] = []
    try:
        nodes.extend(Node(folder / f"node-{number}", *words) for number in range(3 + replica))
        for number, node in enumerate(nodes[:3]):
            first, last = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            node.call("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in nodes:
            wait_until(partial(_knows, node, len(nodes)), START_SECONDS, what="the cluster")
        if replica:
            nodes[3].call("CLUSTER", "REPLICATE", nodes[0].call("CLUSTER", "MYID"))
            wait_until(lambda: _synced(nodes[3]), START_SECONDS, what="the replica")
        yield nodes
    finally:
        for node in nodes:
            node.end()


def cluster_url(nodes: list[Node]) -> str:
    """For services; any node knows the others."""
    return f"redis+cluster://127.0.0.1:{nodes[1].port}"


def _knows(node: Node, count: int) -> bool:
    lines = str(node.try_call("CLUSTER", "INFO")).split()
    return {"cluster_state:ok", f"cluster_known_nodes:{count}"} <= set(lines)


def _synced(node: Node) -> bool:
    info = node.try_call("INFO", "replication") or {}
    return info.get("master_link_status") == "up"


@contextlib.contextmanager
def running_sentinels(folder: Path) -> Iterator[tuple[list[Node], str]]:
    """A primary, a replica and three sentinels that promote it within seconds.

    Yields:
        Primary and replica, and their URL.
    """
    nodes: list[Node] = []
    try:
        nodes.append(Node(folder / "primary"))
        nodes.append(Node(folder / "replica", f"replicaof 127.0.0.1 {nodes[0].port}"))
        wait_until(lambda: _synced(nodes[1]), START_SECONDS, what="the replica")
        for number in range(3):
            nodes.append(
                Node(
                    folder / f"sentinel-{number}",
                    f"sentinel monitor {_SERVICE} 127.0.0.1 {nodes[0].port} 2",
                    f"sentinel down-after-milliseconds {_SERVICE} 1000",
                    f"sentinel failover-timeout {_SERVICE} 5000",
                    sentinel=True,
                )
            )
        for node in nodes[2:]:
            wait_until(partial(_watches, node), START_SECONDS, what="the sentinels")
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[2:])
        yield nodes[:2], f"redis+sentinel://{hosts}/{_SERVICE}/0"
    finally:
        for node in nodes:
            node.end()


def _watches(sentinel: Node) -> bool:
    told = sentinel.try_call("SENTINEL", "MASTER", _SERVICE) or {}
    row = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
    return int(row.get("num-other-sentinels", 0)) == 2 and int(row.get("num-slaves", 0)) == 1


def is_primary(node: Node) -> bool:
    """Whether it takes writes."""
    role = node.try_call("ROLE") or [""]
    return str(role[0]) == "master"


def written(node: Node) -> int:
    """How far its history of writes goes, in bytes: a replica's is as long when it has them all."""
    return int(node.call("INFO", "replication")["master_repl_offset"])
