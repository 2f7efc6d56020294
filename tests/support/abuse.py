"""What a server that is abused must keep: its life, its memory, and everybody else's service."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import psutil

from support.services import Service

MIB = 2**20
_OPEN_FILES = 8192
_PAUSE_SECONDS = 0.05


@dataclass
class Watched:
    """What was seen of a service while it was abused.

    Attributes:
        slowest: The longest that anybody else waited for an answer (seconds).
        answers: How many of them got one.
        failures: What else they got.
        grown: By how much the process's memory grew at most (bytes).
    """

    slowest: float = 0.0
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    grown: int = 0


@contextlib.contextmanager
def unharmed(
    service: Service, *, grows_most: int = 48 * MIB, waits_most: float = 3.0
) -> Iterator[Watched]:
    """Others are served while the block runs and after it, and the process's memory stays bounded.

    Args:
        service: Who is abused.
        grows_most: Bytes.
        waits_most: Seconds; others wait for one thread of this busy machine as well.
    """
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    seen = Watched()
    over = threading.Event()

    def look() -> None:
        # A connection each: who comes new is who suffers first.
        began = time.monotonic()
        try:
            status = httpx.get(f"{service.url}/readyz", timeout=30).status_code
            if status != 200:
                seen.failures.append(str(status))
        except httpx.TransportError as exc:
            seen.failures.append(repr(exc))
        seen.slowest = max(seen.slowest, time.monotonic() - began)
        seen.answers += 1
        seen.grown = max(seen.grown, process.memory_info().rss - before)

    def watch() -> None:
        ended = False
        while not ended:
            look()
            ended = over.wait(_PAUSE_SECONDS)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(60)
    look()
    assert service.process.poll() is None, service.logged()[-2000:]
    assert seen.answers > 1
    assert seen.failures == []
    assert seen.slowest < waits_most, f"others waited for {seen.slowest:.1f} s"
    assert seen.grown < grows_most, f"memory grew by {seen.grown / MIB:.0f} MiB"
    assert "request_crashed" not in service.logged()


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """This process may open thousands of connections while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port: int) -> socket.socket:
    """A bare connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answered(client: socket.socket) -> bytes:
    """All that comes until the server closes, or resets."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
    return received


def flood(client: socket.socket, piece: bytes, most_bytes: int) -> tuple[int, bytes]:
    """Send the same again and again until the server has had enough.

    Returns:
        How many bytes could be sent, and what was answered.
    """
    sent = 0
    rest = piece
    received = b""
    client.setblocking(False)
    deadline = time.monotonic() + 60
    ended = False
    with contextlib.suppress(ConnectionError):
        while sent < most_bytes and not ended and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                count = client.send(rest)
                sent += count
                rest = rest[count:] or piece
            with contextlib.suppress(BlockingIOError):
                data = client.recv(65536)
                ended = not data
                received += data
    # Also after a reset: what came before it is still there to be read.
    client.settimeout(20)
    return sent, received + answered(client)


def statuses(received: bytes) -> list[int]:
    """The status of each answer, in order."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
