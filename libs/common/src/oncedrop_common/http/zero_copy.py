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
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

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
_HEAD_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
ResultT = TypeVar("ResultT")

_USED = ("scope", "transport", "flow", "disconnected", "expected_content_length", "keep_alive",
         "response_started", "response_complete", "message_event", "on_response")  # fmt: skip


def protocol_for(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol uvicorn is to be given as `http=`; warns where it must be uvicorn's own."""
    if not _fits():
        _log.warning("zero_copy_unavailable", uvicorn=uvicorn.__version__)
        return HttpToolsProtocol
    return ZeroCopyProtocol if settings.zero_copy else PlainProtocol


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
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._holders = 0
        self._waiter: asyncio.Future[None] | None = None
        self.lost = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the socket while the block runs, so that its end can still be told after a close."""
        if self._socket is None and not self.lost:
            original = self._transport.get_extra_info("socket")
            self._socket = socket.socket(fileno=os.dup(original.fileno()))
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
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
                await self._writable()
                continue
            except ConnectionError:
                break
            if done == 0:
                raise EOFError("the file is shorter than it was")
            sent += done
            handed_over(done)
        return sent

    async def _writable(self) -> None:
        if self.lost or self._socket is None:
            return
        self._waiter = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, self._wake)
        try:
            await self._waiter
        finally:
            self._loop.remove_writer(fd)
            self._waiter = None


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
    """A request and its response, with the zerocopysend message."""

    async def send(self, message: Any) -> None:
        """As uvicorn's, and http.response.zerocopysend."""
        if message["type"] != ZERO_COPY:
            await super().send(message)
            return
        connection: Connection = self.scope["extensions"][CONNECTION]  # type: ignore[assignment]
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


def _always() -> bool:
    return True


def _ignored(_count: int) -> None:
    return None


class ZeroCopyProtocol(HttpToolsProtocol):
    """What uvicorn is given as `http=`. It also limits a request's head, which uvicorn does not."""

    _zero_copy = True
    _connection: Connection
    _head_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._connection = Connection(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._connection.note_lost()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions: dict[str, Any] = {CONNECTION: self._connection}
        if self._zero_copy:
            cycle.__class__ = ZeroCopyCycle
            extensions[ZERO_COPY] = {}
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field."""
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > _HEAD_BYTES:
            # httptools wraps it in a HttpParserError, which uvicorn answers with 400 and a close.
            raise ValueError("request head is too long")


class PlainProtocol(ZeroCopyProtocol):
    """Without zerocopysend: files go through Python; acknowledgements are known all the same."""

    _zero_copy = False
