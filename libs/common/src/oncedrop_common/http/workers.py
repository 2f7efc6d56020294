"""Several processes that serve the same sockets, and one that watches over them.

The watching process has neither threads nor an event loop, so it can fork a worker at any time,
which then builds everything anew. A worker that ends by itself is replaced; one that ends before
it has lived for a moment could not start, and so could no other: the service ends as it did.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import structlog

_HURRIED_SECONDS = 5.0
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
_STOP = {signal.SIGINT, signal.SIGTERM}

log = structlog.get_logger()


def run_workers(count: int, work: Callable[[], None], ended: Callable[[int], None]) -> int:
    """Keep this many workers running until SIGINT or SIGTERM, then until the last has ended.

    Args:
        count: How many.
        work: What each does, ending at SIGTERM; it begins with SIGINT and SIGTERM blocked.
        ended: Called with the process id of each that has ended.

    Returns:
        The exit code: 0 when all ended as they were told to, else that of the first that did not.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Its other end is held by this process alone: when that ends, however, the workers see it.
    alive, held = os.pipe()
    began: dict[int, float] = {}
    failed = 0
    stopping = False

    def start() -> None:
        pid = os.fork()
        if pid == 0:
            os.close(held)
            _be_worker(work, alive)
        began[pid] = time.monotonic()

    for _ in range(count):
        start()
    while began:
        number = signal.sigwait(_SIGNALS)
        if number in _STOP:
            stopping = True
        for pid, code in _reap(began):
            ended(pid)
            hurried = time.monotonic() - began.pop(pid) < _HURRIED_SECONDS
            if stopping or hurried:
                failed = failed or code
                stopping = stopping or hurried
            else:
                log.warning("worker_replaced", exit_code=code)
                start()
        if stopping:
            for pid in began:
                os.kill(pid, signal.SIGTERM)
    os.close(alive)
    os.close(held)
    return failed


def _reap(pids: dict[int, float]) -> list[tuple[int, int]]:
    """Process ids and exit codes of those that have ended; several share one SIGCHLD."""
    ended = []
    for pid in list(pids):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            ended.append((pid, code if code >= 0 else 128 - code))
    return ended


def _be_worker(work: Callable[[], None], alive: int) -> None:
    """Work, and end this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def watch() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()
    code = 1
    try:
        work()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
