"""Many small drops, each downloaded once: the whole way, beside its parts and the usual way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis

from bench import load
from bench.bare import FSYNC
from bench.comparing import Bench, Contender
from bench.floors import NO_SYNC, STATIC, USUAL_ONCE
from bench.metrics import counter
from bench.nginx import running_nginx
from bench.results import Case, Sample
from bench.seeding import records_only, redis_client, settle, small_drops
from bench.servers import BenchError, Server, Usage, watched
from bench.stack import Stack, running_stack
from bench.starlette_app import running_usual, running_uvicorn
from bench.transfers import held_files, wait_until_gone
from bench.usual import KEY
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys, scripts
from oncedrop_common.tokens import claim_hash, mint

CONNECTIONS = 32
BODY_BYTES = 1024

_SYNCS = "oncedrop_claim_syncs_total"
_FIRST_GUESS_PER_SECOND = 4000
_LEASE_SECONDS: int = Settings.model_fields["claim_lease_seconds"].default


def measure(bench: Bench) -> None:
    """Compare with nginx's static file, the claim script alone, and WATCH/MULTI."""
    seconds = 1 if bench.quick else 4
    with (
        running_nginx(bench.folder / "nginx") as nginx,
        running_stack(bench.folder / "stack") as stack,
        redis_client(stack.redis_url) as client,
        running_usual(bench.folder / "usual", stack.redis_url) as usual,
        running_uvicorn("bench.layers:bare", bench.folder / "bare") as bare,
        running_uvicorn("bench.layers:starlette", bench.folder / "starlette") as starlette,
    ):
        stack.start_all()
        body = os.urandom(BODY_BYTES)
        (nginx.root / "small").write_bytes(body)
        case = Case("claims", f"{CONNECTIONS} connections, {BODY_BYTES // 1024} KiB")
        contenders: dict[str, Contender] = {
            STATIC: partial(
                static_rate, nginx.server, "/small", seconds=seconds, folder=bench.folder
            ),
        }
        case.baseline = STATIC
        contenders[NO_SYNC] = OnceRate(stack, stack.start("deliver", FSYNC), body, seconds=seconds)
        contenders["oncedrop"] = OnceRate(stack, stack.deliver, body, seconds=seconds)
        contenders[USUAL_ONCE] = OnceRate(
            stack, usual, body, seconds=seconds, make=partial(_usual_files, client, bench.folder)
        )
        contenders["claim script alone"] = partial(
            _script_alone, stack, client, 10_000 if bench.quick else 60_000
        )
        bench.compare(case, contenders)

        case = Case("claims", f"layer by layer, {CONNECTIONS} connections")
        case.baseline = STATIC
        rate = partial(static_rate, seconds=seconds, folder=bench.folder)
        once = OnceRate(stack, stack.deliver, body, seconds=seconds)
        bench.compare(
            case,
            {
                STATIC: partial(rate, nginx.server, "/small"),
                "uvicorn, bare ASGI": partial(rate, bare, "/small"),
                "Starlette, one route": partial(rate, starlette, "/small"),
                "oncedrop, GET /healthz": partial(rate, stack.deliver, "/healthz"),
                "oncedrop, one-time link": once,
            },
        )


def static_rate(
    server: Server, path: str, *, seconds: int, folder: Path, connections: int = CONNECTIONS
) -> Sample:
    """The same small file again and again, by the same client and script as one-time links."""
    with watched(server) as usage:
        seen = load.each_once(
            server.url, [path] * 1000, connections=connections, seconds=seconds, folder=folder
        )
    return _seen(seen, usage)


def _seen(seen: load.Load, usage: Usage) -> dict[str, float]:
    return {
        "requests_per_s": seen.requests / seen.seconds,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "cpu_s_per_1000": usage.cpu_seconds / seen.requests * 1000,
        "peak_mib": usage.peak_bytes / 2**20,
        "client_cores": seen.client_cpu_seconds / seen.seconds,
        "other_cores": usage.other_cores,
    }


class OnceRate:
    """Links that work once, each asked for once; more are made before each round.

    Args:
        stack: Where they are.
        server: Who serves them.
        body: What each holds.
        seconds: How long a round is.
        make: Makes so many and returns their paths; None: drops.
    """

    def __init__(
        self,
        stack: Stack,
        server: Server,
        body: bytes,
        *,
        seconds: int,
        make: Callable[[int, bytes], list[str]] | None = None,
    ) -> None:
        self._stack = stack
        self._server = server
        self._body = body
        self._seconds = seconds
        self._make = make or self._drops
        self._fresh: list[str] = []
        self._rate: float = _FIRST_GUESS_PER_SECOND

    def _drops(self, count: int, body: bytes) -> list[str]:
        with redis_client(self._stack.redis_url) as client:
            return [f"/d/{t}" for t in small_drops(self._stack.volume, client, count, body)]

    def __call__(self) -> Sample:
        """One round; begun anew with more links where there were too few."""
        while True:
            wanted = round(self._rate * self._seconds * 1.5)
            self._fresh += self._make(max(0, wanted - len(self._fresh)), self._body)
            sample = self._round()
            if sample is not None:
                return sample
            self._rate *= 2

    def _round(self) -> Sample | None:
        held_before = held_files(self._stack)
        syncs_before = counter(self._server.url, _SYNCS)
        valkey_before = self._stack.valkey.cpu_seconds()
        with watched(self._server, self._stack.valkey) as usage:
            seen = load.each_once(
                self._server.url,
                self._fresh,
                connections=CONNECTIONS,
                seconds=self._seconds,
                folder=self._stack.folder,
            )
            # What was under way when the client left stays claimed until its lease ends.
            wait_until_gone(self._stack, held_before + CONNECTIONS)
        valkey_seconds = self._stack.valkey.cpu_seconds() - valkey_before
        del self._fresh[: seen.used]
        if seen.exhausted:
            return None
        self._rate = seen.requests / seen.seconds
        sample = {
            **_seen(seen, usage),
            "valkey_s_per_1000": valkey_seconds / seen.requests * 1000,
        }
        syncs = counter(self._server.url, _SYNCS)
        if syncs and syncs_before is not None:
            sample["takes_per_sync"] = seen.requests / (syncs - syncs_before)
        return sample


def _usual_files(client: redis.Redis, folder: Path, count: int, body: bytes) -> list[str]:
    files = folder / "once"
    files.mkdir(exist_ok=True)
    pipeline = client.pipeline(transaction=False)
    names = [mint() for _ in range(count)]
    for name in names:
        (files / name).write_bytes(body)
        pipeline.set(KEY + name, str(files / name))
    pipeline.execute()
    settle(client)
    return [f"/once/{name}" for name in names]


def _script_alone(stack: Stack, client: redis.Redis, count: int) -> Sample:
    """The claim script by itself: packed beforehand, 32 at a time on one connection."""
    drop_ids = records_only(client, count, BODY_BYTES)
    client.script_load(scripts.CLAIM.source)
    connection: Any = client.connection_pool.get_connection()
    try:
        batches = [
            connection.pack_commands(
                [
                    (
                        "EVALSHA", scripts.CLAIM.sha, 1, keys.drop(drop_id),
                        claim_hash(mint()), "", _LEASE_SECONDS, 0, 0, 0,
                    )
                    for drop_id in drop_ids[start : start + CONNECTIONS]
                ]
            )
            for start in range(0, count, CONNECTIONS)
        ]  # fmt: skip
        with watched(stack.valkey) as usage:
            began = time.monotonic()
            replies = _pipelined(connection, batches, count)
            seconds = time.monotonic() - began
    finally:
        client.connection_pool.release(connection)
    if any(reply[0] != b"CLAIMED" for reply in replies):
        raise BenchError("the claim script did not claim")
    for start in range(0, count, 1000):
        client.unlink(*(keys.drop(drop_id) for drop_id in drop_ids[start : start + 1000]))
    cpu = usage.cpu_seconds / count * 1000
    return {"requests_per_s": count / seconds, "cpu_s_per_1000": cpu, "valkey_s_per_1000": cpu}


def _pipelined(connection: Any, batches: list[list[bytes]], count: int) -> list[Any]:
    # One batch ahead, so that valkey never waits for us.
    connection.send_packed_command(batches[0])
    replies: list[Any] = []
    for batch in batches[1:]:
        connection.send_packed_command(batch)
        replies += [connection.read_response() for _ in range(CONNECTIONS)]
    replies += [connection.read_response() for _ in range(count - len(replies))]
    return replies
