"""Things die; what was promised holds (DESIGN section 10; the number is the invariant's)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.services import BROWSER, RawClient, strangers
from support.stack import ADMIN_TOKEN, Stack, Uploaded, running_stack
from support.valkey import admin
from support.waiting import wait_until

BODY = os.urandom(200_000)
LARGE = os.urandom(24 * 1024 * 1024)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path, due_interval_seconds=1) as stack:
        yield stack


def token_path(drop: Uploaded) -> str:
    return httpx.URL(drop.url).path


def begin_download(stack: Stack, drop: Uploaded, count: int = 100_000) -> RawClient:
    client = RawClient.get(stack.deliver.port, token_path(drop), receive_buffer=65536)
    client.read_body(count)
    return client


def resume(stack: Stack, client: RawClient, offset: int) -> httpx.Response:
    url = stack.deliver.url + client.header("content-location")
    return httpx.get(url, headers={"Range": f"bytes={offset}-"}, timeout=30)


def test_upload_and_download_and_receipt_over_the_whole_stack(stack: Stack) -> None:
    drop = stack.upload(BODY)
    waiting = httpx.get(drop.owner_url).json()

    assert httpx.get(drop.url).content == BODY

    assert waiting["state"] == "waiting"
    assert httpx.get(drop.owner_url).json()["reason"] == "delivered"
    assert httpx.get(drop.url).status_code == 410
    assert stack.files() == []


def test_deliver_killed_in_mid_download_the_claimant_resumes(stack: Stack) -> None:
    """1, 3."""
    drop = stack.upload(LARGE)
    client = begin_download(stack, drop)
    stack.deliver.kill()
    client.close()
    stack.deliver.start()

    stranger = httpx.get(drop.url)
    rest = resume(stack, client, 100_000)

    assert stranger.status_code == 410
    assert rest.content == LARGE[100_000:]
    again = httpx.get(stack.deliver.url + client.header("content-location"), timeout=30)
    # The first bytes were acknowledged, but the server that knew died: nothing was deleted yet,
    # or everything was delivered; never anything else.
    assert again.status_code in (200, 410)


def test_ingest_killed_in_mid_upload_leaves_nothing_after_its_lease(tmp_path: Path) -> None:
    """4, 5."""
    with running_stack(
        tmp_path, due_interval_seconds=1, upload_lease_seconds=2, grace_seconds=63
    ) as stack:
        slow = threading.Event()

        def body() -> Iterator[bytes]:
            yield LARGE[:3_000_000]
            slow.wait(20)

        def put() -> None:
            with pytest.raises(httpx.TransportError):
                httpx.put(f"{stack.ingest.url}/x", content=body(), timeout=30)

        thread = threading.Thread(target=put)
        thread.start()
        wait_until(stack.files, 10, what="the part")
        stack.ingest.kill()
        slow.set()
        thread.join(20)

        wait_until(lambda: not stack.files(), 20, what="the due pass to unlink the part")


def test_redis_wiped_every_unclaimed_link_still_works_and_no_claimed_one_does(
    stack: Stack,
) -> None:
    """1, 3."""
    unclaimed = [stack.upload(BODY) for _ in range(5)]
    used = stack.upload(BODY)
    assert httpx.get(used.url).content == BODY
    claimed = stack.upload(LARGE)
    client = begin_download(stack, claimed)

    with admin(stack.redis.url) as redis:
        redis.flushall()

    looked = httpx.get(unclaimed[0].url, headers=BROWSER)
    assert looked.status_code == 200
    assert "report.pdf" in looked.text
    assert httpx.get(claimed.url).status_code == 410
    assert httpx.get(used.url).status_code in (404, 410)
    assert [httpx.get(d.url).content == BODY for d in unclaimed] == [True] * 5
    assert [httpx.get(d.url).status_code for d in unclaimed] == [410] * 5
    assert client.read_body(len(LARGE)) == LARGE
    client.close()
    wait_until(lambda: not stack.files(), 10, what="every file to be gone")


def test_redis_killed_and_back_nothing_is_lost_and_nothing_served_twice(stack: Stack) -> None:
    """1, 3, 9."""
    drop, used = stack.upload(BODY), stack.upload(BODY)
    assert httpx.get(used.url).content == BODY
    time.sleep(1.5)  # the append-only file is synced every second
    stack.redis.kill()

    away = httpx.get(drop.url, timeout=30)
    upload = httpx.put(f"{stack.ingest.url}/x", content=BODY, timeout=30)
    ready = httpx.get(f"{stack.deliver.url}/readyz", timeout=30)

    assert away.status_code == upload.status_code == ready.status_code == 503
    assert int(away.headers["retry-after"]) > 0
    assert len(stack.files()) == 1
    stack.redis.start()
    stack.wait_ready()
    assert httpx.get(used.url).status_code == 410
    assert httpx.get(drop.url).content == BODY


def test_redis_gone_while_a_download_runs_the_download_ends_and_so_does_the_file(
    stack: Stack,
) -> None:
    """9, 4."""
    drop = stack.upload(LARGE)
    client = begin_download(stack, drop)
    stack.redis.kill()

    assert client.read_body(len(LARGE)) == LARGE
    assert len(stack.files()) == 1
    stack.redis.start()

    wait_until(lambda: not stack.files(), 20, what="the delivered file to be unlinked")
    client.close()
    # Whether Redis is back is looked at every two seconds; until then the answer is 503.
    stack.wait_ready()
    assert httpx.get(drop.url).status_code == 410


def test_yesterdays_append_only_file_brings_no_used_link_back(stack: Stack) -> None:
    """1, 4."""
    drop = stack.upload(BODY)
    stack.redis.stop()
    yesterday = stack.redis.folder / "yesterday"
    shutil.copytree(stack.redis.folder / "appendonlydir", yesterday)
    stack.redis.start()
    stack.wait_ready()
    assert httpx.get(drop.url).content == BODY
    stack.redis.stop()
    shutil.rmtree(stack.redis.folder / "appendonlydir")
    yesterday.rename(stack.redis.folder / "appendonlydir")
    stack.redis.start()
    stack.wait_ready()

    answer = httpx.get(drop.url)

    assert answer.status_code in (410, 503)
    assert BODY[:64] not in answer.content


def test_a_lapsed_restorable_claim_gives_the_file_to_the_next_and_nothing_to_the_first(
    tmp_path: Path,
) -> None:
    """1."""
    with running_stack(tmp_path, due_interval_seconds=1, claim_lease_seconds=2) as stack:
        drop = stack.upload(LARGE, if_interrupted="restore")
        client = begin_download(stack, drop)

        wait_until(
            lambda: httpx.get(drop.url, headers=BROWSER).status_code == 200, 20, what="restore"
        )
        second = httpx.get(drop.url, timeout=30)
        late = resume(stack, client, 100_000)

        assert second.content == LARGE
        assert late.status_code == 410
        assert client.ends()
        client.close()


def test_a_server_stopped_past_its_lease_hands_nothing_further_over(tmp_path: Path) -> None:
    """1: SIGSTOP between two steps; on waking it checks its lease before each step."""
    with running_stack(tmp_path, due_interval_seconds=1, claim_lease_seconds=3) as stack:
        drop = stack.upload(LARGE)
        client = begin_download(stack, drop, 1000)
        # Stopped where it waits for the client; between check and step it would give one step.
        time.sleep(0.5)
        stack.deliver.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: not stack.files(), 20, what="the lapsed claim to be burnt")
            # What its kernel had been given before still comes; then there is room for more.
            client.drain()
            before = len(client.received)
        finally:
            stack.deliver.process.send_signal(signal.SIGCONT)
        client.drain()

        assert len(client.received) == before
        assert before < len(LARGE)
        client.close()
        assert httpx.get(drop.url).json()["reason"] == "interrupted"


def test_a_drop_expires_by_itself_and_leaves_no_byte(stack: Stack) -> None:
    """4."""
    drop = stack.upload(BODY, ttl="2s")

    wait_until(lambda: not stack.files(), 15, what="the due pass")

    answer = httpx.get(drop.url)
    assert answer.status_code == 410
    assert answer.json()["reason"] == "expired"
    assert httpx.get(drop.owner_url).json()["reason"] == "expired"


def test_the_owner_deletes_at_once(stack: Stack) -> None:
    """4."""
    drop = stack.upload(BODY)

    answer = httpx.delete(drop.owner_url)

    assert answer.json()["state"] == "gone"
    assert answer.json()["reason"] == "deleted"
    assert answer.json()["file_deleted"] is True
    assert stack.files() == []
    assert httpx.get(drop.url).json()["reason"] == "deleted"


def test_sweeps_converge_and_spare_what_is_in_use(stack: Stack) -> None:
    """5, 6."""
    ready = [stack.upload(BODY) for _ in range(3)]
    claimed = stack.upload(LARGE)
    client = begin_download(stack, claimed)

    first, second = stack.sweep(), stack.sweep()

    for result in (first, second):
        assert (result["orphan_files"], result["orphan_records"]) == (0, 0)
    assert client.read_body(len(LARGE)) == LARGE
    client.close()
    assert [httpx.get(d.url).content == BODY for d in ready] == [True] * 3


def test_the_volume_swapped_for_an_empty_one_is_503_until_force(stack: Stack) -> None:
    """9."""
    drop = stack.upload(BODY)
    hidden = stack.volume_dir.with_name("hidden")
    stack.volume_dir.rename(hidden)
    stack.volume_dir.mkdir()
    wait_until(lambda: httpx.get(drop.url).status_code == 503, 15, what="the guard")

    def status() -> dict[str, Any]:
        url = f"{stack.janitor.url}/status"
        document: dict[str, Any] = httpx.get(url, headers={"Accept": "application/json"}).json()
        return document

    wait_until(lambda: not status()["paired"], 10, what="the janitor to see it")
    assert "another volume" in str(status())
    assert httpx.put(f"{stack.ingest.url}/x", content=b"x").status_code == 503
    stack.volume_dir.rmdir()
    hidden.rename(stack.volume_dir)
    stack.wait_ready()

    again = httpx.get(drop.url)
    assert again.content == BODY, again.text


def test_races_through_restarts_have_one_winner_each(stack: Stack) -> None:
    """1, with deliver killed in the middle of many races."""
    drops = [stack.upload(BODY) for _ in range(20)]

    async def visit(client: httpx.AsyncClient, url: str) -> bool:
        try:
            answer = await client.get(url)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.content == BODY

    async def race() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(timeout=30, limits=limits, cookies=strangers()) as client:
            runs = [asyncio.gather(*(visit(client, d.url) for _ in range(10))) for d in drops]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(stack.deliver.kill)
            await asyncio.to_thread(stack.deliver.start)
            rounds = await asyncio.gather(*runs)
            late = await asyncio.gather(*(visit(client, d.url) for d in drops))
        return [sum(won) + again for won, again in zip(rounds, late, strict=True)]

    wins = asyncio.run(race())

    assert max(wins) <= 1


def test_no_secret_lies_in_redis_its_file_the_volume_or_a_log(stack: Stack) -> None:
    """8."""
    drop = stack.upload(BODY, password="gr8 secret")
    answer = httpx.get(drop.url, auth=("", "gr8 secret"))
    assert answer.content == BODY
    claim_id = answer.headers["etag"].strip('"')
    token = token_path(drop).removeprefix("/d/")
    owner_key = drop.owner_url.rpartition(".")[2]
    other = stack.upload(BODY)  # stays: its header is on disk
    time.sleep(1.5)

    places = [*stack.redis.folder.rglob("*"), *stack.volume_dir.rglob("*"), *(
        service.log for service in stack.services)]  # fmt: skip
    content = b"".join(p.read_bytes() for p in places if p.is_file())

    secrets = [token, owner_key, claim_id, "gr8 secret", ADMIN_TOKEN]
    secrets += [token_path(other).removeprefix("/d/"), other.owner_url.rpartition(".")[2]]
    for secret in secrets:
        assert secret.encode() not in content
        assert not any(secret in p.name for p in places)
