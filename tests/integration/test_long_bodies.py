"""Bodies read past event loop and parser (http/zero_copy.py), and the plain way beside it."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oncedrop_common.volume import Volume
from support.ingest_support import (
    read_blob,
    records,
    second_database,
    uploading,
    wait_until_clean,
)
from support.services import Service, files_in, running
from support.waiting import wait_until

MIB = 2**20
LIMIT = 6 * MIB
BODY = os.urandom(3 * MIB + 17)


@pytest.fixture(scope="module")
def module_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "volume"
    Volume(path).make_root()
    return path


@pytest.fixture(scope="module", params=["direct", "plain"])
def process(
    request: pytest.FixtureRequest,
    module_redis_url: str,
    module_volume: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("logs") / "ingest.log"
    zero_copy = int(request.param == "direct")
    settings = {"max_file_bytes": LIMIT, "zero_copy": zero_copy, "upload_lease_seconds": 2}
    with running("ingest", module_redis_url, module_volume, log, **settings) as service:
        yield service


@pytest.fixture
def ingest(process: Service, redis_url: str, module_volume: Path) -> Service:
    del redis_url
    for path in files_in(module_volume):
        path.unlink()
    return process


def head(length: int, *more: str, name: str = "x") -> str:
    lines = [f"PUT /{name} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more]
    return "\n".join(lines)


def bodies(volume: Path) -> set[bytes]:
    return {read_blob(volume, path.name)[1] for path in files_in(volume)}


@pytest.mark.parametrize("seed", range(4))
def test_a_body_in_pieces_of_any_size_and_pace_is_stored_as_it_is(
    ingest: Service, module_volume: Path, seed: int
) -> None:
    dice = random.Random(seed)
    with uploading(ingest.port, head(len(BODY))) as client:
        sent = 0
        while sent < len(BODY):
            count = dice.choice([1, 1000, 65_536, 300_000, 2_000_000])
            client.send(BODY[sent : sent + count])
            sent += count
            if dice.random() < 0.2:
                time.sleep(0.01)
        assert client.answer()[0] == 201
    assert bodies(module_volume) == {BODY}


def test_requests_behind_a_long_body_in_the_same_burst_are_answered_in_order(
    ingest: Service, module_volume: Path
) -> None:
    second, third = BODY[::-1], b"short"
    burst = b""
    for number, body in enumerate([BODY, second, third]):
        text = head(len(body), name=f"{number}").replace("\n", "\r\n")
        burst += text.encode() + b"\r\n\r\n" + body
    with socket.create_connection(("127.0.0.1", ingest.port), timeout=20) as client:
        client.sendall(burst)
        received = b""
        while received.count(b"/d/") < 6:  # in Location and in the body
            data = client.recv(65536)
            assert data, received
            received += data

    assert received.count(b"HTTP/1.1 201 ") == 3
    assert bodies(module_volume) == {BODY, second, third}


def test_one_connection_serves_one_long_body_after_the_other(
    ingest: Service, module_volume: Path
) -> None:
    with httpx.Client() as client:
        for number in range(3):
            body = bytes([number]) * (2 * MIB + number)
            assert client.put(f"{ingest.url}/x", content=body).status_code == 201
            assert client.get(f"{ingest.url}/healthz").status_code == 200
            assert body in bodies(module_volume)
        (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
        assert "Request Count: 6" in connection.info()


def test_the_client_that_waits_for_100_continue_gets_it(
    ingest: Service, module_volume: Path
) -> None:
    with uploading(ingest.port, head(len(BODY), "Expect: 100-continue")) as client:
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert client.answer()[0] == 201
    assert bodies(module_volume) == {BODY}


def test_a_form_with_a_long_file_and_fields_behind_it(ingest: Service, module_volume: Path) -> None:
    answer = httpx.post(
        f"{ingest.url}/upload",
        files=[("file", ("a.bin", BODY)), ("ttl", (None, "90s"))],
        headers={"Accept": "application/json"},
    )

    assert answer.status_code == 201, answer.text
    assert bodies(module_volume) == {BODY}


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str, how: str
) -> None:
    with uploading(ingest.port, head(len(BODY))) as client:
        client.send(BODY[: 2 * MIB])
        wait_until(lambda: files_in(module_volume), 10, what="the part")
        if how == "half-close":
            client.socket.shutdown(socket.SHUT_WR)
            client.socket.recv(1)
        elif how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until_clean(module_volume, redis_url)
    assert set(records(redis_url).values()) == {"gone"}


def test_a_client_that_falls_silent_in_the_middle_is_told_and_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    with uploading(ingest.port, head(len(BODY))) as client:
        client.send(BODY[: 2 * MIB])
        status, answer = client.answer()
        assert status == 400, answer
        # Nobody knows where another request would begin.
        assert b"connection: close" in answer.lower()
        assert client.socket.recv(1) == b""
    wait_until_clean(module_volume, redis_url)


def test_a_refusal_in_the_middle_is_read_by_a_client_that_still_sends(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    """A form is longer than its file, so only counting finds that this one is too long."""
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * (
        LIMIT + 3 * MIB
    )
    request = "\n".join(
        [
            "POST /upload HTTP/1.1",
            "Host: localhost",
            "Content-Type: multipart/form-data; boundary=b",
            f"Content-Length: {len(file) + 9}",
        ]
    )
    with uploading(ingest.port, request) as client:
        client.send(file + b"\r\n--b--\r\n")
        status, answer = client.answer()
        assert status == 413, answer
        assert b"connection: close" in answer.lower()
        assert client.socket.recv(1) == b""
    wait_until_clean(module_volume, redis_url)


def test_many_long_bodies_at_once_do_not_mix(ingest: Service, module_volume: Path) -> None:
    texts = [bytes([65 + n]) * (MIB + n) for n in range(12)]
    clients = [socket.create_connection(("127.0.0.1", ingest.port), timeout=20) for _ in texts]
    for client, text in zip(clients, texts, strict=True):
        client.sendall(head(len(text)).replace("\n", "\r\n").encode() + b"\r\n\r\n")
    for offset in range(0, MIB + 12, 100_000):
        for client, text in zip(clients, texts, strict=True):
            client.sendall(text[offset : offset + 100_000])
    for client in clients:
        assert client.recv(12).startswith(b"HTTP/1.1 201")
        client.close()

    assert bodies(module_volume) == set(texts)


def test_the_service_stops_while_a_long_body_comes_in(redis_url: str, tmp_path: Path) -> None:
    Volume(tmp_path / "volume").make_root()
    url = second_database(redis_url)
    with running("ingest", url, tmp_path / "volume", tmp_path / "log") as service:
        with uploading(service.port, head(len(BODY))) as client:
            client.send(BODY[:MIB])
            wait_until(lambda: files_in(tmp_path / "volume"), 10, what="the part")
            assert service.stop() == 0, service.logged()
        assert files_in(tmp_path / "volume") == []
