"""Running an application: uvicorn, its sockets and its signals."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Literal

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncedrop_common import crash_points
from oncedrop_common.errors import ConfigurationError, OncedropError
from oncedrop_common.http.workers import run_workers
from oncedrop_common.http.zero_copy import protocol_for
from oncedrop_common.logs import configure_logging
from oncedrop_common.metrics import count_in, count_out
from oncedrop_common.settings import Settings, load_settings

HttpProtocol = type[asyncio.Protocol] | Literal["h11", "httptools"]

_BACKLOG = 2048
# A client that takes nothing for so long has gone, or does not want it; any lease is over by then.
_UNTAKEN_SECONDS = 600
# Longer than a gateway keeps its idle connections (nginx: 60), so that the gateway is the one
# who closes them: else a request can meet a connection that is being closed.
_KEEP_ALIVE_SECONDS = 75
_GRACEFUL_SECONDS = 10
_CLEAN_UP_SECONDS = 5
_GC_OBJECTS = 10_000
_EXIT_UNUSABLE = 2

log = structlog.get_logger()


def _one(_settings: Settings) -> int:
    return 1


def run_main(
    service: str,
    create: Callable[[Settings], ASGIApp],
    port: Callable[[Settings], int],
    workers: Callable[[Settings], int] = _one,
) -> None:
    """What a service's `__main__` does: settings, logging, application, server.

    Args:
        service: Its name, in logs.
        create: Builds the application; connects to nothing yet.
        port: Which of the settings is its port.
        workers: Which of the settings is the number of its processes.

    Raises:
        SystemExit: With 2, after one line on stderr, when the process cannot start like this;
            with 1, after a traceback in the log, when starting or stopping failed otherwise.
    """
    try:
        settings = load_settings()
        configure_logging(service, settings.log_level)
        if settings.crash_at is not None:
            crash_points.arm(crash_points.CrashAt.parse(settings.crash_at))
            log.warning("crash_point_armed", name=settings.crash_at)
        # A second instance fails before it has touched anything.
        sockets = _listen(settings.host, port(settings), settings.claim_lease_seconds)
        if workers(settings) > 1:
            sys.exit(_serve_together(service, create, settings, sockets, workers(settings)))
        serve(create(settings), settings, sockets, http=protocol_for(settings))
    except OncedropError as exc:
        _say_why(service, exc)
        sys.exit(_EXIT_UNUSABLE)


def _say_why(service: str, exc: OncedropError) -> None:
    sys.stderr.write(f"oncedrop {service}: {' '.join(exc.detail.split())}\n")


def _serve_together(
    service: str,
    create: Callable[[Settings], ASGIApp],
    settings: Settings,
    sockets: list[socket.socket],
    count: int,
) -> int:
    """Serve with several processes; the exit code."""

    def work() -> None:
        count_in(folder)
        try:
            serve(create(settings), settings, sockets, http=protocol_for(settings))
        except OncedropError as exc:
            _say_why(service, exc)
            sys.exit(_EXIT_UNUSABLE)

    with tempfile.TemporaryDirectory(prefix="oncedrop-metrics-") as folder:
        return run_workers(count, work, partial(count_out, folder))


def serve(
    app: ASGIApp,
    settings: Settings,
    sockets: list[socket.socket],
    *,
    http: HttpProtocol = "httptools",
) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests end, for 10 seconds at most.

    Raises:
        OncedropError: The application's start-up raised it.
        SystemExit: With 1 when start-up or shutdown failed otherwise; it has been logged.
    """
    lifespan = _Lifespan(app)
    server = uvicorn.Server(
        uvicorn.Config(
            lifespan,
            loop="uvloop",
            http=http,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            workers=1,
            proxy_headers=True,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            server_header=False,
            date_header=True,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        )
    )
    lifespan.server = server

    # uvicorn raises the signals it was stopped by once more when it has ended, for whoever had
    # been listening: for us that is this, so a stop that was asked for ends with exit code 0.
    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # A worker begins with them blocked, so that none is lost before there is somebody to take it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    log.info("port_taken", host=settings.host, port=sockets[0].getsockname()[1])
    # What is there now stays, and a request leaves few cycles behind: looking for them after every
    # 700 objects took a twentieth of a busy server's time.
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    try:
        server.run(sockets=sockets)
    except SystemExit:  # how uvicorn ends when start-up failed
        if lifespan.failure is None:
            raise
    failure = lifespan.failure
    if isinstance(failure, OncedropError):
        raise failure
    if failure is not None:
        log.error("service_failed", exc_info=failure)
        sys.exit(1)
    log.info("service_stopped")


def _listen(host: str, port: int, untaken_seconds: int) -> list[socket.socket]:
    """Listening sockets for every address that host stands for.

    Args:
        host: A name or an address.
        port: 0: one that is free.
        untaken_seconds: How long a client must at least be given to take what was sent.
    """
    where = f"{host} port {port}"
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as exc:
                # "localhost" may name an IPv6 address on a machine that has none.
                if exc.errno != errno.EADDRNOTAVAIL or len(found) == 1:
                    raise
                sockets.remove(sock)
                sock.close()
                continue
            if sys.platform == "linux":
                # Connections take it over. The kernel ends also who answers and takes nothing.
                untaken_ms = max(_UNTAKEN_SECONDS, untaken_seconds) * 1000
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, untaken_ms)
            # Only a listening socket keeps the port from everyone else.
            sock.listen(_BACKLOG)
    except OSError as exc:
        for sock in sockets:
            sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"{where} is already in use") from exc
        reason = exc.strerror or os.strerror(exc.errno or 0)
        raise ConfigurationError(f"cannot listen on {where}: {reason}") from exc
    if not sockets:
        raise ConfigurationError(f"cannot listen on {where}: no such address here")
    return sockets


class _Lifespan:
    """Keeps what start-up or shutdown raised, and shutdown until requests have cleaned up.

    Attributes:
        server: Whose requests are waited for.
        failure: What the application's lifespan raised.
    """

    server: uvicorn.Server

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            # For answers without an end of their own.
            scope.setdefault("state", {})["stopping"] = lambda: self.server.should_exit
            await self.app(scope, receive, send)
            return

        async def patient_receive() -> Message:
            message = await receive()
            tasks = set(self.server.server_state.tasks)
            if message["type"] == "lifespan.shutdown" and tasks:
                # Requests that were just cancelled still remove what they left half done; what
                # they need for that goes away with the application's shutdown.
                await asyncio.wait(tasks, timeout=_CLEAN_UP_SECONDS)
            return message

        async def quiet_send(message: Message) -> None:
            # The message of a failure is a traceback; serve() tells it in its own way.
            if message["type"].endswith(".failed"):
                message = {**message, "message": ""}
            await send(message)

        try:
            await self.app(scope, patient_receive, quiet_send)
        except Exception as exc:
            self.failure = exc
            raise
