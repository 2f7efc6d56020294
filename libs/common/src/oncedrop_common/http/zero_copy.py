"""uvicorn's HTTP protocol, with what a one-time download needs of its connection.

Two ASGI extensions are offered in `scope["extensions"]`:

`http.response.zerocopysend` (the ASGI extension of that name): the message
`{"type": …, "file": fd, "offset": n, "count": n, "more_body": bool}` sends a part of a file in
the kernel, by sendfile(2). Our own key `permit`, a function, is asked before each step; when it
says no, the rest is not sent and the connection is reset. `handed_over`, another one, is called
with the bytes each step gave to the kernel.

`oncedrop.connection`: a `Connection`, which knows how much of what was sent the other side's
kernel has acknowledged. uvicorn's `send` returns when a buffer took the bytes; only the
acknowledgement tells that they have left this machine for good.

A third thing needs no extension: a long body of known length is read past event loop and parser.
They would copy it three times, 64 KiB at a time. After the first piece the transport is paused and
`receive` takes pieces of `receive_bytes` (256 KiB; the application may ask for others) from a
duplicate of the socket, never a byte more than `Content-Length` announced; after the last one a
fresh parser reads the next request. A body that is not taken to its end ends the connection, for
nobody knows then where the next request begins.

How sendfile is driven: headers go through the transport, whose buffer must be empty before the
file follows on a duplicate of the socket (the event loop refuses to watch a descriptor that a
transport owns). Pages that are in memory are sent from the loop in bounded steps; others in a
thread, where waiting for a disk holds nobody up.

uvicorn's RequestResponseCycle is not a public interface: uvicorn is pinned, and `protocol_for`
looks at start whether the parts used here are there. Without them files go the plain way, in
chunks; nothing is known then of what arrived, and a claim ends with its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from asyncio import Transport
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oncedrop_common.http.bounded import BoundedProtocol, new_parser
from oncedrop_common.http.connections import Connections, raise_open_files
from oncedrop_common.settings import Settings

_log = structlog.get_logger()

ZERO_COPY = "http.response.zerocopysend"
CONNECTION = "oncedrop.connection"

# Linux: SIOCOUTQ has TIOCOUTQ's number; bytes written and not acknowledged (tcp(7)).
_SIOCOUTQ = termios.TIOCOUTQ
# struct tcp_info (linux/tcp.h): tcpi_bytes_acked, RFC 4898 tcpEStatsAppHCThruOctetsAcked.
_TCP_INFO_BYTES = 256
_BYTES_ACKED_AT = 120
_BYTES_ACKED = struct.Struct("=Q")
_FLUSH_STEP_SECONDS = 0.001
_FLUSH_MOST_SECONDS = 0.02
_STEP_BYTES = 256 * 1024
# Shorter rests are not worth a fresh parser.
_DIRECT_LEAST_BYTES = 256 * 1024
_RECEIVE_BYTES = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
ResultT = TypeVar("ResultT")

_USED = ("scope", "transport", "flow", "disconnected", "expected_content_length", "keep_alive",
         "response_started", "response_complete", "message_event", "on_response", "body",
         "more_body")  # fmt: skip


def protocol_for(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol uvicorn is to be given as `http=`; warns where it must be uvicorn's own.

    Called once in each process: it lets the process open as many files as it may, and what it
    returns counts the process's connections.
    """
    if not _fits():
        _log.warning("zero_copy_unavailable", uvicorn=uvicorn.__version__)
        return HttpToolsProtocol
    protocol = ZeroCopyProtocol if settings.zero_copy else PlainProtocol
    counted = {"all_connections": Connections(raise_open_files(), settings.head_timeout_seconds)}
    return type(protocol.__name__, (protocol,), counted)


def _fits() -> bool:
    """Whether this system and the installed uvicorn have what this module builds on."""
    names = RequestResponseCycle.__init__.__code__.co_names
    return (
        sys.platform == "linux"
        and set(_USED) <= set(names)
        and hasattr(HttpToolsProtocol, "_start_asgi_task")
    )


class Connection:
    """One client's TCP connection, seen from the application.

    Attributes:
        lost: Whether it has ended, from either side.
        receive_bytes: How much of a long body a message has at most; the application may say.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._holders = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self.lost = False
        self.receive_bytes = _RECEIVE_BYTES

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the socket while the block runs, so that its end can still be told after a close."""
        if self._socket is None and not self.lost:
            original = self._transport.get_extra_info("socket")
            # Told what it is, or three calls of the kernel would find out.
            self._socket = socket.socket(
                original.family, original.type, original.proto, os.dup(original.fileno())
            )
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0 and self._socket is not None:
                self._socket.close()
                self._socket = None

    def acknowledged(self) -> int | None:
        """How far into its stream of bytes the other side's kernel has acknowledged all.

        Counts from an arbitrary point; compare with `position`. Exact while `held`, after the
        connection has ended too. None: it cannot be told.
        """
        if self._socket is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            return int(_BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)[0])
        except (OSError, struct.error):
            return None

    def position(self) -> int | None:
        """How far the stream has been handed to the kernel; only after `flushed`, while `held`."""
        acknowledged = self.acknowledged()
        if acknowledged is None or self._socket is None:
            return None
        try:
            return acknowledged + self._waiting(self._socket)
        except OSError:
            return None

    @staticmethod
    def _waiting(sock: socket.socket) -> int:
        waiting = bytearray(4)
        fcntl.ioctl(sock.fileno(), _SIOCOUTQ, waiting)
        return int(struct.unpack("i", waiting)[0])

    async def flushed(self) -> None:
        """Wait until the kernel has all that was written so far, or the connection has ended."""
        pause = 0.0
        while not self.lost and self._transport.get_write_buffer_size():
            await asyncio.sleep(pause)
            pause = min(pause + _FLUSH_STEP_SECONDS, _FLUSH_MOST_SECONDS)

    def reset(self) -> None:
        """End the connection with a reset: what the kernel still holds is not delivered."""
        with contextlib.suppress(OSError, ValueError):
            (self._socket or self._transport.get_extra_info("socket")).setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
        self._transport.abort()

    def note_lost(self) -> None:
        """The event loop says that the connection has ended."""
        self.lost = True
        for waiter in self._waiters:
            _wake(waiter)

    async def send_file(
        self,
        file: int,
        offset: int,
        count: int,
        permit: Callable[[], bool],
        handed_over: Callable[[int], None],
    ) -> int:
        """Hand a part of a file to the kernel; only while `held`, with an empty transport buffer.

        Returns:
            Bytes handed over: fewer than count when the connection ended or permit said no.

        Raises:
            EOFError: The file is shorter than that.
            OSError: The file cannot be read.
        """
        sent = 0
        while sent < count and not self.lost and self._socket is not None:
            if not permit():
                break
            step = min(count - sent, _STEP_BYTES)
            out = self._socket.fileno()
            try:
                if _in_memory(file, offset + sent, step):
                    done = os.sendfile(out, file, offset + sent, step)
                    await asyncio.sleep(0)
                else:
                    # Not to be left behind in its thread: the descriptors may be closed next.
                    done = await finished(os.sendfile, out, file, offset + sent, step)
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
                continue
            except ConnectionError:
                break
            if done == 0:
                raise EOFError("the file is shorter than it was")
            sent += done
            handed_over(done)
        return sent

    async def receive(self, most: int) -> bytes:
        """The next bytes from the socket; only while `held`, with the transport's reading paused.

        Returns:
            At most that many; none when the connection, or the client's side of it, has ended.
        """
        while not self.lost and self._socket is not None:
            # Other requests first: a fast client has always something there.
            await asyncio.sleep(0)
            try:
                return self._socket.recv(most)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                break
        return b""

    async def _ready(self, watch: Callable[..., None], unwatch: Callable[[int], object]) -> None:
        """Wait until the socket is ready in the way that is watched for, or has ended."""
        if self.lost or self._socket is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        fd = self._socket.fileno()
        watch(fd, _wake, waiter)
        try:
            await waiter
        finally:
            unwatch(fd)
            self._waiters.discard(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def finished(function: Callable[..., ResultT], *args: Any) -> ResultT:
    """Run a blocking function in a thread and, when cancelled, still wait until it has ended."""
    task = asyncio.create_task(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _in_memory(file: int, offset: int, count: int) -> bool:
    """Whether sendfile would find these pages without waiting for a disk (RWF_NOWAIT)."""
    try:
        last = os.preadv(file, [bytearray(1)], offset + count - 1, os.RWF_NOWAIT)
        first = os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return bool(first and last)


class ZeroCopyCycle(RequestResponseCycle):
    """A request and its response, with the zerocopysend message and long bodies read directly.

    Attributes:
        protocol: Whose request it is.
    """

    protocol: ZeroCopyProtocol
    _left = 0
    _hold: contextlib.ExitStack | None = None

    async def run_asgi(self, app: Any) -> None:
        """As uvicorn's."""
        try:
            await super().run_asgi(app)
        finally:
            self._let_go()

    async def receive(self) -> Any:
        """As uvicorn's; from the second message of a long body on it is read directly."""
        if self._left == 0:
            message = await super().receive()
            if message.get("more_body", False):
                self._take_over()
            return message
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        connection = self.protocol.client_connection
        body = await connection.receive(min(self._left, connection.receive_bytes))
        if not body:
            self.disconnected = True
            self._let_go()
            self.transport.close()
            return {"type": "http.disconnect"}
        self._left -= len(body)
        if self._left == 0:
            self._let_go()
            self.more_body = False
            self.protocol.parse_anew()
        return {"type": "http.request", "body": body, "more_body": self._left > 0}

    def _take_over(self) -> None:
        """What is still to come of the body is read here; called when all that came was taken."""
        left = _announced(self.scope["headers"]) - self.protocol.body_bytes
        if left < _DIRECT_LEAST_BYTES or self.scope["scheme"] != "http":
            return
        self.flow.pause_reading()
        self._hold = contextlib.ExitStack()
        self._hold.enter_context(self.protocol.client_connection.held())
        self._left = left

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    async def send(self, message: Any) -> None:
        """As uvicorn's, and http.response.zerocopysend."""
        if message["type"] != ZERO_COPY:
            if self._left:
                self.keep_alive = False
            await super().send(message)
            return
        connection = self.protocol.client_connection
        if not self.response_started or self.response_complete:
            raise RuntimeError("zerocopysend outside of a response's body")
        count = message["count"]
        if count > self.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        await connection.flushed()
        sent = 0
        if not connection.lost:
            sent = await connection.send_file(
                message["file"],
                message["offset"],
                count,
                message.get("permit", _always),
                message.get("handed_over", _ignored),
            )
        if sent < count:
            if not connection.lost:
                connection.reset()
            return
        self.expected_content_length -= count
        if not message.get("more_body", False):
            await super().send({"type": "http.response.body", "body": b"", "more_body": False})


def _announced(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """A body's length by Content-Length (bytes); 0 when it comes in chunks or not at all."""
    found = dict(headers)
    return 0 if b"transfer-encoding" in found else int(found.get(b"content-length", 0))


def _always() -> bool:
    return True


def _ignored(_count: int) -> None:
    return None


class ZeroCopyProtocol(BoundedProtocol):
    """What uvicorn is given as `http=`.

    Attributes:
        client_connection: Who is there.
        body_bytes: How much the parser has seen of the newest request's body.
    """

    _zero_copy = True
    client_connection: Connection
    body_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client has come."""
        self.client_connection = Connection(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self.client_connection.note_lost()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions: dict[str, Any] = {CONNECTION: self.client_connection}
        if self._zero_copy:
            cycle.__class__ = ZeroCopyCycle
            cycle.protocol = self  # type: ignore[attr-defined]
            extensions[ZERO_COPY] = {}
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, app)

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        self.client_connection.note_lost()
        super()._abandon(cycle)

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self.body_bytes = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.body_bytes += len(body)
        super().on_body(body)

    def parse_anew(self) -> None:
        """The body was read past the parser, to its end: what follows is another request."""
        if not self.client_connection.lost:
            self.parser = new_parser(self)
            self.flow.resume_reading()


class PlainProtocol(ZeroCopyProtocol):
    """Without zerocopysend and direct reading; acknowledgements are known all the same."""

    _zero_copy = False
