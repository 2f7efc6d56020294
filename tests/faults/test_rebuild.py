"""Redis loses everything, or comes back older, while clients are in the middle of things (1, 3, 4).

test_stack_faults.py has the plain cases; here every kind of client is on its way at once.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.services import RawClient
from support.stack import Stack, Uploaded, running_stack
from support.valkey import admin
from support.waiting import wait_until

BODY = os.urandom(300_000)
LARGE = os.urandom(16 * 1024 * 1024)
HALF = len(LARGE) // 2
# Redis forgot what had arrived, so the last byte of the rest does not end a claim: its lease does.
LEASE = 8


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path, due_interval_seconds=1, claim_lease_seconds=LEASE) as stack:
        yield stack


class SlowUpload:
    """One that waits in the middle until it is told to go on."""

    def __init__(self, stack: Stack) -> None:
        self._go = threading.Event()
        self._stack = stack
        self.answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._put)
        self._thread.start()
        wait_until(lambda: list((stack.volume_dir / "incoming").glob("*")), 10, what="the part")

    def _put(self) -> None:
        def body() -> Iterator[bytes]:
            yield LARGE[:HALF]
            self._go.wait(30)
            yield LARGE[HALF:]

        self.answer = httpx.put(f"{self._stack.ingest.url}/slow", content=body(), timeout=60)

    def finish(self) -> str:
        """Send the rest; the link."""
        self._go.set()
        self._thread.join(60)
        assert self.answer is not None
        assert self.answer.status_code == 201, self.answer.text
        return self._stack.deliver.url + httpx.URL(self.answer.text.strip()).path


class Interrupted:
    """A download that broke off after 100,000 bytes, and the ways its client may come back."""

    def __init__(self, stack: Stack, drop: Uploaded) -> None:
        self._stack, self._drop = stack, drop
        client = RawClient.get(stack.deliver.port, httpx.URL(drop.url).path, receive_buffer=65_536)
        self.first = client.read_body(100_000)
        self.path = client.header("content-location")
        self.etag = client.header("etag")
        self.cookie = client.header("set-cookie").partition(";")[0]
        client.close()

    def resume(self, way: str) -> httpx.Response:
        """Come back for the rest by claim URL, cookie or If-Range."""
        headers = {"Range": "bytes=100000-"}
        url = self._drop.url
        if way == "claim URL":
            url = self._stack.deliver.url + self.path
        elif way == "cookie":
            headers["Cookie"] = self.cookie
        else:
            headers["If-Range"] = self.etag
        return httpx.get(url, headers=headers, timeout=60)


def wipe(stack: Stack) -> None:
    with admin(stack.redis.url) as redis:
        redis.flushall()


@pytest.mark.parametrize("way", ["claim URL", "cookie", "If-Range"])
@pytest.mark.parametrize("first_comes", ["the claimant", "a stranger", "a sweep"])
def test_redis_wiped_the_claimant_resumes_whoever_comes_first(
    stack: Stack, way: str, first_comes: str
) -> None:
    drop = stack.upload(LARGE)
    claimant = Interrupted(stack, drop)
    wipe(stack)

    if first_comes == "a stranger":
        assert httpx.get(drop.url).status_code == 410
    elif first_comes == "a sweep":
        # Unless deliver, which sees the end of the broken download, was faster.
        assert stack.sweep()["rebuilt"] <= 1
    rest = claimant.resume(way)

    assert rest.status_code == 206
    assert claimant.first + rest.content == LARGE
    assert httpx.get(drop.url).status_code == 410


def test_redis_wiped_in_mid_traffic_an_upload_goes_on_and_each_link_is_good_once(
    stack: Stack,
) -> None:
    upload = SlowUpload(stack)
    ready = [stack.upload(BODY, if_interrupted=word) for word in ("burn", "restore") * 3]
    used = stack.upload(BODY)
    assert httpx.get(used.url).content == BODY
    claimant = Interrupted(stack, stack.upload(LARGE))
    deleted = stack.upload(BODY)
    assert httpx.delete(deleted.owner_url).status_code == 200

    wipe(stack)
    # Taken in again one by one: some by a visitor, some by the sweep.
    assert [httpx.get(d.url).content == BODY for d in ready[:3]] == [True] * 3
    stack.sweep()
    slow = upload.finish()

    assert httpx.get(slow, timeout=60).content == LARGE
    assert httpx.get(slow).status_code == 410
    assert [httpx.get(d.url).content == BODY for d in ready[3:]] == [True] * 3
    assert {httpx.get(d.url).status_code for d in ready} == {410}
    assert claimant.first + claimant.resume("claim URL").content == LARGE
    assert {httpx.get(d.url).status_code for d in (used, deleted)} <= {404, 410}
    wait_until(lambda: not stack.files(), LEASE + 15, what="every file to be gone")


def restored_older(stack: Stack, meanwhile: Callable[[], None]) -> None:
    """Redis as it was before what happens meanwhile."""
    now, old = (stack.redis.folder / name for name in ("appendonlydir", "old"))
    stack.redis.stop()
    shutil.copytree(now, old)
    stack.redis.start()
    stack.wait_ready()
    meanwhile()
    stack.redis.kill()
    shutil.rmtree(now)
    old.rename(now)
    stack.redis.start()
    stack.wait_ready()


@pytest.mark.parametrize("sweeps", [False, True], ids=["visitors first", "a sweep first"])
def test_an_old_redis_restored_nothing_is_served_twice_and_the_claimant_resumes(
    stack: Stack, *, sweeps: bool
) -> None:
    upload = SlowUpload(stack)
    delivered, deleted, taken, left = (stack.upload(BODY) for _ in range(4))
    restorable = stack.upload(LARGE, if_interrupted="restore")
    burn = stack.upload(LARGE)
    resumed = Interrupted(stack, stack.upload(LARGE))
    seen: dict[str, str] = {}
    claimants: list[Interrupted] = []

    def meanwhile() -> None:
        assert httpx.get(delivered.url).content == BODY
        assert httpx.delete(deleted.owner_url).status_code == 200
        assert httpx.get(taken.url).content == BODY
        claimants.extend(Interrupted(stack, drop) for drop in (restorable, burn))
        assert resumed.first + resumed.resume("claim URL").content == LARGE
        seen["slow"] = upload.finish()

    restored_older(stack, meanwhile)
    if sweeps:
        stack.sweep()

    # Served and gone: Redis believes otherwise, the volume does not.
    for drop in (delivered, deleted, taken):
        answer = httpx.get(drop.url)
        assert answer.status_code in (410, 503)
        assert BODY[:64] not in answer.content
    assert resumed.resume("claim URL").status_code in (410, 503)
    # Redis believes that it is being uploaded.
    assert httpx.get(seen["slow"], timeout=60).content == LARGE
    assert httpx.get(seen["slow"]).status_code == 410
    # Redis believes that nobody has begun.
    for drop, claimant in zip((restorable, burn), claimants, strict=True):
        assert httpx.get(drop.url).status_code in (409, 410)
        rest = claimant.resume("claim URL")
        assert claimant.first + rest.content == LARGE, rest.text[:300]
        assert httpx.get(drop.url).status_code in (409, 410)
    assert httpx.get(left.url).content == BODY
    assert httpx.get(left.url).status_code == 410
    wait_until(lambda: not stack.files(), LEASE + 15, what="every file to be gone")
