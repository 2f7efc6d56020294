"""uvicorn's HTTP protocol with bounds: what a connection may cost, and what it may not say.

uvicorn waits for a request's head as long as the client likes, however long it becomes, queues any
number of pipelined requests, and writes the answer to a broken request into the middle of the one
before it. Here

- a head must be whole in time, and has a largest size and number of fields;
- of all bytes that are neither body nor a whole head only so many are read in a row: endless
  trailers, chunk extensions and empty lines end the connection;
- only so many requests wait behind the one that is being answered;
- a process has only so many connections; when there is no room for another, the one that has
  waited longest for a head gives way;
- what is wrong is refused before its request begins, and a request that is being answered is
  answered to its end before the connection is closed for what came behind it.

What the parser (llhttp, strict) lets pass and RFC 9112 does not is refused too: versions other than
1.0 and 1.1 (section 2.3), a missing or second Host (3.2), a transfer coding other than chunked, or
any in HTTP/1.0 (6.1). Trailers are dropped: nothing may become a header when its request has begun
(RFC 9110 section 6.5.1). And a request that offers another protocol, as `curl --http2` does, keeps
its body: the parser takes it for bytes of that protocol, and would take it for requests next.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import Transport
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NoReturn

import httptools
import structlog
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oncedrop_common.http.connections import Connections
from oncedrop_common.middleware import RESPONSE_HEADERS
from oncedrop_common.problems import problem_document, problem_of

HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 100
PIPELINED_MOST = 32
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1024 * 1024
_RETRY_SECONDS = 5

log = structlog.get_logger()


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """A parser as uvicorn has it: what follows a request that closes is passed over in silence."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        all_connections: Those of the process; set by a class of its own for each.
    """

    all_connections: Connections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: RequestResponseCycle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._fields = 0
        self._useless_bytes = 0
        self._useful = False
        self._message_ended = False
        self._refusal = HTTPStatus.BAD_REQUEST
        self._over = False
        self._body_head = b""
        self._quiet = False

    # The connection.

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if self.all_connections.add(self):
            self._await_head()
        else:
            # At once: those who are refused are not counted, and must not become many either.
            self._over = True
            transport.write(_answer(HTTPStatus.SERVICE_UNAVAILABLE))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._stop_timer()
        self.all_connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._unset_keepalive_if_required()
        if self._over:
            self._useless_bytes += len(data)
            if self._useless_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        self._useful = self._message_ended = False
        count = len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._break_off()
            return
        self._useless_bytes = 0 if self._useful else self._useless_bytes + count
        if self._useless_bytes > HEAD_BYTES:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._break_off()
        elif self._idle:
            self._await_head()
            if self._message_ended and not self._in_head:
                # The rest of a body that nobody wanted has ended.
                self._stop_timer()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here (RFC 9110 section 7.8): what follows is this
                # request's body, which the parser has given up, or another request.
                data = data[upgrade.args[0] :]
                if self._body_head:
                    self._begin_body()
            else:
                return

    def _begin_body(self) -> None:
        """Go on with a parser that expects a body of the announced length and nothing else."""
        self.parser = new_parser(self)
        self._quiet = True
        self.parser.feed_data(self._body_head)
        self._quiet = False
        self._body_head = b""

    @property
    def _idle(self) -> bool:
        answered = self._running is None or self._running.response_complete
        return answered and not self.pipeline

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """A request's head begins."""
        if self._quiet:
            return
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if self._quiet:
            return
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer."""
        if self._quiet:
            return
        self._fields += 1
        self._count_head(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        if self._quiet:
            return
        self._check_head()
        if self.parser.should_upgrade():
            self._body_head = self._body_head_of(self.headers)
        self._in_head = False
        self._useful = True
        self._stop_timer()
        self.all_connections.works(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._useful = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has ended."""
        if self._body_head:
            return
        self._useful = self._message_ended = True
        super().on_message_complete()

    def _check_head(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            self._fail(HTTPStatus.NOT_IMPLEMENTED)
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._fail(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._fail(HTTPStatus.BAD_REQUEST)
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or version == "1.0"):
            self._fail(HTTPStatus.BAD_REQUEST)
        if len(self.pipeline) >= PIPELINED_MOST:
            # Nobody is told: those before it are answered, and then the connection is closed.
            self._fail(HTTPStatus.BAD_REQUEST)

    @staticmethod
    def _body_head_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A head that announces the body these do; empty when they announce none."""
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % pair for pair in headers if pair[0] in framing]
        return b"".join([b"PUT / HTTP/1.1\r\n", *lines, b"\r\n"]) if lines else b""

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > HEAD_BYTES or self._fields > HEAD_FIELDS:
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _fail(self, status: HTTPStatus) -> NoReturn:
        self._refusal = status
        # httptools makes a HttpParserError of it.
        raise ValueError(status)

    # Requests and answers.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A request has been answered; the next one of the pipeline, if any, begins."""
        super().on_response_complete()
        if self.pipeline or self._over:
            # What was not read yet would make the pipeline longer with every answer.
            self.flow.pause_reading()
        if self._idle:
            self.all_connections.waits(self)

    def _break_off(self) -> None:
        """Read no further: what has come cannot be understood, or is too much."""
        running = self._running
        if running is None or running.response_complete:
            self._refuse(self._refusal)
        elif running is self.cycle and running.more_body and not running.response_started:
            # Its own body is what is wrong.
            self._abandon(running)
            self._refuse(self._refusal)
        else:
            self._over = True
            self.flow.pause_reading()
            if self.pipeline and self.cycle.more_body:
                self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else running
            last.keep_alive = False

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        """This request will be answered here; for its application the client has gone."""
        cycle.disconnected = True
        cycle.message_event.set()

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, and close when the client has had time to read it."""
        self._over = True
        self._stop_timer()
        log.info("request_refused", status=int(status))
        if self.transport.is_closing():
            return
        self.transport.write(_answer(status))
        self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    # Time.

    def _await_head(self) -> None:
        self.all_connections.waits(self)
        if self._timer is None:
            seconds = self.all_connections.head_seconds
            self._timer = self.loop.call_later(seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _answer(status: HTTPStatus) -> bytes:
    """The whole response that refuses a request of which nothing more is known."""
    body = json.dumps(problem_document(problem_of(HTTPException(status)))).encode()
    headers = [
        *RESPONSE_HEADERS,
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % _RETRY_SECONDS))
    lines = [b"%s: %s\r\n" % pair for pair in headers]
    first = b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
    return b"".join([first, *lines, b"\r\n", body])
