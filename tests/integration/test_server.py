"""A service's process: how it starts, stops, and says why it can't."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from oncedrop_common.tokens import mint

BOUND_SECONDS = 20
PROGRAM = """
import asyncio, contextlib, sys, time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from oncedrop_common.errors import StoreUnavailable, UploadTooLarge
from oncedrop_common.http import server
from oncedrop_common.http.server import run_main
from oncedrop_common.metrics import Metrics
from oncedrop_common.middleware import install
from oncedrop_common.pages import Pages
from oncedrop_common.problems import Problems

HOW, PORT, HTTP = sys.argv[1], int(sys.argv[2]), sys.argv[3]

async def hello(request):
    return PlainTextResponse("hello")

async def refuse(request):
    async for _ in request.stream():
        raise UploadTooLarge(1)

async def break_off(request):
    async def body():
        yield b"some"
        raise StoreUnavailable("away")
    return StreamingResponse(body())

async def endless(request):
    async def body():
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)
    return StreamingResponse(body())

async def slow(request):
    await asyncio.sleep(0.5)
    return PlainTextResponse("slow")

async def cleans_up(request):
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.3)
        print("CLEANED", flush=True)

@contextlib.asynccontextmanager
async def lifespan(app):
    if HOW == "store_away":
        raise StoreUnavailable("Redis is\\n too old.")
    if HOW == "bug":
        raise KeyError("boom")
    yield
    print("STORE CLOSED", flush=True)

def create(settings):
    app = Starlette(routes=[
        Route("/hello/{token}", hello), Route("/refuse", refuse, methods=["PUT"]),
        Route("/break_off/{token}", break_off), Route("/slow", slow),
        Route("/endless", endless),
        Route("/cleans_up", cleans_up),
    ], lifespan=lifespan)
    install(app, Metrics("test"), Problems(Pages()))
    return app

if HOW == "impatient":
    server._UNTAKEN_SECONDS = 1
if HOW == "hurry":
    server._GRACEFUL_SECONDS = 1
server.protocol_for = lambda settings: HTTP
run_main("test", create, lambda settings: PORT)
"""


@contextmanager
def running(
    tmp_path: Path, how: str = "well", http: str = "httptools", port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A serving process and its port; killed at the end if it is still there."""
    process = start(tmp_path, how, http, port)
    try:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["event"] == "port_taken"
        yield process, line["port"]
    finally:
        process.kill()
        process.communicate()


def start(
    tmp_path: Path,
    how: str,
    http: str = "httptools",
    port: int = 0,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    program = tmp_path / "service.py"
    program.write_text(textwrap.dedent(PROGRAM))
    return subprocess.Popen(
        [sys.executable, str(program), how, str(port), http],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


@contextmanager
def asked(port: int, path: str) -> Iterator[http.client.HTTPConnection]:
    """A connection on which this path was asked for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_SECONDS)
    with closing(connection):
        connection.request("GET", path)
        yield connection


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> list[dict[str, Any]]:
    """Stop it in time and read its log lines; what is not JSON becomes `{"text": …}`."""
    process.send_signal(number)
    out, err = process.communicate(timeout=BOUND_SECONDS)
    assert err == ""
    return [
        json.loads(line) if line.startswith("{") else {"text": line} for line in out.splitlines()
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_a_stop_that_was_asked_for_is_clean(tmp_path: Path, protocol: str, number: int) -> None:
    token = mint()
    with running(tmp_path, http=protocol) as (process, port):
        with asked(port, f"/hello/{token}?{token}") as connection:
            response = connection.getresponse()
            assert response.read() == b"hello"
            assert response.getheader("server") is None
            assert response.getheader("date")
        lines = stop(process, number)
        assert process.returncode == 0
    assert lines[-1]["event"] == "service_stopped"
    (line,) = [line for line in lines if line.get("event") == "request_finished"]
    assert (line["route"], line["ending"]) == ("/hello/{token}", "complete")
    assert token not in json.dumps(lines)


@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_an_error_after_the_first_byte_cuts_the_connection(tmp_path: Path, protocol: str) -> None:
    token = mint()
    with running(tmp_path, http=protocol) as (process, port):
        with (
            asked(port, f"/break_off/{token}") as connection,
            connection.getresponse() as response,
            pytest.raises(http.client.IncompleteRead) as caught,
        ):
            response.read()
        assert caught.value.partial == b"some"
        lines = stop(process)
    assert [line["ending"] for line in lines if line.get("event") == "request_finished"] == ["cut"]
    assert "returned without completing" not in json.dumps(lines)
    assert token not in json.dumps(lines)


@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_a_refused_upload_is_not_read_to_its_end(tmp_path: Path, protocol: str) -> None:
    with running(tmp_path, http=protocol) as (_, port):
        with socket.create_connection(("127.0.0.1", port), BOUND_SECONDS) as client:
            client.sendall(
                b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\nx"
            )
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head.lower()
        assert json.loads(body)["limit"] == 1


def test_a_running_request_may_end_before_the_stop(tmp_path: Path) -> None:
    with running(tmp_path) as (process, port):
        with asked(port, "/slow") as connection:
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert connection.getresponse().read() == b"slow"
        process.communicate(timeout=BOUND_SECONDS)
        assert process.returncode == 0


def test_a_cancelled_request_cleans_up_before_the_store_is_closed(tmp_path: Path) -> None:
    with running(tmp_path, "hurry") as (process, port):
        with asked(port, "/cleans_up"):
            time.sleep(0.2)
            lines = stop(process)
        assert process.returncode == 0
    assert [line["text"] for line in lines if "text" in line] == ["CLEANED", "STORE CLOSED"]
    assert [line["ending"] for line in lines if line.get("event") == "request_finished"] == [
        "cancelled"
    ]
    assert "exception" not in json.dumps(lines)


def test_a_stop_before_the_start_is_complete_is_not_lost(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        stop(process)
        assert process.returncode == 0


def test_a_client_that_takes_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel answers, so that it looks alive, and has no room."""
    monkeypatch.setenv("ONCEDROP_CLAIM_LEASE_SECONDS", "1")
    with (
        running(tmp_path, "impatient") as (process, port),
        socket.create_connection(("127.0.0.1", port), BOUND_SECONDS) as client,
    ):
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        line = next(line for line in lines if line["event"] == "request_finished")
    assert line["ending"] == "disconnected"


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path) as (_, port):
        second = start(tmp_path, "well", port=port)
        out, err = second.communicate(timeout=BOUND_SECONDS)
    assert second.returncode == 2
    assert err == f"oncedrop test: 127.0.0.1 port {port} is already in use\n"
    assert out == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ONCEDROP_MAX_FIEL_BYTES", "1", "unknown setting: ONCEDROP_MAX_FIEL_BYTES"),
        ("ONCEDROP_INGEST_PORT", "99999", "ONCEDROP_INGEST_PORT"),
        ("ONCEDROP_HOST", "203.0.113.7", "cannot listen on 203.0.113.7 port 0"),
        ("ONCEDROP_HOST", "no.such.host.invalid", "cannot listen on no.such.host.invalid"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, name: str, value: str, said: str) -> None:
    process = start(tmp_path, "well", env={name: value})
    out, err = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 2
    assert err.startswith("oncedrop test: ")
    assert said in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_start_up_that_fails_on_purpose_is_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, "store_away")
    out, err = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 2
    assert err == "oncedrop test: Redis is too old.\n"
    assert "Traceback" not in out


def test_a_start_up_that_fails_by_a_bug_is_logged_with_its_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "bug")
    out, err = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 1
    assert err == ""
    (line,) = [line for line in map(json.loads, out.splitlines()) if "exception" in line]
    assert line["event"] == "service_failed"
    assert "KeyError: 'boom'" in line["exception"]
