"""The clients: wrk for many small files, curl for uploads, bench.drain for large downloads."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.servers import BenchError
from bench.tools import tool

_TIMEOUT_SECONDS = 600
ROOT = Path(__file__).parents[1]
_SCRIPT = Path(__file__).with_name("each_once.lua")


@dataclass(frozen=True)
class Transfer:
    """What a client did.

    Attributes:
        seconds: From its first connection to the end of its last answer.
        bytes: Bodies' bytes, both ways.
        client_cpu_seconds: What the client itself used.
        answer: The body it got, where it was kept.
    """

    seconds: float
    bytes: int
    client_cpu_seconds: float
    answer: str = ""

    @property
    def mib_per_s(self) -> float:
        """Throughput."""
        return self.bytes / 2**20 / self.seconds

    @property
    def client_cpu(self) -> float:
        """Cores that the client kept busy: near 1 it may be what limits."""
        return self.client_cpu_seconds / self.seconds


def _run(command: Sequence[str | Path], given: str = "") -> tuple[str, float]:
    """The output for this input, and what CPU seconds it took.

    Raises:
        BenchError: It failed; with what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, cpu


def download(urls: Sequence[str], size: int) -> Transfer:
    """Get all of these at once, one connection each, and throw the bytes away; see bench.drain.

    Args:
        urls: What to get.
        size: How long each body must be.

    Raises:
        BenchError: One was not answered with 200 and all of its bytes.
    """
    output, _ = _run([sys.executable, "-m", "bench.drain", str(size)], "\n".join(urls))
    told = json.loads(output)
    return Transfer(told["seconds"], size * len(urls), told["client_cpu_seconds"])


def put(file: Path, url: str) -> Transfer:
    """`curl -T`; the answer is kept."""
    return _upload(["-T", str(file)], file, url)


def post_form(file: Path, url: str) -> Transfer:
    """`curl -F`; the answer is kept."""
    return _upload(["-F", f"file=@{file};filename=big.bin"], file, url)


def _upload(how: list[str], file: Path, url: str) -> Transfer:
    output, cpu = _run(
        [
            tool("curl"),
            "-sS",
            "-H",
            "Accept: application/json",
            "--write-out",
            "\\n%{http_code} %{time_total}",
            *how,
            url,
        ]
    )
    answer, _, numbers = output.rpartition("\n")
    status, seconds = numbers.split()
    if status not in {"200", "201", "204"}:
        raise BenchError(f"upload to {url}: {status} {answer}")
    return Transfer(float(seconds), file.stat().st_size, cpu, answer)


@dataclass(frozen=True)
class Load:
    """What wrk saw.

    Attributes:
        used: How many of the paths were asked for; those after them are fresh.
        exhausted: There were too few paths: the numbers mean nothing.
        latencies_ms: Percentile (50, 99) to milliseconds.
    """

    requests: int
    seconds: float
    used: int
    exhausted: bool
    latencies_ms: dict[int, float]
    client_cpu_seconds: float

    @property
    def requests_per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    @property
    def client_cpu(self) -> float:
        """Cores that wrk kept busy."""
        return self.client_cpu_seconds / self.seconds


def each_once(
    url: str, paths: Sequence[str], *, connections: int, seconds: int, folder: Path
) -> Load:
    """Get each of these paths once, for so long; one thread, connections kept alive.

    Args:
        url: The server.
        paths: More than can be asked for in the time.
        connections: Requests at a time.
        seconds: How long.
        folder: For the list of paths.

    Raises:
        BenchError: There were answers other than 2xx, or broken connections.
    """
    list_of_paths = folder / "paths"
    list_of_paths.write_text("\n".join(paths) + "\n")
    output, cpu = _run(
        [
            tool("wrk"),
            "--threads=1",
            f"--connections={connections}",
            f"--duration={seconds}s",
            "--timeout=10s",
            f"--script={_SCRIPT}",
            url,
            "--",
            list_of_paths,
        ]
    )
    document = json.loads(output.rpartition("RESULT ")[2])
    if not document["exhausted"] and (document["status_errors"] or document["socket_errors"]):
        raise BenchError(f"wrk on {url}: {document}")
    return Load(
        requests=document["requests"],
        seconds=document["microseconds"] / 1e6,
        used=document["used"],
        exhausted=document["exhausted"],
        latencies_ms={50: document["p50"] / 1000, 99: document["p99"] / 1000},
        client_cpu_seconds=cpu,
    )
