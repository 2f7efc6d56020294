"""compose.yaml in a Docker engine: one address, replicas, restarts."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator

import httpx
import pytest

from support.compose import Compose, engine_missing
from support.services import BROWSER, RawClient
from support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BODY = os.urandom(100_000)
LARGE = os.urandom(64 * 1024 * 1024)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    missing = engine_missing()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI has an engine: {missing}")
    if missing:
        pytest.skip(missing)
    compose = Compose(tmp_path_factory.mktemp("compose"))
    try:
        compose.up("--scale", "ingest=2", "--scale", "deliver=3", "--scale", "janitor=2")
        yield compose
    finally:
        compose.down()


def put(stack: Compose, body: bytes, **options: str) -> dict[str, str]:
    headers = {f"Oncedrop-{name}": value for name, value in options.items()}
    answer = httpx.put(
        f"{stack.url}/report.pdf",
        content=body,
        headers={**headers, "Accept": "application/json"},
        timeout=120,
    )
    assert answer.status_code == 201, answer.text
    document: dict[str, str] = answer.json()
    return document


def path_of(url: str) -> str:
    return httpx.URL(url).raw_path.decode()


def test_everything_works_through_the_one_address(stack: Compose) -> None:
    drop = put(stack, BODY)
    assert drop["url"].startswith(f"{stack.url}/d/")
    assert drop["owner_url"].startswith(f"{stack.url}/o/")

    page = httpx.get(drop["url"], headers=BROWSER)
    first, second = httpx.get(drop["url"]), httpx.get(drop["url"])
    receipt = httpx.get(drop["owner_url"]).json()
    status = httpx.get(f"{stack.url}/janitor/status", headers={"Accept": "application/json"})

    assert "report.pdf" in page.text
    assert first.content == BODY
    assert second.status_code == 410
    assert receipt["acknowledged_bytes"] == len(BODY)
    assert status.json()["paired"] is True
    assert httpx.get(f"{stack.url}/static/oncedrop.css").status_code == 200
    for hidden in ("/metrics", "/readyz", "/janitor/metrics"):
        assert httpx.get(stack.url + hidden).status_code == 404


def test_one_of_100_visitors_wins_each_of_50_drops_on_three_replicas(stack: Compose) -> None:
    async def races() -> set[tuple[int, int]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            results = set()
            for _ in range(50):
                url = (await client.put(f"{stack.url}/x", content=BODY)).text.strip()
                answers = await asyncio.gather(*(client.get(url) for _ in range(100)))
                won = sum(a.status_code == 200 and a.content == BODY for a in answers)
                results.add((won, sum(a.status_code == 410 for a in answers)))
            return results

    assert asyncio.run(races()) == {(1, 99)}


def test_a_download_cut_on_one_replica_resumes_on_another(stack: Compose) -> None:
    drop = put(stack, LARGE)
    client = RawClient.get(stack.port, path_of(drop["url"]), receive_buffer=65536)
    client.read_body(1_000_000)
    client.close()

    stranger = httpx.get(drop["url"])
    url = stack.url + client.header("content-location")
    rest = [httpx.get(url, headers={"Range": "bytes=1000000-1999999"}, timeout=60)
            for _ in range(6)]  # fmt: skip
    whole = httpx.get(url, timeout=120)

    assert stranger.status_code == 410
    assert all(a.content == LARGE[1_000_000:2_000_000] for a in rest)
    assert hashlib.sha256(whole.content).digest() == hashlib.sha256(LARGE).digest()


def test_containers_may_do_nothing_but_their_work(stack: Compose) -> None:
    for service in ("ingest", "deliver", "janitor"):
        name = stack.containers(service)[0]
        assert stack.shell(name, "id -u").strip() == "10001"
        assert "CapEff:\t0000000000000000" in stack.shell(name, "grep CapEff /proc/1/status")
        assert stack.shell(name, "touch /x 2>/dev/null || echo refused").strip() == "refused"
        assert stack.shell(name, "command -v gcc cc pip; find / -name test_once.py") == ""


def test_no_log_holds_a_link(stack: Compose) -> None:
    drop = put(stack, BODY)
    httpx.get(drop["url"])
    httpx.get(drop["url"])
    logs = stack("logs", "--no-color")
    assert drop["id"] in logs
    assert path_of(drop["url"]).removeprefix("/d/") not in logs
    assert drop["owner_url"].rpartition(".")[2] not in logs


def test_another_janitor_leads_when_the_leader_is_killed(stack: Compose) -> None:
    def leads(name: str) -> bool:
        script = (
            "import httpx; print(httpx.get('http://127.0.0.1:8003/status',"
            "headers={'Accept': 'application/json'}).json()['leading'])"
        )
        return stack.docker("exec", name, "python", "-c", script, check=False).strip() == "True"

    wait_until(lambda: any(map(leads, stack.containers("janitor"))), 30, what="a leader")
    names = stack.containers("janitor")
    leader = next(name for name in names if leads(name))
    (other,) = set(names) - {leader}

    stack.docker("kill", leader)

    wait_until(lambda: leads(other), 60, what="the other to lead")
    stack.docker("start", leader)


def test_links_survive_a_restart_of_valkey_and_a_wipe(stack: Compose) -> None:
    kept, wiped = put(stack, BODY), put(stack, BODY)
    stack("restart", "valkey")
    wait_until(
        lambda: httpx.get(kept["url"], headers=BROWSER).status_code == 200, 60, what="valkey"
    )
    assert httpx.get(kept["url"]).content == BODY

    (valkey,) = stack.containers("valkey")
    assert stack.shell(valkey, "valkey-cli flushall").strip() == "OK"

    assert httpx.get(wiped["url"]).content == BODY
    assert httpx.get(wiped["url"]).status_code == 410
    assert httpx.get(kept["url"]).status_code in (404, 410)


def test_deliver_killed_in_mid_download_the_claimant_resumes(stack: Compose) -> None:
    drop = put(stack, LARGE)
    client = RawClient.get(stack.port, path_of(drop["url"]), receive_buffer=65536)
    client.read_body(1_000_000)
    for name in stack.containers("deliver"):
        stack.docker("kill", name)
        stack.docker("start", name)
    client.close()
    url = stack.url + client.header("content-location")

    def resumed() -> bool:
        answer = httpx.get(url, headers={"Range": "bytes=1000000-"}, timeout=120)
        return answer.status_code == 206 and answer.content == LARGE[1_000_000:]

    wait_until(resumed, 60, what="the rest")
    assert httpx.get(drop["url"]).status_code == 410


def test_down_and_up_again_everything_is_as_before(stack: Compose) -> None:
    drop = put(stack, BODY)
    stack("down", "--timeout", "20")
    stack.up()

    assert httpx.get(drop["url"]).content == BODY
