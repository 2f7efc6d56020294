"""Probes that run beside something else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from bench.load import ROOT
from bench.servers import BenchError

_END_SECONDS = 60


@dataclass
class Latencies:
    """What a probe saw, in milliseconds; filled when its block ends."""

    count: int = 0
    p50: float = 0
    p99: float = 0
    worst: float = 0


@contextlib.contextmanager
def probed(url: str, *request: str, every_ms: int) -> Iterator[Latencies]:
    """Ask during the block, from a process of its own.

    Args:
        url: Of a server; a redis:// or unix:// one is pinged.
        *request: HTTP method and path.
        every_ms: The pause after each answer.

    Raises:
        BenchError: The probe got no answer, or a wrong one.
    """
    parts = urlsplit(url)
    address = unquote(parts.path) if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
    command = [sys.executable, "-m", "bench.probe", str(every_ms), address, *request]
    seen = Latencies()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            # Starting it is no part of what is measured.
            if process.stdout is not None:
                process.stdout.readline()
            yield seen
            output, said = process.communicate(timeout=_END_SECONDS)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchError(f"probe of {url}: {said.decode(errors='replace').strip()}")
    for name, value in json.loads(output).items():
        setattr(seen, name, value)
