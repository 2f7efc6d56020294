"""Files larger than any container's memory go through all of them."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
from collections.abc import Iterator
from typing import Self

import httpx
import pytest

from support.compose import Compose, running_compose
from support.services import RawClient
from support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

SIZE = 2 * 1024**3
BLOCK = os.urandom(1024 * 1024)
MIB = 1024 * 1024
# Of its own, page cache not counted; the containers' limits are 256, 256 and 128 MiB.
MOST_BYTES = {"ingest": 96 * MIB, "deliver": 96 * MIB, "gateway": 32 * MIB}
# In control groups of either version.
_OWN_MEMORY = (
    "cd /sys/fs/cgroup; cat memory.stat memory/memory.stat 2>/dev/null | grep -E '^(anon|rss) '"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    # No linger: what is delivered leaves the disk at once.
    with running_compose(tmp_path_factory.mktemp("large"), linger_seconds=0) as stack:
        yield stack


class Watch:
    """Looks at containers again and again while the block runs."""

    def __init__(self, stack: Compose) -> None:
        self.stack = stack
        self.memory: dict[str, int] = dict.fromkeys(MOST_BYTES, 0)
        self.temporary_bytes = 0
        self.part_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _look(self) -> None:
        names = {service: self.stack.containers(service)[0] for service in MOST_BYTES}
        while not self._over.wait(0.3):
            for service, name in names.items():
                text = self.stack.shell(name, f"{_OWN_MEMORY}; du -sk /tmp").split()
                if len(text) >= 3:
                    self.memory[service] = max(self.memory[service], int(text[1]))
                    self.temporary_bytes = max(self.temporary_bytes, int(text[2]) * 1024)
            parts = self.stack.shell(
                names["ingest"], "find /volume/incoming -type f -printf '%s\\n'"
            )
            self.part_bytes = max([self.part_bytes, *map(int, parts.split())])


def check(watch: Watch) -> None:
    """No limit was hit, no memory grew with the file, nothing was put aside."""
    for service, most in MOST_BYTES.items():
        (name,) = watch.stack.containers(service)
        assert 0 < watch.memory[service] < most, watch.memory
        assert watch.stack.inspect(name, "{{.State.OOMKilled}} {{.RestartCount}}") == "false 0"
    assert watch.temporary_bytes < MIB


def upload(stack: Compose) -> dict[str, str]:
    def blocks() -> Iterator[bytes]:
        for _ in range(SIZE // len(BLOCK)):
            yield BLOCK

    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
    try:
        headers = {"Content-Length": str(SIZE), "Accept": "application/json"}
        connection.request("PUT", "/large.bin", body=blocks(), headers=headers)
        answer = connection.getresponse()
        document = httpx.Response(answer.status, content=answer.read())
    finally:
        connection.close()
    assert document.status_code == 201, document.text
    told: dict[str, str] = document.json()
    return told


def download(stack: Compose, url: str) -> tuple[int, str]:
    """How many bytes came, and their digest."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
    digest, count, buffer = hashlib.sha256(), 0, memoryview(bytearray(MIB))
    try:
        connection.request("GET", httpx.URL(url).path)
        answer = connection.getresponse()
        assert answer.status == 200
        while got := answer.readinto(buffer):
            digest.update(buffer[:got])
            count += got
    finally:
        connection.close()
    return count, digest.hexdigest()


def test_2_gib_stream_in_and_out_within_the_containers_memory(stack: Compose) -> None:
    with Watch(stack) as watch:
        drop = upload(stack)
    check(watch)
    assert watch.part_bytes > 0  # it came in while it was being sent

    with Watch(stack) as watch:
        count, digest = download(stack, drop["url"])
    check(watch)

    assert count == SIZE
    assert digest == drop["sha256"]
    wait_until(lambda: not stack.stored_files(), 15, what="the file to be gone")


def test_the_gateway_does_not_swallow_a_file_ahead_of_its_client(stack: Compose) -> None:
    """What a stalled client has not read is not acknowledged, apart from what sockets hold."""
    drop = stack.upload(BLOCK * 256)
    client = RawClient.get(stack.port, httpx.URL(drop["url"]).path, receive_buffer=65536)
    client.read_body(MIB)

    def noted() -> int:
        return int(stack.receipt(drop)["acknowledged_bytes"])

    wait_until(noted, 20, what="the first renewal")
    assert noted() < 32 * MIB
    assert stack.receipt(drop)["state"] == "claimed"
    client.close()
    assert httpx.delete(drop["owner_url"]).json()["file_deleted"] is True
