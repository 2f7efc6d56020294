"""Redis out of reach in the slow ways: requests are refused in bounded time (DESIGN section 10: 9).

The bounds are several times the setting: a busy machine must not fail them, a hang must.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oncedrop_common.errors import StoreUnavailable
from support.services import Service, free_port
from support.valkey import make_store
from support.waiting import wait_until

TIMEOUT_SECONDS = 1
CALL_BOUND_SECONDS = 2.5 * TIMEOUT_SECONDS
# One request asks Redis once, and once more to take back what it cannot know to be undone.
REQUEST_BOUND_SECONDS = 4 * TIMEOUT_SECONDS


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=["one server", "sentinels", "no such host"])
def away_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if request.param == "one server":
            yield f"redis://127.0.0.1:{stack.enter_context(silent_server())}/0"
        elif request.param == "sentinels":
            ports = [stack.enter_context(silent_server()) for _ in range(5)]
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
            yield f"redis+sentinel://{hosts}/oncedrop"
        else:
            yield "redis://oncedrop-test.invalid:6379/0"


@pytest.fixture(params=["ingest", "deliver", "janitor"])
def service(request: pytest.FixtureRequest, away_url: str, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "volume").mkdir()
    service = Service(
        request.param,
        away_url,
        tmp_path / "volume",
        tmp_path / "log",
        redis_timeout_seconds=TIMEOUT_SECONDS,
        admin_token="t" * 20,
    )
    try:
        wait_until(lambda: service.status_of("/healthz") == 200, 30, what="the service")
        yield service
    finally:
        assert service.stop() == 0, service.logged()


def test_a_request_is_refused_in_bounded_time_and_nothing_is_written(
    service: Service, tmp_path: Path
) -> None:
    method, path = {
        "ingest": ("PUT", "/report.pdf"),
        "deliver": ("GET", "/d/" + "A" * 22),
        "janitor": ("POST", "/sweep"),
    }[service.name]
    headers = {"Authorization": "Bearer " + "t" * 20}

    for _ in range(2):
        began = time.monotonic()
        answer = httpx.request(method, service.url + path, headers=headers, timeout=60)
        took = time.monotonic() - began

        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert took < REQUEST_BOUND_SECONDS
    assert service.status_of("/readyz") == 503
    assert list((tmp_path / "volume").iterdir()) == []
    assert "Traceback" not in service.logged()


async def test_each_kind_of_call_gives_up_in_time(away_url: str) -> None:
    store = make_store(away_url, timeout_seconds=TIMEOUT_SECONDS)
    calls = [
        store.ping(),
        store.now_ms(),
        store.pipeline([("PING",), ("PING",)]),
        store.server_warnings(),
        store.glance([]),
        *(store.call("PING") for _ in range(100)),
    ]
    try:
        began = time.monotonic()
        results = await asyncio.gather(*calls, return_exceptions=True)
        took = time.monotonic() - began
    finally:
        await store.close()

    assert {type(result) for result in results} == {StoreUnavailable}
    assert took < CALL_BOUND_SECONDS


async def test_a_late_answer_goes_to_nobody_else(redis_url: str) -> None:
    """A call given up in mid-answer must not leave its reply for the next one to read."""
    store = make_store(redis_url, timeout_seconds=0.3)
    try:
        await store.call("CLIENT", "PAUSE", 600, "ALL")
        with pytest.raises(StoreUnavailable):
            await store.call("ECHO", "late")
        await asyncio.sleep(0.5)
        answers = await asyncio.gather(*(store.call("ECHO", str(n)) for n in range(50)))
    finally:
        await store.close()

    assert answers == [str(n).encode() for n in range(50)]


def test_a_free_port_refuses_at_once(tmp_path: Path) -> None:
    service = Service("ingest", f"redis://127.0.0.1:{free_port()}/0", tmp_path, tmp_path / "log")
    try:
        wait_until(lambda: service.status_of("/healthz") == 200, 30, what="the service")
        began = time.monotonic()
        assert httpx.put(service.url + "/x", content=b"x", timeout=60).status_code == 503
        assert time.monotonic() - began < REQUEST_BOUND_SECONDS
    finally:
        assert service.stop() == 0
