"""The clients: wrk for many small files, curl for uploads, bench.drain for large downloads."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.servers import BenchError
from bench.tools import tool

ROOT = Path(__file__).parents[1]
_TIMEOUT_SECONDS = 600
_SCRIPT = Path(__file__).with_name("each_once.lua")


@dataclass(frozen=True)
class Transfer:
    """What a client did.

    Attributes:
        seconds: From its first connection to the end of its last answer.
        bytes: Bodies' bytes, one way.
        client_cpu_seconds: What the client itself used.
        answers: The bodies it got for its uploads.
    """

    seconds: float
    bytes: int
    client_cpu_seconds: float
    answers: tuple[str, ...] = ()

    @property
    def client_cores(self) -> float:
        """Cores that the client kept busy: near 1 a single client may be what limits."""
        return self.client_cpu_seconds / self.seconds


def _run(command: Sequence[str | Path], given: str = "") -> tuple[str, float]:
    """The output for this input, and what CPU seconds it took.

    Raises:
        BenchError: It failed; with what it said.
    """
    before = _clients_cpu_seconds()
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout, _clients_cpu_seconds() - before


def _clients_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def download(urls: Sequence[str], size: int, connections: int = 0) -> Transfer:
    """Get all of these, one connection each, and throw the bytes away; see bench.drain.

    Args:
        urls: What to get.
        size: How long each body must be.
        connections: How many at a time; 0: all.

    Raises:
        BenchError: One was not answered with 200 and all of its bytes.
    """
    command = [sys.executable, "-m", "bench.drain", str(size), str(connections or len(urls))]
    output, _ = _run(command, "\n".join(urls))
    told = json.loads(output)
    return Transfer(told["seconds"], size * len(urls), told["client_cpu_seconds"])


Send = Callable[[Path, Sequence[str]], Transfer]
"""How a file is uploaded to each of these URLs."""


def put(file: Path, urls: Sequence[str]) -> Transfer:
    """`curl -T`, one after the other on one connection.

    Raises:
        BenchError: An answer was none of success.
    """
    output, cpu = _run(_curl(*(word for url in urls for word in ("-T", str(file), url))))
    return _uploaded(file, [output], cpu)


def post_form(file: Path, urls: Sequence[str]) -> Transfer:
    """`curl -F`, as put."""
    output, cpu = _run(_curl("-F", f"file=@{file};filename=big.bin", *urls))
    return _uploaded(file, [output], cpu)


def put_at_once(file: Path, urls: Sequence[str]) -> Transfer:
    """`curl -T`, all at once, a curl each."""
    return _at_once(file, [_curl("-T", str(file), url) for url in urls])


def post_form_at_once(file: Path, urls: Sequence[str]) -> Transfer:
    """`curl -F`, as put_at_once."""
    form = f"file=@{file};filename=big.bin"
    return _at_once(file, [_curl("-F", form, url) for url in urls])


# Each answer's body, then this line.
_MARK = "curl: "


def _curl(*arguments: str) -> list[str]:
    head = [tool("curl"), "-sS", "-H", "Accept: application/json"]
    return [*head, "--write-out", f"\\n{_MARK}%{{http_code}} %{{time_total}}\\n", *arguments]


def _at_once(file: Path, commands: Sequence[Sequence[str]]) -> Transfer:
    before, began = _clients_cpu_seconds(), time.monotonic()
    with contextlib.ExitStack() as running:
        clients = [
            running.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
            for command in commands
        ]
        try:
            outputs = [client.communicate(timeout=_TIMEOUT_SECONDS)[0] for client in clients]
        except BaseException:
            for client in clients:
                client.kill()
            raise
    seconds = time.monotonic() - began
    cpu = _clients_cpu_seconds() - before
    return _uploaded(file, [os.fsdecode(output) for output in outputs], cpu, seconds)


def _uploaded(
    file: Path, outputs: Sequence[str], cpu: float, seconds: float | None = None
) -> Transfer:
    answers: list[str] = []
    in_all = 0.0
    body: list[str] = []
    for line in "\n".join(outputs).splitlines():
        if not line.startswith(_MARK):
            body.append(line)
            continue
        status, taken = line.removeprefix(_MARK).split()
        answer = "\n".join(body).strip()
        body.clear()
        if not status.startswith("2"):
            raise BenchError(f"an upload was answered {status}: {answer}")
        answers.append(answer)
        in_all += float(taken)
    size = len(answers) * file.stat().st_size
    return Transfer(in_all if seconds is None else seconds, size, cpu, tuple(answers))


@dataclass(frozen=True)
class Load:
    """What wrk saw.

    Attributes:
        requests: Answers it got.
        seconds: In this time.
        used: How many of the paths were asked for; those after them are fresh.
        exhausted: There were too few paths.
        p50_ms, p99_ms: Percentiles of the time to an answer.
        client_cpu_seconds: What wrk itself used.
    """

    requests: int
    seconds: float
    used: int
    exhausted: bool
    p50_ms: float
    p99_ms: float
    client_cpu_seconds: float


def each_once(
    url: str, paths: Sequence[str], *, connections: int, seconds: int, folder: Path
) -> Load:
    """Get each of these paths once, for so long; one thread, connections kept alive.

    Args:
        url: The server.
        paths: Where they run out, the last one is asked for again and again.
        connections: Requests at a time.
        seconds: How long.
        folder: For the list of paths.

    Raises:
        BenchError: There were answers other than 2xx, or broken connections, and paths enough.
    """
    list_of_paths = folder / "paths"
    list_of_paths.write_text("\n".join(paths) + "\n")
    command = [tool("wrk"), "--threads=1", f"--connections={connections}"]
    command += [f"--duration={seconds}s", "--timeout=10s", f"--script={_SCRIPT}"]
    output, cpu = _run([*command, url, "--", list_of_paths])
    told = json.loads(output.rpartition("RESULT ")[2])
    if not told["exhausted"] and (told["status_errors"] or told["socket_errors"]):
        raise BenchError(f"wrk on {url}: {told}")
    return Load(
        requests=told["requests"],
        seconds=told["microseconds"] / 1e6,
        used=told["used"],
        exhausted=told["exhausted"],
        p50_ms=told["p50"] / 1000,
        p99_ms=told["p99"] / 1000,
        client_cpu_seconds=cpu,
    )
