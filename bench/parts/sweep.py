"""A sweep of very many drops beside KEYS and one look-up each, and what valkey's others feel."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from functools import partial
from itertools import pairwise

from bench.comparing import Bench
from bench.load import ROOT
from bench.probing import Latencies, probed
from bench.results import Case, Sample
from bench.seeding import many_drops
from bench.servers import BenchError, watched
from bench.stack import ADMIN_TOKEN, Stack, running_stack

_BODY_BYTES = 1024
_PING_EVERY_MS = 2
_TIMEOUT_SECONDS = 600
_LONG_SECONDS = 24 * 3600
_NAIVE = "KEYS, one by one"


def measure(bench: Bench) -> None:
    """Compare the janitor's sweep, of drops that are all in order, with the naive way."""
    counts = [10_000, 50_000] if bench.quick else [100_000, 1_000_000]
    with running_stack(bench.folder) as stack:
        # No sweep of its own after the first: it would be in the way.
        stack.janitor = stack.start("janitor", sweep_interval_seconds=_LONG_SECONDS)
        base_bytes = stack.janitor.resident_bytes()
        for before, count in pairwise([0, *counts]):
            many_drops(stack.volume, stack.redis_url, count - before, _BODY_BYTES)
            bench.compare(
                Case("sweep", f"{count:,} drops", baseline=_NAIVE),
                {
                    "oncedrop": partial(_sweep, stack, count, base_bytes),
                    _NAIVE: partial(_naive, stack, count),
                },
                rounds=3,
                once=_NAIVE,
            )


def _pings(seen: Latencies) -> Sample:
    return {"ping_p99_ms": seen.p99, "ping_worst_ms": seen.worst}


def _sweep(stack: Stack, count: int, base_bytes: int) -> Sample:
    request = urllib.request.Request(  # noqa: S310 - http on loopback
        f"{stack.janitor.url}/sweep",
        method="POST",
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    )
    with (
        watched(stack.janitor, stack.valkey) as usage,
        probed(stack.redis_url, every_ms=_PING_EVERY_MS) as seen,
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response,  # noqa: S310 - http
    ):
        told = json.load(response)
    if (told["records"], told["files"], told["removed"]) != (count, count, 0):
        raise BenchError(f"the sweep of {count} drops went wrong: {told}")
    return {
        "seconds": told["duration_seconds"],
        "above_base_mib": (usage.peak_bytes - base_bytes) / 2**20,
        "cpu_s": usage.cpu_seconds,
        "other_cores": usage.other_cores,
        **_pings(seen),
    }


def _naive(stack: Stack, count: int) -> Sample:
    command = [sys.executable, "-m", "bench.naive_sweep", stack.redis_url, str(stack.volume_dir)]
    with (
        watched(stack.valkey) as usage,
        probed(stack.redis_url, every_ms=_PING_EVERY_MS) as seen,
    ):
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise BenchError(f"the naive sweep failed: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    if (told["found"], told["orphans"]) != (count, 0):
        raise BenchError(f"the naive sweep of {count} drops went wrong: {told}")
    return {
        "seconds": told["seconds"],
        "above_base_mib": told["above_base_mib"],
        "cpu_s": told["cpu_s"] + usage.cpu_seconds,
        "other_cores": usage.other_cores,
        **_pings(seen),
    }
