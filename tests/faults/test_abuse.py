"""Clients that want to keep a service from serving: it stays up, within its memory, and serves."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from oncedrop_common.http.bounded import HEAD_BYTES, HEAD_FIELDS, PIPELINED_MOST
from support.abuse import MIB, answered, connect, flood, many_files, statuses, unharmed
from support.ingest_support import records, uploading
from support.long_form import LONG
from support.programs import needs
from support.services import Service
from support.stack import Stack, running_stack
from support.waiting import wait_until

IDLE = 1000
HEAD_SECONDS = 5
CLAIMS = 10_000
SLOW_SECONDS = 30 if LONG else 8
SERVED = re.compile(r"service available:\s+(\w+)")
FORM = "POST /upload HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=b"
FILE_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(
        tmp_path_factory.mktemp("abuse"), upload_lease_seconds=5, head_timeout_seconds=HEAD_SECONDS
    ) as stack:
        yield stack


@pytest.fixture(params=["ingest", "deliver"])
def service(stack: Stack, request: pytest.FixtureRequest) -> Service:
    found: Service = getattr(stack, request.param)
    return found


# Slow clients.


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["-H", "-i", "1"], id="heads"),
        pytest.param(["-B", "-i", "1", "-s", "100000"], id="bodies"),
        pytest.param(["-X", "-w", "1", "-y", "10", "-n", "1", "-z", "1", "-k", "3"], id="reading"),
    ],
)
def test_slow_clients_are_no_trouble_to_others(stack: Stack, how: list[str]) -> None:
    """Slowhttptest's own probe, a plain request meanwhile, must be answered too."""
    needs("slowhttptest")
    path = {"-H": "/", "-B": "/upload", "-X": "/static/oncedrop.css"}[how[0]]
    length = ["-l", str(SLOW_SECONDS), "-c", "500", "-r", "250", "-p", "3"]
    with unharmed(stack.ingest), many_files():
        ended = subprocess.run(
            ["slowhttptest", *how, *length, "-u", stack.ingest.url + path],
            capture_output=True,
            text=True,
            timeout=SLOW_SECONDS + 60,
            check=False,
        )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout)
    told = SERVED.findall(plain)
    assert told, plain
    assert set(told) == {"YES"}, plain


def test_a_thousand_connections_without_a_request_end_after_a_while(service: Service) -> None:
    """Silent, with half a head, with line breaks, one byte at a time: none stays for long."""
    process = psutil.Process(service.process.pid)
    beginnings = [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n", b"G", b"GET /"]
    began = time.monotonic()
    with many_files(), contextlib.ExitStack() as stack:
        with unharmed(service):
            clients = [stack.enter_context(connect(service.port)) for _ in range(IDLE)]
            for client, beginning in zip(clients, itertools.cycle(beginnings), strict=False):
                client.sendall(beginning)
            wait_until(lambda: process.num_fds() >= IDLE, 10, what="all of them")
            slow = clients[1]
            ended_after = None
            while time.monotonic() - began < HEAD_SECONDS + 5:
                # Progress of a kind, which counts for nothing.
                try:
                    slow.sendall(b"x")
                except ConnectionError:
                    ended_after = ended_after or time.monotonic() - began
                time.sleep(1)
        heads = {answered(client)[:12] for client in clients}
        wait_until(lambda: process.num_fds() < 100, 10, what="all of them to be closed")
    assert ended_after is not None
    assert ended_after > HEAD_SECONDS - 1
    assert heads <= {b"", b"HTTP/1.1 408"}
    assert b"HTTP/1.1 408" in heads


def test_forms_that_do_not_come_are_not_waited_for(stack: Stack) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        clients = []
        for service, path in (
            (stack.deliver, "/d/AAAAAAAAAAAAAAAAAAAAAA"),
            (stack.janitor, "/login"),
        ):
            head = f"POST {path} HTTP/1.1\nHost: x\nContent-Length: 1000\nContent-Type: "
            form = uploading(service.port, head + "application/x-www-form-urlencoded")
            clients.append(opened.enter_context(form))
        for client in clients:
            client.send(b"a")
        for client in clients:
            client.socket.settimeout(45)
            assert client.answer()[0] == 400
    assert time.monotonic() - began < 40


# Many connections.


class Confined(Service):
    """A service that may open few files."""

    open_files = 428

    def _spawn(self, settings: Mapping[str, str | int]) -> subprocess.Popen[bytes]:
        assert not settings
        limit = f"--nofile={self.open_files}:{self.open_files}"
        with self.log.open("ab") as output:
            return subprocess.Popen(
                ["prlimit", limit, sys.executable, "-m", f"oncedrop_{self.name}"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


@pytest.fixture
def confined(stack: Stack, tmp_path: Path) -> Iterator[Confined]:
    """Room for a hundred connections."""
    service = Confined("ingest", stack.redis.url, stack.volume_dir, tmp_path / "log")
    try:
        service.wait_ready()
        yield service
    finally:
        service.stop()


def test_who_only_waits_gives_way_where_there_is_no_room(confined: Confined) -> None:
    process = psutil.Process(confined.process.pid)
    with contextlib.ExitStack() as stack, unharmed(confined):
        for _ in range(6):
            for _ in range(100):
                stack.enter_context(connect(confined.port))
            time.sleep(0.3)
            assert process.num_fds() < Confined.open_files / 2
    # One line in ten seconds, however many there are.
    assert 1 <= confined.logged().count("connections_full") <= 3


def test_who_has_a_request_is_not_thrown_out_for_who_comes(confined: Confined) -> None:
    head = "PUT /x HTTP/1.1\nHost: x\nContent-Length: 4"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(uploading(confined.port, head)) for _ in range(100)]
        for client in clients:
            client.send(b"on")
        wait_until(lambda: len(records_of(confined)) >= 100, 20, what="a hundred uploads")

        with connect(confined.port) as newcomer:
            newcomer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            refused = answered(newcomer)
        assert statuses(refused) == [503]
        assert b"retry-after: 5" in refused
        assert b"application/problem+json" in refused

        for client in clients:
            client.send(b"ce")
        assert {client.answer()[0] for client in clients} == {201}
    assert confined.status_of("/healthz") == 200


def records_of(service: Confined) -> list[str]:
    return [line for line in service.logged().splitlines() if '"upload_opened"' in line]


# Guessing.


def test_ten_thousand_claims_of_unknown_tokens_leave_no_trace(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    drop = stack.upload(b"once")
    before = records(stack.redis.url)
    batch = PIPELINED_MOST
    got = 0
    with unharmed(stack.deliver), connect(stack.deliver.port) as client:
        began = time.monotonic()
        for number in range(0, CLAIMS, batch):
            tokens = (f"{number + offset:021d}A" for offset in range(batch))
            asked = "".join(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\n\r\n" for token in tokens)
            client.sendall(asked.encode())
            received = b""
            while received.count(b"link_unknown") < batch:
                data = client.recv(65536)
                assert data, received
                received += data
            got += statuses(received).count(404)
        rate = got / (time.monotonic() - began)
    assert got >= CLAIMS
    assert records(stack.redis.url) == before
    assert httpx.get(drop.url).content == b"once"
    record_property("claims_per_second", round(rate))


def test_passwords_guessed_in_parallel_are_no_trouble_to_others(stack: Stack) -> None:
    """No guess slips past the count, and the memory that verifying takes is bounded."""
    drops = [stack.upload(b"once", password="right") for _ in range(20)]
    # 19 MiB each; a thread's arena keeps what it had once.
    bounds = unharmed(stack.deliver, grows_most=128 * MIB, waits_most=10)
    with bounds, ThreadPoolExecutor(100) as pool:

        def guess(number: int) -> tuple[int, int]:
            drop = drops[number % len(drops)]
            answer = httpx.get(drop.url, auth=("", f"guess {number}"), timeout=60)
            return number % len(drops), answer.status_code

        answers = list(pool.map(guess, range(400)))
    for which in range(len(drops)):
        got = sorted(status for number, status in answers if number == which)
        assert got == [401] * 5 + [429] * 15


# Forms.


FORMS = {
    # Bytes around and in front of a part, without an end.
    "endless preamble": (b"", b"x" * 65536),
    "endless lines before the first boundary": (b"", b"\r\n" * 32768),
    "endless name of a part header": (b"--b\r\n", b"X" * 65536),
    "endless value of a part header": (b"--b\r\nX: ", b"x" * 65536),
    "endless part headers": (b"--b\r\n", b"X: y\r\n" * 8192),
    "endless file name": (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="',
        b"x" * 65536,
    ),
    "giant field": (b'--b\r\nContent-Disposition: form-data; name="ttl"\r\n\r\n', b"1" * 65536),
    "endless empty parts": (b"", b'--b\r\nContent-Disposition: form-data; name="ttl"\r\n\r\n\r\n'),
    "endless empty files": (b"", FILE_PART + b"\r\n\r\n"),
    "endless space after a boundary": (b"--b", b" " * 65536),
    "endless epilogue": (FILE_PART + b"\r\nx\r\n--b--\r\n", b"x" * 65536),
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("framing", ["chunked", "announced"])
def test_a_form_without_an_end_is_refused_early(stack: Stack, kind: str, framing: str) -> None:
    start, piece = FORMS[kind]
    before = set(stack.files())
    if framing == "chunked":
        head = f"{FORM}\nTransfer-Encoding: chunked"
        start = b"%x\r\n%b\r\n" % (len(start), start) if start else b""
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    else:
        head = f"{FORM}\nContent-Length: {2**30}"
    with unharmed(stack.ingest), uploading(stack.ingest.port, head) as client:
        client.send(start)
        sent, received = flood(client.socket, piece, 256 * MIB)
    assert statuses(received) == [400], received[:500]
    # What is refused is read on for a moment, so that the answer is not lost on the way.
    assert sent < 64 * MIB
    wait_until(lambda: set(stack.files()) <= before, 10, what="nothing to be left")


def test_a_form_in_a_form_is_a_files_bytes(stack: Stack) -> None:
    """Nested multiparts (RFC 2046 section 5.1) are not opened: no depth can be too deep."""
    inner = b"".join(
        b"--i%d\r\nContent-Type: multipart/mixed; boundary=i%d\r\n\r\n" % (depth, depth + 1)
        for depth in range(20_000)
    )
    body = FILE_PART + b"Content-Type: multipart/mixed; boundary=i0\r\n\r\n" + inner
    body += b"\r\n--b--\r\n"
    with unharmed(stack.ingest):
        answer = httpx.post(
            f"{stack.ingest.url}/upload",
            content=body,
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert answer.status_code == 201
    assert answer.json()["size"] == len(inner)


# Heads, and what is neither head nor body.


HEADS = {
    "a flood of fields": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n" * 8192),
    "an endless field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"x" * 65536),
    "an endless field name": (b"GET / HTTP/1.1\r\nHost: x\r\nX", b"x" * 65536),
    "an endless target": (b"GET /", b"x" * 65536),
    "an endless query": (b"GET /?", b"x=y&" * 16384),
    "endless lines before the request": (b"", b"\r\n" * 32768),
    "endless trailers": (
        b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n" * 8192,
    ),
    "an endless trailer": (
        b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"x" * 65536,
    ),
    "an endless chunk extension": (
        b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
        b"x" * 65536,
    ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_without_an_end_is_refused_early(stack: Stack, kind: str) -> None:
    start, piece = HEADS[kind]
    with unharmed(stack.ingest, grows_most=16 * MIB), connect(stack.ingest.port) as client:
        client.sendall(start)
        _, received = flood(client, piece, 256 * MIB)
    # A client that sends on and on may have lost the answer to the reset.
    assert statuses(received) in ([431], []), received[:500]


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        ("/" + "x" * (HEAD_BYTES - 2000), 1, 404),
        ("/" + "x" * (HEAD_BYTES + 1), 1, 431),
        ("/", HEAD_FIELDS, 200),
        ("/", HEAD_FIELDS + 1, 431),
    ],
)
def test_heads_up_to_the_limits_are_read(
    service: Service, target: str, fields: int, status: int
) -> None:
    if service.name == "deliver" and status == 200:
        target = "/healthz"
    lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"X-{number}: y" for number in range(fields - 2)]
    with connect(service.port) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        received = answered(client)
    assert statuses(received) == [status]
    if status == 431:
        assert b"application/problem+json" in received
        assert b"cache-control: no-store" in received


# Pipelines.


def test_a_pipeline_has_an_end(service: Service) -> None:
    """Each answer used to let in as many more requests as one read has room for."""
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with unharmed(service, grows_most=16 * MIB), connect(service.port) as client:
        _, received = flood(client, one * 1000, 64 * MIB)
    got = statuses(received)
    assert set(got) == {200}
    assert len(got) <= 2 * PIPELINED_MOST


def test_a_full_pipeline_is_answered_in_order(service: Service) -> None:
    asked = b"".join(
        b"GET /static/%d HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" % n
        for n in range(PIPELINED_MOST // 2)
    )
    with connect(service.port) as client:
        for _ in range(3):
            client.sendall(asked)
            received = b""
            while received.count(b'"alive":true') < PIPELINED_MOST // 2:
                received += client.recv(65536)
            assert statuses(received) == [404, 200] * (PIPELINED_MOST // 2)


# What cannot be understood.


def test_random_bytes_are_refused_and_no_more(service: Service) -> None:
    with unharmed(service):
        for _ in range(300):
            with connect(service.port) as client:
                client.sendall(os.urandom(2000))
                client.shutdown(socket.SHUT_WR)
                assert statuses(answered(client)) in ([400], [505])


def test_many_at_once_who_send_nonsense_are_no_trouble(service: Service) -> None:
    def nonsense() -> None:
        for _ in range(100):
            with connect(service.port) as client:
                client.sendall(b"NONSENSE\r\n\r\n")
                answered(client)

    with unharmed(service):
        threads = [threading.Thread(target=nonsense) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
