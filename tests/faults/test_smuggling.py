"""Requests that two parsers could read in two ways (RFC 9112 section 11.2), or that are a body.

No request is ever made of bytes that are another's body. What would do harm is put there: a request
that takes the drop, deletes it by its owner's key, or has the janitor delete it. Whatever is
answered, the drop must still be waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from support.abuse import MIB, answered, connect, statuses
from support.gateway import running_gateway
from support.long_form import DICE, LONG
from support.programs import needs
from support.stack import ADMIN_TOKEN, Stack, Uploaded, running_stack

CRLF = "\r\n"
LIMIT = 4 * MIB
LONG_BODY = 3 * MIB
POST = "POST /d/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"
# {poison} is the harmful request, {length} the number of its bytes.
REFUSED = {
    "both lengths": POST
    + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{poison}",
    "both lengths, the other way": (
        POST + "Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{poison}"
    ),
    "two lengths": POST + "Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{poison}",
    "the same length twice": POST + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n{poison}",
    "a list of lengths": POST + "Content-Length: 0, {length}\r\n\r\n{poison}",
    "a length with a plus": POST + "Content-Length: +0\r\n\r\n{poison}",
    "a length below zero": POST + "Content-Length: -1\r\n\r\n{poison}",
    "a hexadecimal length": POST + "Content-Length: 0x0\r\n\r\n{poison}",
    "a length with an underscore": POST + "Content-Length: 0_0\r\n\r\n{poison}",
    "an empty length": POST + "Content-Length:\r\n\r\n{poison}",
    "a length that overflows": POST + "Content-Length: 18446744073709551616\r\n\r\n{poison}",
    "a length beyond a space": POST + "Content-Length : 0\r\n\r\n{poison}",
    "a coding beyond a space": POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{poison}",
    "a coding nobody knows": POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{poison}",
    "a coding that is none": POST + "Transfer-Encoding: identity\r\n\r\n{poison}",
    "two codings": POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{poison}",
    "chunked twice": (
        POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{poison}"
    ),
    "chunked and then not": POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{poison}",
    "a coding after a vertical tab": POST
    + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{poison}",
    "a coding in an old version": (
        "POST /d/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{poison}"
    ),
    "a folded field": POST + "X: y\r\n Content-Length: 0\r\n\r\n{poison}",
    "a folded coding": POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{poison}",
    "a bare line feed in the head": POST + "X: y\nContent-Length: 0\r\n\r\n{poison}",
    "a bare carriage return in the head": POST + "X: y\rContent-Length: 0\r\n\r\n{poison}",
    "a zero in a field": POST + "X: a\x00b\r\n\r\n{poison}",
    "a field without a colon": POST + "Content-Length\r\n\r\n{poison}",
    "space before the first field": (
        "POST /d/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n Host: x\r\n\r\n{poison}"
    ),
    "no host": "POST /d/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n\r\n{poison}",
    "two hosts": POST + "Host: y\r\n\r\n{poison}",
    "no version": "GET /d/AAAAAAAAAAAAAAAAAAAAAA\r\n\r\n{poison}",
    "another version": "GET /d/AAAAAAAAAAAAAAAAAAAAAA HTTP/2.0\r\nHost: x\r\n\r\n{poison}",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{poison}",
    "a chunk's size that overflows": CHUNKED + "1000000000000000a\r\n{poison}",
    "a chunk's size with a sign": CHUNKED + "-1\r\n{poison}",
    "a chunk's size with 0x": CHUNKED + "0x0\r\n\r\n{poison}",
    "a chunk's size with a space": CHUNKED + "0 \r\n\r\n{poison}",
    "a chunk's line with a bare line feed": CHUNKED + "0\n\r\n{poison}",
    "a chunk's extension with a bare line feed": CHUNKED + "0;x\n\r\n\r\n{poison}",
    "a chunk longer than its size": CHUNKED + "1\r\nabc\r\n0\r\n\r\n{poison}",
    "a length in a trailer": CHUNKED + "0\r\nContent-Length: {length}\r\n\r\n{poison}",
}
# nginx reads these leniently, as it may (RFC 9112 section 2.2), and passes on what it read in a
# form of its own: for it, and the service behind it, the harmful request is a second one.
READ_BY_NGINX = {
    "a bare line feed in the head",
    "a chunk's size with a space",
    "a chunk's line with a bare line feed",
    "a chunk's extension with a bare line feed",
    "a length in a trailer",
}
# The harmful request is a body here, by every right; behind it comes another one.
BODIES = {
    "of a POST": POST + "Content-Length: {length}\r\n\r\n{poison}",
    "of a GET": "GET /robots.txt HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{poison}",
    "of a HEAD": "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{poison}",
    "of an OPTIONS": "OPTIONS / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{poison}",
    "of a target with an authority": (
        "GET http://y/robots.txt HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{poison}"
    ),
    "of an upgrade": (
        "GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        "Content-Length: {length}\r\n\r\n{poison}"
    ),
    "in a chunk": CHUNKED + "{hex}\r\n{poison}\r\n0\r\n\r\n",
    "in a chunk with an extension": CHUNKED + '{hex};a="b\\"c"\r\n{poison}\r\n0\r\n\r\n',
    "before a trailer": CHUNKED + "{hex}\r\n{poison}\r\n0\r\nHost: y\r\nX: z\r\n\r\n",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("smuggling")
    with running_stack(folder, max_file_bytes=LIMIT, upload_lease_seconds=3) as stack:
        yield stack
        for service in stack.services:
            assert "request_crashed" not in service.logged()


@pytest.fixture(scope="module")
def gateway(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if shutil.which("nginx") is None:
        yield 0
        return
    with running_gateway(stack, tmp_path_factory.mktemp("gateway") / "nginx") as port:
        yield port


@dataclass
class Victim:
    """A drop that must stay, and the requests that would end it."""

    stack: Stack
    drop: Uploaded

    def poison(self, service: str) -> str:
        """What does harm at this service; at the gateway taking is the worst."""
        path, authorization = httpx.URL(self.drop.url).path, ""
        method = "GET"
        if service == "ingest":
            method, path = "DELETE", httpx.URL(self.drop.owner_url).path
        elif service == "janitor":
            method, path = "DELETE", f"/drops/{self.drop.id}"
            authorization = f"Authorization: Bearer {ADMIN_TOKEN}\r\n"
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"

    def require_waiting(self) -> None:
        """Nothing has happened to it."""
        assert httpx.get(self.drop.owner_url).json()["state"] == "waiting"


@pytest.fixture
def victim(stack: Stack) -> Victim:
    return Victim(stack, stack.upload(b"to be taken once"))


@pytest.fixture(params=["ingest", "deliver", "janitor", "gateway"])
def where(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def port(where: str, stack: Stack, gateway: int) -> int:
    if where == "gateway":
        needs("nginx")
        return gateway
    found: int = getattr(stack, where).port
    return found


def filled(shape: str, poison: str) -> bytes:
    size = len(poison)
    text = shape.replace("{poison}", poison).replace("{length}", str(size))
    return text.replace("{hex}", f"{size:x}").encode("latin-1")


def asked(port: int, request: bytes, *, head_apart: bool = False) -> bytes:
    """What is answered until the server closes, or has nothing to say for a moment."""
    with connect(port) as client:
        if head_apart:
            head, _, request = request.partition(b"\r\n\r\n")
            client.sendall(head + b"\r\n\r\n")
            time.sleep(0.1)
        client.sendall(request)
        client.settimeout(0.5)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := client.recv(65536):
                received += data
    return received


def test_the_harmful_request_does_harm(victim: Victim, where: str, port: int) -> None:
    """Else nothing here would prove anything."""
    asked(port, victim.poison(where).encode())
    assert httpx.get(victim.drop.owner_url).json()["state"] == "gone"


@pytest.mark.parametrize("shape", REFUSED)
def test_what_could_be_read_in_two_ways_ends_the_connection(
    victim: Victim, where: str, port: int, shape: str
) -> None:
    received = asked(port, filled(REFUSED[shape], victim.poison(where)))
    if where == "gateway" and shape in READ_BY_NGINX:
        assert len(statuses(received)) <= 2
        return
    victim.require_waiting()
    got = statuses(received)
    # nginx answers what is broken in a body with the answer of the service.
    allowed = {400, 501, 505} if where != "gateway" else {400, 404, 405, 501, 503, 505}
    assert len(got) <= 1, received
    assert set(got) <= allowed, received


@pytest.mark.parametrize("head_apart", [False, True], ids=["at once", "head apart"])
@pytest.mark.parametrize("shape", BODIES)
def test_a_request_in_a_body_is_a_body(
    victim: Victim, where: str, port: int, shape: str, *, head_apart: bool
) -> None:
    behind = "GET /static/oncedrop.svg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    request = filled(BODIES[shape] + behind, victim.poison(where))
    received = asked(port, request, head_apart=head_apart)
    victim.require_waiting()
    got = statuses(received)
    # The last is that of the request behind, or the connection was closed before.
    assert len(got) in (1, 2), received
    if len(got) == 2:
        assert got[1] == 200
        assert received.endswith(b"</svg>\n"), received


# Long bodies of known length, which are read past the parser (http/zero_copy.py).


Sender = Callable[[socket.socket, bytes], None]


def at_once(client: socket.socket, data: bytes) -> None:
    client.sendall(data)


def in_pieces(client: socket.socket, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        count = DICE.choice([1, 100, 4096, 65_536, 262_143, 262_144, 262_145, 600_000])
        client.sendall(data[sent : sent + count])
        sent += count
        if DICE.random() < 0.05:
            time.sleep(0.005)


def long_body(poison: str, length: int) -> bytes:
    """Nothing but the harmful request, again and again: wherever a parser begins, it comes soon."""
    one = poison.encode()
    return (one * (length // len(one) + 1))[:length]


REQUESTS = {
    "taken": "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "a bad option": "PUT /x?ttl=never HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "a bad host": "PUT /x HTTP/1.1\r\nHost: a b\r\nContent-Length: {length}\r\n",
    "not a form": "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "a bad form": (
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
    ),
    "a path without that method": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "no such path": "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "a body nobody wants": "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n",
    "too large": "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: {too_long}\r\n",
    "in chunks": "PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
}
BEHIND = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
EXPECT = "Expect: 100-continue\r\n"


def long_request(kind: str, poison: str, *, expect: bool) -> bytes:
    length = LIMIT + 10_000 if kind == "too large" else LONG_BODY
    body = long_body(poison, length)
    head = REQUESTS[kind].replace("{length}", str(length)).replace("{too_long}", str(length))
    if kind == "in chunks":
        pieces = [body[at : at + 300_000] for at in range(0, length, 300_000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return (head + (EXPECT if expect else "") + CRLF).encode() + body


@pytest.mark.parametrize("send", [at_once, in_pieces])
@pytest.mark.parametrize("expect", [False, True], ids=["", "expect"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("where", ["ingest", "deliver", "gateway"], indirect=True)
def test_a_long_body_is_never_a_request(
    victim: Victim, where: str, port: int, kind: str, send: Sender, *, expect: bool
) -> None:
    request = long_request(kind, victim.poison(where), expect=expect) + BEHIND
    with connect(port) as client:
        with contextlib.suppress(ConnectionError):
            send(client, request)
        received = answered(client)
    victim.require_waiting()
    got = [status for status in statuses(received) if status != 100]
    # The gateway hides /healthz.
    assert len(got) <= 2, received
    if len(got) == 2:
        assert got[1] == (404 if where == "gateway" else 200), received
    if kind == "taken" and where == "ingest":
        assert got == [201, 200]


@pytest.mark.parametrize("kind", ["taken", "a bad option", "too large", "a body nobody wants"])
@pytest.mark.parametrize("how", ["half-close", "close", "reset", "silence"])
def test_a_long_body_that_ends_too_early_is_never_a_request(
    victim: Victim, stack: Stack, kind: str, how: str
) -> None:
    request = long_request(kind, victim.poison("ingest"), expect=False)
    for cut in (len(request) - 1, len(request) // 2, 300_000, 200):
        with connect(stack.ingest.port) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(request[:cut])
                if how == "half-close":
                    client.shutdown(socket.SHUT_WR)
            if how in ("half-close", "silence"):
                client.settimeout(1 if how == "half-close" else 0.2)
                with contextlib.suppress(TimeoutError):
                    received = answered(client)
                    assert len(statuses(received)) <= 1, received
            elif how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    victim.require_waiting()
    assert stack.ingest.status_of("/healthz") == 200


@pytest.mark.parametrize("seed", range(40 if LONG else 6))
def test_long_and_short_requests_in_any_order_are_each_answered_for_itself(
    victim: Victim, stack: Stack, seed: int
) -> None:
    """One connection, everything in one stream, cut anywhere: as many answers as requests."""
    poison = victim.poison("ingest")
    requests, expected = b"", []
    for number in range(12):
        length = DICE.choice([0, 1, 1000, 262_143, 262_144, 262_145, 400_000, 1_000_000])
        body = long_body(poison, length)
        if DICE.random() < 0.3:
            requests += (
                b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
            )
            expected.append(200)
        else:
            requests += b"PUT /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (
                number,
                length,
            )
            expected.append(201)
        requests += body
    requests += BEHIND
    with connect(stack.ingest.port) as client:
        in_pieces(client, requests)
        received = answered(client)
    victim.require_waiting()
    assert statuses(received) == [*expected, 200]


def test_garbage_behind_a_download_is_not_answered_within_it(stack: Stack) -> None:
    """The answer to what cannot be read used to be written into the middle of the file."""
    body = bytes(range(256)) * (MIB // 64)
    for garbage in (b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01"):
        path = httpx.URL(stack.upload(body).url).raw_path
        with connect(stack.deliver.port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            received = client.recv(1000)
            time.sleep(0.2)
            client.sendall(garbage)
            received += answered(client)
        assert received.partition(b"\r\n\r\n")[2] == body
        assert statuses(received.partition(b"\r\n\r\n")[0]) == [200]


def test_a_broken_body_behind_an_answered_request_is_no_request(stack: Stack) -> None:
    """What is whole is answered; what is not never begins."""
    drop = stack.upload(b"the file's own bytes")
    path = httpx.URL(drop.url).path
    shapes = itertools.product(
        ["Transfer-Encoding: xchunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"],
        ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
    )
    for fields, before in shapes:
        request = f"{before}GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\nxyz\r\n"
        received = asked(stack.deliver.port, request.encode())
        assert statuses(received) in ([400], [200], []), received
        assert b"the file's own bytes" not in received
        assert httpx.get(drop.owner_url).json()["state"] == "waiting"
