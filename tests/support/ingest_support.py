"""What uploads leave behind, and uploaders that behave badly on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oncedrop_common import blob_header
from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader
from oncedrop_common.store import keys
from support.services import files_in
from support.valkey import admin
from support.waiting import wait_until

CLEAN_UP_SECONDS = 10


def second_database(redis_url: str) -> str:
    """Another, independent store in the same server."""
    if redis_url.startswith("unix://"):
        return f"{redis_url}?db=1"
    return redis_url.removesuffix("/0") + "/1"


def read_blob(volume_dir: Path, drop_id: str) -> tuple[BlobHeader, bytes]:
    """A committed drop's header and body; the body is what the header says it is."""
    data = (volume_dir / "blobs" / drop_id[:2] / drop_id).read_bytes()
    header = blob_header.parse(data[:HEADER_BYTES])
    body = data[header.body_offset :]
    assert len(body) == header.meta.size
    assert hashlib.sha256(body).hexdigest() == header.meta.sha256
    return header, body


def records(redis_url: str) -> dict[str, str]:
    """The state of every record, by drop id."""
    with admin(redis_url) as client:
        names = [name.decode() for name in client.scan_iter(match=f"{keys.DROP_PREFIX}*")]
        states: list[Any] = [client.hget(name, "state") or b"" for name in names]
    return {
        name.removeprefix(keys.DROP_PREFIX): state.decode()
        for name, state in zip(names, states, strict=True)
    }


def stored_bytes(redis_url: str) -> int:
    """The usage that Redis counts."""
    with admin(redis_url) as client:
        value = client.hget(keys.USAGE, "bytes")
        return int(value or 0)


def left_behind(volume_dir: Path, redis_url: str) -> list[str]:
    """What failed uploads left: files, living records, reserved bytes."""
    left = [f"file in {path.parent.name}" for path in files_in(volume_dir)]
    left += [state for state in records(redis_url).values() if state != "gone"]
    if reserved := stored_bytes(redis_url):
        left.append(f"{reserved} bytes reserved")
    return left


def wait_until_clean(volume_dir: Path, redis_url: str) -> None:
    """Wait until nothing of a failed upload is left."""
    wait_until(
        lambda: not left_behind(volume_dir, redis_url),
        CLEAN_UP_SECONDS,
        what=f"a clean volume, not {left_behind(volume_dir, redis_url)}",
    )


class Uploader:
    """An upload on a bare socket, as far as it goes."""

    def __init__(self, port: int, head: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Send bytes of the body."""
        self.socket.sendall(data)

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self) -> tuple[int, bytes]:
        """Status and everything after the status line, until the server closes or is done."""
        received = b""
        while b"\r\n\r\n" not in received or len(_body(received)) < _announced(received):
            data = self.socket.recv(65536)
            if not data:
                break
            received += data
        assert received.startswith(b"HTTP/1.1 "), received
        return int(received[9:12]), received

    def leave(self) -> None:
        """Go away."""
        self.socket.close()


def _body(received: bytes) -> bytes:
    return received.partition(b"\r\n\r\n")[2]


def _announced(received: bytes) -> int:
    head = received.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)


@contextlib.contextmanager
def uploading(port: int, head: str) -> Iterator[Uploader]:
    """An uploader that is gone after the block."""
    uploader = Uploader(port, head)
    try:
        yield uploader
    finally:
        uploader.leave()
