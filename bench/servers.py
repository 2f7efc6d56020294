"""Server processes: started, watched, ended with the block that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

START_SECONDS = 120
_STOP_SECONDS = 30
_POLL_SECONDS = 0.02
# clear_refs: 5 sets VmHWM back to what is resident now (proc(5)).
_RESET_PEAK = "5"
_CPUCLOCK_SCHED = 2


class BenchError(Exception):
    """The comparison cannot go on; the message says what to do."""


class Server:
    """A server and its worker processes.

    Attributes:
        name: As shown when it fails.
        url: Where it answers; empty when it does not speak HTTP.
    """

    def __init__(
        self, name: str, url: str, process: subprocess.Popen[bytes], *, workers_serve: bool
    ) -> None:
        self.name = name
        self.url = url
        self._workers_serve = workers_serve
        self._process = psutil.Process(process.pid)

    def processes(self) -> list[psutil.Process]:
        """The process that was started and all below it."""
        return [self._process, *self._process.children(recursive=True)]

    def serving(self) -> list[psutil.Process]:
        """Those that serve: its workers, or itself."""
        return self._process.children(recursive=True) if self._workers_serve else [self._process]

    def cpu_seconds(self) -> float:
        """User and system time of all of its processes so far, those that have ended included."""
        times = self._process.cpu_times()
        ended: float = times.children_user + times.children_system
        living = 0.0
        for process in self.processes():
            # valkey's child that rewrites the append-only file may end at any time.
            with contextlib.suppress(OSError):
                living += time.clock_gettime(_cpu_clock(process.pid))
        return ended + living

    def reset_peak(self) -> None:
        """Forget how much memory it has used at most."""
        for process in self.serving():
            Path(f"/proc/{process.pid}/clear_refs").write_text(_RESET_PEAK)

    def peak_bytes(self) -> int:
        """Most resident memory since reset_peak, summed over those that serve."""
        return sum(status_bytes(process.pid, "VmHWM") for process in self.serving())

    def resident_bytes(self) -> int:
        """Resident memory now, summed over those that serve."""
        return sum(status_bytes(process.pid, "VmRSS") for process in self.serving())


def _cpu_clock(pid: int) -> int:
    """A process' CPU clock, in nanoseconds, as clock_getcpuclockid(3) makes it on Linux."""
    return (~pid << 3) | _CPUCLOCK_SCHED


def status_bytes(pid: int, field: str) -> int:
    """A size in /proc/<pid>/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise BenchError(f"/proc/{pid}/status has no {field}")


@dataclass
class Usage:
    """What servers used while they were watched.

    Attributes:
        cpu_seconds: User and system time of all of their processes.
        peak_bytes: Most resident memory of the first server's serving processes.
        other_cores: Cores that programs kept busy that are neither these servers nor clients of
            ours: what the numbers are disturbed by.
    """

    cpu_seconds: float = 0
    peak_bytes: int = 0
    other_cores: float = 0


@contextlib.contextmanager
def watched(*servers: Server) -> Iterator[Usage]:
    """Measure servers during the block; the first is the one whose memory is asked for."""
    usage = Usage()
    servers[0].reset_peak()
    servers_before, others_before = _cpu_seconds(servers)
    began = time.monotonic()
    yield usage
    seconds = time.monotonic() - began
    servers_after, others_after = _cpu_seconds(servers)
    usage.cpu_seconds = servers_after - servers_before
    usage.peak_bytes = servers[0].peak_bytes()
    usage.other_cores = max(0, others_after - others_before) / seconds


def _cpu_seconds(servers: Sequence[Server]) -> tuple[float, float]:
    """Of these servers, and of everything that is neither of them nor of ours."""
    of_servers = sum(server.cpu_seconds() for server in servers)
    machine = psutil.cpu_times()
    idle = machine.idle + machine.iowait
    ours = os.times()
    busy = sum(machine[: machine._fields.index("steal") + 1]) - idle
    return of_servers, busy - of_servers - sum(ours[:4])


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
    *,
    url: str = "",
    environment: Mapping[str, str] | None = None,
    workers_serve: bool = False,
) -> Iterator[Server]:
    """A server that is ready; ended with the block, Ctrl-C included.

    Args:
        name: For messages.
        command: What to run.
        log: Where its output goes.
        ready: Whether it can do its work.
        url: Where it answers.
        environment: All of its environment; None: ours.
        workers_serve: The process that is started only watches over those that serve.

    Raises:
        BenchError: It ended, or was not ready in time.
    """
    with log.open("ab") as output:
        # A session of its own: the terminal's Ctrl-C is for us, and we end it.
        process = subprocess.Popen(
            [str(word) for word in command],
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise BenchError(f"{name} did not start:\n{tail}")
            time.sleep(_POLL_SECONDS)
        yield Server(name, url, process, workers_serve=workers_serve)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    # Whatever of its session is left, a worker whose parent is gone included.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_STOP_SECONDS)


def answers(url: str) -> bool:
    """Whether a GET of this URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http on loopback
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False
