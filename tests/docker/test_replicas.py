"""Several of each service behind the gateway: no visitor, and no drop, notices."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.compose import Compose, running_compose
from support.services import RawClient, strangers
from support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BODY = os.urandom(100_000)
LARGE = os.urandom(64 * 1024 * 1024)
LEAD_SECONDS = 15


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    replicas = ("--scale", "ingest=2", "--scale", "deliver=3", "--scale", "janitor=2")
    with running_compose(tmp_path_factory.mktemp("replicas"), *replicas) as stack:
        yield stack


def begin_download(stack: Compose, drop: dict[str, Any], count: int) -> RawClient:
    path = httpx.URL(drop["url"]).path
    client = RawClient.get(stack.port, path, receive_buffer=65536)
    client.read_body(count)
    return client


def requests_by_container(stack: Compose, service: str, route: str) -> dict[str, int]:
    """How many requests for a route each of a service's containers has logged."""
    return {
        name: len(re.findall(rf'"route": ?"{re.escape(route)}', stack.docker("logs", name)))
        for name in stack.containers(service)
    }


def test_one_of_100_visitors_wins_each_of_50_drops(stack: Compose) -> None:
    async def races() -> list[tuple[int, int]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(timeout=120, limits=limits, cookies=strangers()) as client:
            results = []
            for _ in range(50):
                url = (await client.put(f"{stack.url}/x", content=BODY)).text.strip()
                answers = await asyncio.gather(*(client.get(url) for _ in range(100)))
                won = sum(a.status_code == 200 and a.content == BODY for a in answers)
                results.append((won, sum(a.status_code == 410 for a in answers)))
            return results

    assert asyncio.run(races()) == [(1, 99)] * 50
    served = requests_by_container(stack, "deliver", "/d/{token}")
    assert len(served) == 3
    assert min(served.values()) > 0, served
    uploaded = requests_by_container(stack, "ingest", "/{name")
    assert min(uploaded.values()) > 0, uploaded


def test_a_download_cut_on_one_replica_resumes_on_another(stack: Compose) -> None:
    drop = stack.upload(LARGE)
    client = begin_download(stack, drop, 1_000_000)
    url = stack.url + client.header("content-location")
    (first,) = [
        name for name in stack.containers("deliver")
        if drop["id"] in stack.shell(name, "ls -l /proc/1/fd")
    ]  # fmt: skip
    stack.docker("kill", first)
    client.close()

    # The gateway may know the dead one's address for some seconds: 503, never 404 or 410.
    def stranger() -> int:
        return httpx.get(drop["url"], timeout=30).status_code

    assert stranger() in (410, 503)
    wait_until(lambda: stranger() == 410, 60, what="the other replicas")
    rest = httpx.get(url, headers={"Range": "bytes=1000000-"}, timeout=120)
    while rest.status_code == 503:  # the test has a time limit
        rest = httpx.get(url, headers={"Range": "bytes=1000000-"}, timeout=120)

    assert stack.inspect(first, "{{.State.Running}}") == "false"
    assert rest.status_code == 206
    assert hashlib.sha256(rest.content).digest() == hashlib.sha256(LARGE[1_000_000:]).digest()
    stack.docker("start", first)
    stack.wait_healthy("deliver")


def leads(stack: Compose, janitor: str) -> bool:
    script = (
        "import httpx; print(httpx.get('http://127.0.0.1:8003/status',"
        "headers={'Accept': 'application/json'}).json()['leading'])"
    )
    return stack.shell(janitor, f'python -c "{script}"').strip() == "True"


def test_one_janitor_leads_and_the_work_goes_on_when_its_process_is_killed(
    stack: Compose,
) -> None:
    names = stack.containers("janitor")

    def leaders() -> list[str]:
        return [name for name in names if leads(stack, name)]

    wait_until(leaders, 2 * LEAD_SECONDS, what="a leader")
    assert len(leaders()) == 1
    (leader,) = leaders()
    expiring = stack.upload(BODY, ttl="1s")

    stack.kill_process(leader)

    # The restart policy brings it back at once, but its lead died with it: both have to ask.
    wait_until(leaders, 2 * LEAD_SECONDS, what="a leader")
    assert len(leaders()) == 1
    wait_until(
        lambda: stack.receipt(expiring).get("reason") == "expired", 20, what="the work to go on"
    )


def test_the_other_janitor_leads_while_the_first_stays_away(stack: Compose) -> None:
    names = stack.containers("janitor")
    wait_until(lambda: any(leads(stack, n) for n in names), 2 * LEAD_SECONDS, what="a leader")
    (leader,) = [name for name in names if leads(stack, name)]
    (other,) = set(names) - {leader}

    stack.docker("kill", leader)

    wait_until(lambda: leads(stack, other), LEAD_SECONDS + 10, what="the other to lead")
    stack.docker("start", leader)
    stack.wait_healthy("janitor")
    assert not leads(stack, leader)
