"""The real services as processes, and clients that behave badly on purpose."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Self

import httpx

from support.waiting import wait_until

START_SECONDS = 30
STOP_SECONDS = 20
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36",
}


def strangers() -> CookieJar:
    """For a client that stands for many visitors: with a common cookie each is the claimant."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _names(settings: Mapping[str, str | int]) -> dict[str, str]:
    return {f"ONCEDROP_{key.upper()}": str(value) for key, value in settings.items()}


class Service:
    """One service as a process of its own."""

    def __init__(
        self, name: str, redis_url: str, volume_dir: Path, log: Path, **settings: str | int
    ) -> None:
        self.name = name
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ONCEDROP_")},
            "ONCEDROP_REDIS_URL": redis_url,
            "ONCEDROP_VOLUME_DIR": str(volume_dir),
            f"ONCEDROP_{name.upper()}_PORT": str(self.port),
            **_names(settings),
        }
        self.process = self._spawn({})

    def _spawn(self, settings: Mapping[str, str | int]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", f"oncedrop_{self.name}"],
                env={**self._environment, **_names(settings)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def start(self, *, wait: bool = True, **settings: str | int) -> None:
        """Start it again, on the same port; settings are for this run only."""
        self.process = self._spawn(settings)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it can do its work."""
        try:
            wait_until(self._is_ready, START_SECONDS, what=f"{self.name} to be ready")
        except AssertionError as exc:
            with contextlib.suppress(httpx.TransportError):
                exc.add_note(httpx.get(f"{self.url}/readyz", timeout=5).text)
            raise

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.status_of("/readyz") == 200

    def status_of(self, path: str) -> int:
        """The status of a GET; 0 when nobody answers."""
        try:
            return httpx.get(self.url + path, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def logged(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def running(
    name: str, redis_url: str, volume_dir: Path, log: Path, **settings: str | int
) -> Iterator[Service]:
    """A service that is ready; ended with the block."""
    service = Service(name, redis_url, volume_dir, log, **settings)
    try:
        service.wait_ready()
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def files_in(volume_dir: Path) -> list[Path]:
    """Every file in the volume that may hold bytes of a drop."""
    return sorted(p for p in volume_dir.rglob("*") if p.is_file() and p.name != ".oncedrop")


class RawClient:
    """A client on a bare socket: reads as much as it likes, leaves as it likes."""

    def __init__(self, port: int, request: str, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        self.received = b""

    @classmethod
    def get(cls, port: int, path: str, *, receive_buffer: int | None = None) -> RawClient:
        """A GET without further headers."""
        return cls(port, f"GET {path} HTTP/1.1\nHost: localhost", receive_buffer=receive_buffer)

    def read_head(self) -> str:
        """Status line and headers."""
        self.read_until(b"\r\n\r\n")
        return self.received.partition(b"\r\n\r\n")[0].decode()

    def read_until(self, mark: bytes) -> None:
        """Read until these bytes have come."""
        while mark not in self.received:
            chunk = self.socket.recv(4096)
            assert chunk, "the connection ended too early"
            self.received += chunk

    def read_body(self, count: int) -> bytes:
        """The first count bytes of the body."""
        self.read_head()
        while len(body := self.received.partition(b"\r\n\r\n")[2]) < count:
            chunk = self.socket.recv(min(65536, count - len(body)))
            assert chunk, "the connection ended too early"
            self.received += chunk
        return body

    def drain(self, quiet_seconds: float = 1.5) -> None:
        """Read until nothing has come for so long, or the connection has ended."""
        self.socket.settimeout(quiet_seconds)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := self.socket.recv(65536):
                self.received += chunk

    def ends(self) -> bool:
        """Whether the other side ends the connection (within the timeout)."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def header(self, name: str) -> str:
        """A response header's value."""
        match = re.search(rf"^{name}: (.*?)\r?$", self.read_head(), re.MULTILINE | re.IGNORECASE)
        assert match, f"no {name}"
        return match[1]

    def close(self) -> None:
        """Leave."""
        self.socket.close()


class CuttingProxy:
    """Passes TCP on and treats the first connections badly, one after the other.

    Args:
        port: Where to.
        cuts: After so many bytes of answer the connection is reset.
        hold: Not reset but held, silent, until the client leaves.
        spoil: This byte of every connection's answer, counted from 0, is changed on its way.

    Attributes:
        connections: How many there have been.
        answered: Bytes of answer of all of them.
        cut: How many were reset or held.
    """

    def __init__(
        self, port: int, cuts: list[int], *, hold: bool = False, spoil: int | None = None
    ) -> None:
        self._target = port
        self._cuts = list(cuts)
        self._hold = hold
        self._spoil = spoil
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        self.answered = 0
        self.cut = 0
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join(10)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            most = self._cuts.pop(0) if self._cuts else None
            thread = threading.Thread(target=self._pass_on, args=(client, most))
            thread.start()
            self._threads.append(thread)

    def _pass_on(self, client: socket.socket, most: int | None) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            up = threading.Thread(target=_pump, args=(client, server, None))
            up.start()
            whole = _pump(server, client, most, self._count, self._spoil)
            self.cut += not whole
            if self._hold and not whole:
                # Ends when the client does.
                up.join(60)
            for side in (client, server):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            up.join(10)

    def _count(self, more: int) -> None:
        # Connections that matter here come one after the other.
        self.answered += more


def _pump(
    source: socket.socket,
    sink: socket.socket,
    most: int | None,
    count: Callable[[int], None] = lambda _more: None,
    spoil: int | None = None,
) -> bool:
    """Whether it came to the source's end."""
    passed = 0
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536 if most is None else min(65536, most - passed)):
            if spoil is not None and passed <= spoil < passed + len(chunk):
                at = spoil - passed
                chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            sink.sendall(chunk)
            passed += len(chunk)
            count(len(chunk))
            if most is not None and passed >= most:
                return False
    # Also when the source was reset: who waits at the other end would wait for long.
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    return True
