"""One request on a connection of its own, by a client that need not behave.

A library would hide what matters here: how far the answer had come when its reader left, when the
head came and when the last byte, a body that stops in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_CHUNK = 65_536
_SMALL_BUFFER = 16_384


@dataclass(frozen=True)
class Manner:
    """How a client behaves.

    Attributes:
        leave_after: Bytes of the answer's body after which it goes away.
        leave_in_body: Bytes of its own body after which it goes away.
        read_pause: Seconds between reads of 64 KiB.
        write_pause: Seconds between writes of 64 KiB.
        half_close: It closes its side when it has asked.
    """

    leave_after: int | None = None
    leave_in_body: int | None = None
    read_pause: float = 0
    write_pause: float = 0
    half_close: bool = False

    @property
    def leaves(self) -> bool:
        """Whether it may end the connection before the answer has."""
        return self.half_close or self.leave_after is not None or self.leave_in_body is not None


@dataclass
class Answer:
    """What came. Times are monotonic; status None: no head."""

    began: float
    headed: float = 0.0
    ended: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    left_early: bool = False

    def json(self) -> dict[str, Any]:
        """The body as JSON; empty where it is none."""
        with contextlib.suppress(ValueError):
            document = json.loads(self.body)
            if isinstance(document, dict):
                return document
        return {}


WELL = Manner()


async def ask(
    port: int,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    manner: Manner = WELL,
    timeout_seconds: float = 30,
) -> Answer:
    """Ask once; whatever goes wrong is told by the answer, not raised."""
    answer = Answer(time.monotonic())
    try:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(timeout_seconds):
                await _exchange(answer, port, method, path, dict(headers or {}), body, manner)
    finally:
        answer.ended = time.monotonic()
        answer.headed = answer.headed or answer.ended
    return answer


async def _exchange(
    answer: Answer,
    port: int,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    manner: Manner,
) -> None:
    plain = socket.socket()
    plain.setblocking(False)
    if manner.read_pause or manner.leave_after is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    try:
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    except BaseException:
        plain.close()
        raise
    reader, writer = await asyncio.open_connection(sock=plain, limit=_CHUNK)
    try:
        sending = asyncio.create_task(_send(writer, method, path, headers, body, manner))
        try:
            await _receive(answer, reader, method, manner, sending)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
    finally:
        writer.transport.abort()


async def _send(
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    manner: Manner,
) -> bool:
    """Whether all was sent; else the client goes away."""
    fields = {"Host": "localhost", "Connection": "close", **headers}
    if body or method in ("PUT", "POST"):
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    most = len(body) if manner.leave_in_body is None else manner.leave_in_body
    for at in range(0, most, _CHUNK):
        writer.write(body[at : min(at + _CHUNK, most)])
        await writer.drain()
        await asyncio.sleep(manner.write_pause)
    await writer.drain()
    if manner.half_close:
        writer.write_eof()
    return most == len(body)


async def _receive(
    answer: Answer,
    reader: asyncio.StreamReader,
    method: str,
    manner: Manner,
    sending: asyncio.Task[bool],
) -> None:
    head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        if manner.leaves and not manner.half_close and manner.leave_in_body is not None:
            await asyncio.wait({head, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not head.done():
                answer.left_early = True
                return
        # Who closed its side may be answered or not.
        answer.left_early = manner.half_close
        lines = (await head).decode("latin-1").split("\r\n")
    finally:
        head.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await head
    answer.headed = time.monotonic()
    answer.status = int(lines[0].split()[1])
    pairs = (line.partition(":") for line in lines[1:] if line)
    answer.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(answer.headers.get("content-length", "0"))
    if method == "HEAD":
        length = 0
    while len(answer.body) < length:
        if manner.leave_after is not None and len(answer.body) >= manner.leave_after:
            answer.left_early = True
            return
        wanted = min(_CHUNK, length - len(answer.body))
        if manner.leave_after is not None:
            wanted = min(wanted, manner.leave_after - len(answer.body))
        chunk = await reader.read(wanted)
        if not chunk:
            return
        answer.body += chunk
        await asyncio.sleep(manner.read_pause)
    answer.complete = True
    answer.left_early = False
