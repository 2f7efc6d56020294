"""Containers and volumes come and go; what was promised holds (DESIGN section 10)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.compose import Compose, running_compose
from support.services import BROWSER, RawClient
from support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BODY = os.urandom(20_000)
LARGE = os.urandom(24 * 1024 * 1024)
GRACE_SECONDS = 70


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with running_compose(
        tmp_path_factory.mktemp("restarts"),
        upload_lease_seconds=5,
        grace_seconds=GRACE_SECONDS,
        linger_seconds=0,
    ) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: Compose) -> Iterator[Compose]:
    """The module's stack, empty and as compose.yaml has it."""
    shared_stack.wait_healthy("valkey", "ingest", "deliver", "janitor", "gateway")
    yield shared_stack
    for row in listed(shared_stack):
        operate(shared_stack, "DELETE", f"/drops/{row['id']}")


def operate(stack: Compose, method: str, path: str) -> httpx.Response:
    return httpx.request(
        method,
        f"{stack.url}/janitor{path}",
        headers={"Authorization": f"Bearer {stack.secret('ONCEDROP_ADMIN_TOKEN')}"},
        timeout=60,
    )


def listed(stack: Compose) -> list[dict[str, Any]]:
    """Every drop that is not gone."""
    rows: list[dict[str, Any]] = operate(stack, "GET", "/drops?limit=1000").json()["drops"]
    return [row for row in rows if row["state"] != "gone"]


def status_of(url: str, **headers: str) -> int:
    """0 when nobody answers."""
    try:
        return httpx.get(url, headers=headers, timeout=30).status_code
    except httpx.TransportError:
        return 0


def state_of(stack: Compose, drop: dict[str, Any]) -> tuple[str, str | None]:
    receipt = stack.receipt(drop)
    return receipt["state"], receipt.get("reason")


def begin_download(stack: Compose, drop: dict[str, Any], count: int) -> RawClient:
    path = httpx.URL(drop["url"]).path
    client = RawClient.get(stack.port, path, receive_buffer=65536)
    client.read_body(count)
    return client


def rest_of(stack: Compose, client: RawClient, offset: int) -> httpx.Response:
    """What the claimant gets who comes back over the claim URL."""
    url = stack.url + client.header("content-location")
    return httpx.get(url, headers={"Range": f"bytes={offset}-"}, timeout=60)


def wipe_files(stack: Compose) -> None:
    """Remove every file but the marker, as an operator's slip would."""
    (janitor,) = stack.containers("janitor")
    stack.shell(janitor, "find /volume -type f ! -name .oncedrop -delete")
    assert stack.stored_files() == []


def restart_janitor(stack: Compose) -> dict[str, Any]:
    """Its start-up sweep's result."""
    before = last_sweep(stack)
    stack("restart", "--timeout", "20", "janitor")
    wait_until(
        lambda: last_sweep(stack).get("started_at") not in (None, before.get("started_at")),
        60,
        what="the start-up sweep",
    )
    return last_sweep(stack)


def last_sweep(stack: Compose) -> dict[str, Any]:
    with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
        return stack.status()["passes"]["sweep"]["last"] or {}
    return {}


def test_valkey_restarted_all_links_work_and_used_ones_stay_used(stack: Compose) -> None:
    drops, used = [stack.upload(BODY) for _ in range(5)], stack.upload(BODY)
    assert httpx.get(used["url"]).content == BODY

    stack("restart", "valkey")

    wait_until(lambda: {status_of(d["url"], **BROWSER) for d in drops} == {200}, 60, what="valkey")
    assert status_of(used["url"]) == 410
    assert [httpx.get(d["url"]).content == BODY for d in drops] == [True] * 5
    assert [status_of(d["url"]) for d in drops] == [410] * 5


def test_valkey_killed_comes_back_by_itself_and_all_links_work(stack: Compose) -> None:
    """What its last second held is rebuilt from the files."""
    drop = stack.upload(BODY)
    (valkey,) = stack.containers("valkey")

    stack.kill_process(valkey)

    assert status_of(drop["url"], **BROWSER) in (200, 503)
    wait_until(lambda: status_of(drop["url"], **BROWSER) == 200, 60, what="valkey")
    assert httpx.get(drop["url"]).content == BODY


def test_valkeys_data_wiped_unclaimed_links_are_rebuilt_from_their_files(stack: Compose) -> None:
    drops, used = [stack.upload(BODY) for _ in range(5)], stack.upload(BODY)
    assert httpx.get(used["url"]).content == BODY
    held = stack.upload(LARGE)
    client = begin_download(stack, held, 100_000)
    client.close()

    stack("stop", "valkey")
    away = status_of(drops[0]["url"])
    stack("rm", "--force", "--volumes", "valkey")
    stack.docker("volume", "rm", f"{stack.project}_records")
    stack.up("--no-deps", "valkey", build=False)

    assert away == 503
    wait_until(lambda: status_of(drops[0]["url"], **BROWSER) == 200, 60, what="the rebuilt record")
    assert status_of(used["url"]) in (404, 410)
    assert status_of(held["url"]) == 410
    assert [httpx.get(d["url"]).content == BODY for d in drops] == [True] * 5
    assert [status_of(d["url"]) for d in drops] == [410] * 5
    assert rest_of(stack, client, 100_000).content == LARGE[100_000:]


def test_a_few_files_wiped_the_start_up_sweep_makes_tombstones(stack: Compose) -> None:
    drops = [stack.upload(BODY) for _ in range(5)]
    wipe_files(stack)
    young = restart_janitor(stack)
    assert young["orphan_records"] == 0
    assert {status_of(d["url"]) for d in drops} == {503}

    stack.let_time_pass(GRACE_SECONDS + 5)
    result = restart_janitor(stack)

    assert result["orphan_records"] == 5
    assert result["guard"] is None
    assert {status_of(d["url"]) for d in drops} == {410}
    assert {state_of(stack, d) for d in drops} == {("gone", "lost")}


def test_many_files_wiped_trip_the_guard_until_the_operators_word(stack: Compose) -> None:
    drops = [stack.upload(BODY) for _ in range(120)]
    wipe_files(stack)
    stack.let_time_pass(GRACE_SECONDS + 5)

    result = restart_janitor(stack)

    assert result["orphan_records"] == 0
    assert result["held_back"] == 120
    status = stack.status()
    assert status["guard"]["active"] is True
    assert "120 of 120 records have no file" in status["guard"]["reasons"][0]
    assert "force=1" in status["guard"]["reasons"][0]

    assert stack.sweep(force="1")["orphan_records"] == 120
    assert status_of(drops[0]["url"]) == 410
    assert stack.status()["guard"]["active"] is False


def replace_volume(stack: Compose) -> None:
    """An empty volume in the place of the one with the drops, as after a lost disk."""
    stack("rm", "--stop", "--force", "ingest", "deliver", "janitor")
    stack.docker("volume", "rm", f"{stack.project}_drops")


def test_an_empty_volume_is_503_everywhere_and_says_why_until_force(stack: Compose) -> None:
    drop = stack.upload(BODY)
    stack.let_time_pass(GRACE_SECONDS + 5)
    replace_volume(stack)

    answer = stack.try_run("up", "--detach", "--wait", "--wait-timeout", "90")

    assert answer.returncode != 0
    assert "unhealthy" in answer.stderr
    assert status_of(drop["url"]) == 503
    assert httpx.put(f"{stack.url}/x", content=b"x").status_code == 503
    status = stack.status()
    assert status["paired"] is False
    assert "Redis belongs to another volume" in status["guard"]["reasons"][0]
    assert "force=1" in status["guard"]["reasons"][0]
    page = httpx.get(f"{stack.url}/janitor/status", headers=BROWSER)
    assert "Redis belongs to another volume" in page.text

    forced = stack.sweep(force="1")

    assert forced["orphan_records"] == 1
    stack.wait_healthy("ingest", "deliver", "janitor")
    assert status_of(drop["url"]) == 410
    assert httpx.get(stack.upload(BODY)["url"]).content == BODY


def test_an_ephemeral_volume_found_empty_is_cleaned_up_after_by_the_start_up_sweep(
    stack: Compose,
) -> None:
    drops = [stack.upload(BODY) for _ in range(3)]
    stack.let_time_pass(GRACE_SECONDS + 5)
    replace_volume(stack)
    stack.set(ephemeral_volume=1)
    try:
        stack.up(build=False)

        wait_until(
            lambda: {status_of(d["url"]) for d in drops} == {410}, 30, what="the start-up sweep"
        )
        assert {state_of(stack, d) for d in drops} == {("gone", "lost")}
        assert stack.status()["guard"]["active"] is False
        assert httpx.get(stack.upload(BODY)["url"]).content == BODY
    finally:
        stack.set(ephemeral_volume=0)
        stack.up(build=False)


def test_deliver_killed_in_mid_download_comes_back_and_the_claimant_resumes(
    stack: Compose,
) -> None:
    drop = stack.upload(LARGE)
    client = begin_download(stack, drop, 1_000_000)
    (deliver,) = stack.containers("deliver")

    stack.kill_process(deliver)
    client.close()
    stack.wait_healthy("deliver")

    wait_until(lambda: status_of(drop["url"]) == 410, 30, what="deliver, for a stranger")
    rest = rest_of(stack, client, 1_000_000)
    assert rest.status_code == 206
    assert rest.content == LARGE[1_000_000:]


def test_ingest_killed_in_mid_upload_leaves_nothing_after_its_lease(stack: Compose) -> None:
    before = stack.stored_files()
    slow = threading.Event()

    def body() -> Iterator[bytes]:
        yield LARGE
        slow.wait(60)
        yield LARGE

    def put() -> None:
        # Broken off, or told by the gateway.
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.put(f"{stack.url}/x", content=body(), timeout=60)
            assert answer.status_code == 503

    thread = threading.Thread(target=put)
    thread.start()
    wait_until(lambda: stack.stored_files() != before, 20, what="the part")
    (ingest,) = stack.containers("ingest")
    stack.kill_process(ingest)
    slow.set()
    thread.join(60)

    wait_until(lambda: stack.stored_files() == before, 40, what="the part to be unlinked")
    assert stack.sweep()["removed"] == 0
    stack.wait_healthy("ingest")
    assert listed(stack) == []


def test_down_and_up_again_everything_is_as_before(stack: Compose) -> None:
    kept, used = stack.upload(BODY), stack.upload(BODY)
    held = stack.upload(LARGE)
    client = begin_download(stack, held, 100_000)
    client.close()
    assert httpx.get(used["url"]).content == BODY

    stack("down", "--timeout", "20")
    stack.up(build=False)

    assert status_of(kept["url"], **BROWSER) == 200
    assert httpx.get(kept["url"]).content == BODY
    assert status_of(used["url"]) == 410
    assert state_of(stack, used) == ("gone", "delivered")
    assert status_of(held["url"]) == 410
    assert rest_of(stack, client, 100_000).content == LARGE[100_000:]
