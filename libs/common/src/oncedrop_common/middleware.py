"""The edge that every request passes, from the outside in.

RequestLine      one log line and the metrics of each request
ResponseRules    what holds for every response: headers, and no body for HEAD
ErrorAnswers     errors become answers; once an answer has begun, the connection is cut

Plain ASGI: `BaseHTTPMiddleware` would put a task and a queue between every file and its reader.
A request's `state` is how endpoints and edge talk: an endpoint puts `drop_id` there, and
`bytes_in` when it reads a body past `receive`; ErrorAnswers puts `problem` and `fault` there.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPMethod, HTTPStatus
from typing import NoReturn

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncedrop_common.errors import MethodUnsupported, OncedropError
from oncedrop_common.metrics import Metrics, method_label
from oncedrop_common.problems import Problems, problem_of

# Asked every few seconds by machines: worth a line only when something is wrong.
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
_SERVER_ERROR = 500
_FIRST_ERROR = 400
_NO_ROUTE = "unmatched"
_METHODS = sorted(method.value for method in HTTPMethod)

# RFC 9111 section 5.2.2: stored by nobody, changed by nobody on the way.
_FORCED = [
    (b"cache-control", b"no-store, no-transform"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_FORCED_NAMES = frozenset(name for name, _ in _FORCED)
_CSP = b"content-security-policy"
# style, img, script: files under /static/. connect: the send page's upload and live pages.
# form-action also covers where a form's 303 leads, so such a Location must stay on this origin.
_DEFAULT_CSP = (
    b"default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self';"
    b" form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

RESPONSE_HEADERS = (*_FORCED, (_CSP, _DEFAULT_CSP))
"""What every response has that brings no Content-Security-Policy of its own."""

log = structlog.get_logger()


def install(app: Starlette, metrics: Metrics, problems: Problems) -> None:
    """Put the edge around an application that has not served yet.

    Also turns off Starlette's redirect between a path with and without a trailing slash: it
    would repeat a link's token in a `Location`, and a token with a slash is no token.
    """
    app.router.redirect_slashes = False
    app.add_exception_handler(HTTPException, _pass_on)
    # Each goes in front of those added before.
    app.add_middleware(ErrorAnswers, problems=problems)
    app.add_middleware(ResponseRules)
    app.add_middleware(RequestLine, metrics=metrics)


async def _pass_on(request: Request, exc: Exception) -> NoReturn:
    """Starlette would answer its HTTPException in plain text; ErrorAnswers does it instead."""
    if isinstance(exc, HTTPException) and exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette knows the methods of one route only, and a path may have several.
        raise MethodUnsupported(_allowed(request.scope))
    raise exc


def _allowed(scope: Scope) -> tuple[str, ...]:
    """The methods that some route takes for this path, in order."""
    return tuple(
        method
        for method in _METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in scope["app"].routes
        )
    )


def route_template(scope: Scope) -> str:
    """The path template of the route that took the request, never the path itself."""
    template = getattr(scope.get("route"), "path", _NO_ROUTE)
    return template if isinstance(template, str) else _NO_ROUTE


class _Exchange:
    """What the edge has seen of one request and its answer."""

    __slots__ = ("bytes_in", "bytes_out", "complete", "disconnected", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.complete = False
        self.disconnected = False


class RequestLine:
    """Writes one canonical line per request, when its answer has ended; the outermost layer.

    Fields: route (template), method, status (null: no answer began), duration_ms, bytes_in and
    bytes_out (bodies), ending, and where known drop_id, problem (slug) and fault (detail of a
    5xx). The ending is `complete`; `disconnected`: the client went away first; `cut`: we ended
    a begun answer; `cancelled`: the server stopped.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watching what goes by."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange()
        metrics = self.metrics

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                count = len(message.get("body", b""))
                exchange.bytes_in += count
                metrics.received(count)
            elif not exchange.complete:
                exchange.disconnected = True
            return message

        async def watched_send(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                return
            # "body" of http.response.body, "count" of http.response.zerocopysend.
            count = message.get("count") or len(message.get("body", b""))
            exchange.bytes_out += count
            metrics.sent(count)
            exchange.complete = not message.get("more_body", False)

        began = time.perf_counter()
        cancelled = False
        try:
            await self.app(scope, watched_receive, watched_send)
        except ClientDisconnect:
            exchange.disconnected = True
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            seconds = time.perf_counter() - began
            self._write(scope, exchange, seconds, cancelled=cancelled)

    def _write(self, scope: Scope, exchange: _Exchange, seconds: float, *, cancelled: bool) -> None:
        state = scope.get("state", {})
        route = route_template(scope)
        status = exchange.status
        past_receive = state.get("bytes_in", 0)
        self.metrics.received(past_receive)
        self.metrics.request(route, scope["method"], status, seconds)
        if "problem" in state:
            self.metrics.problem(state["problem"])
        if exchange.complete and not exchange.disconnected:
            ending = "complete"
        elif cancelled:
            ending = "cancelled"
        else:
            ending = "disconnected" if exchange.disconnected else "cut"
        fields = {
            "route": route,
            "method": method_label(scope["method"]),
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes_in": exchange.bytes_in + past_receive,
            "bytes_out": exchange.bytes_out,
            "ending": ending,
        }
        fields |= {key: state[key] for key in ("drop_id", "problem", "fault") if key in state}
        if (status or 0) >= _SERVER_ERROR or ending == "cut":
            log.warning("request_finished", **fields)
        elif route in _QUIET_ROUTES:
            log.debug("request_finished", **fields)
        else:
            log.info("request_finished", **fields)


class ResponseRules:
    """Gives every response the headers that keep links out of caches, referrers and frames.

    A response may bring a Content-Security-Policy of its own, nothing else of these. HSTS is
    the business of whoever ends TLS. An answer to HEAD keeps its head and loses its body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add to the head of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        is_head = scope["method"] == "HEAD"

        async def send_by_the_rules(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                headers = [pair for pair in given if pair[0].lower() not in _FORCED_NAMES]
                headers += _FORCED
                if not any(name.lower() == _CSP for name, _ in given):
                    headers.append((_CSP, _DEFAULT_CSP))
                message = {**message, "headers": headers}
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, receive, send_by_the_rules)


class ErrorAnswers:
    """Answers what endpoints raise; the innermost layer.

    - Nothing sent yet: the answer of `Problems`, with `Connection: close` if the request's body
      was not read to its end, so that nobody reads on for the rest of 10 GB.
    - An answer has begun: it stays incomplete, on which the server cuts the connection; no
      error is ever written into a body.
    - The client is gone: nobody is left to answer.
    """

    def __init__(self, app: ASGIApp, problems: Problems) -> None:
        self.app = app
        self.problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and stand by."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        unread = _announces_body(scope)
        began = False

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                unread = False
            return message

        async def watched_send(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                if unread and message["status"] >= _FIRST_ERROR:
                    headers = [*message.get("headers", ()), (b"connection", b"close")]
                    message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        except ClientDisconnect:
            raise
        except Exception as exc:  # noqa: BLE001  the last place where an error can be answered
            error = _root(exc)
            self._note(scope, error, began=began)
            if not began:
                response = await self.problems.answer(Request(scope, receive), error)
                await response(scope, watched_receive, watched_send)

    def _note(self, scope: Scope, exc: Exception, *, began: bool) -> None:
        problem = problem_of(exc)
        state = scope["state"]
        state["problem"] = problem.slug
        if isinstance(exc, OncedropError):
            if exc.drop_id is not None:
                state.setdefault("drop_id", exc.drop_id)
            if began or problem.status >= _SERVER_ERROR:
                state["fault"] = exc.detail
        if not problem.expected:
            log.error("request_crashed", route=route_template(scope), exc_info=exc)


def _root(exc: Exception) -> Exception:
    """The error itself: Starlette wraps an HTTPException raised after an answer began."""
    cause = exc.__cause__
    return cause if type(exc) is RuntimeError and isinstance(cause, HTTPException) else exc


def _announces_body(scope: Scope) -> bool:
    return any(
        (name == b"content-length" and value.strip(b" 0") != b"") or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )
