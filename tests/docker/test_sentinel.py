"""compose.scale.yaml: the primary dies in the middle of races (DESIGN section 10: 1 and 3)."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Iterator

import httpx
import pytest

from support.compose import Compose, running_compose
from support.services import BROWSER, strangers
from support.waiting import wait_until, wait_until_async

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BODY = os.urandom(100_000)
NODES = {"11": "valkey", "12": "valkey-2", "13": "valkey-3"}
FAILOVER_SECONDS = 60
# Several times the two seconds that Redis may take.
AWAY_SECONDS = 15


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with running_compose(
        tmp_path_factory.mktemp("sentinel"),
        files=("compose.yaml", "compose.scale.yaml"),
        claim_lease_seconds=5,
        linger_seconds=0,
    ) as stack:
        yield stack


def primary(stack: Compose) -> str:
    """The service that the first sentinel takes for the primary."""
    (sentinel,) = stack.containers("sentinel-1")
    command = "valkey-cli -p 26379 sentinel get-master-addr-by-name oncedrop"
    return NODES[stack.shell(sentinel, command).split()[0].rpartition(".")[2]]


def container_of(stack: Compose, service: str) -> str:
    (name,) = stack.containers(service)
    return name


async def get(client: httpx.AsyncClient, url: str, **headers: str) -> httpx.Response | None:
    try:
        return await client.get(url, headers=headers)
    except httpx.TransportError:
        return None


async def won(client: httpx.AsyncClient, url: str) -> bool:
    answer = await get(client, url)
    assert answer is None or answer.status_code in (200, 410, 503), answer
    return answer is not None and answer.status_code == 200 and answer.content == BODY


async def upload(client: httpx.AsyncClient, stack: Compose) -> str | None:
    """The link; None when the upload was not acknowledged."""
    answer = await client.put(f"{stack.url}/x", content=BODY)
    assert answer.status_code in (201, 503), answer
    return answer.text.strip() if answer.status_code == 201 else None


async def race(stack: Compose, victim: str) -> tuple[list[int], int]:
    """Wins per acknowledged drop, and how many uploads were acknowledged after the kill."""
    wins: dict[str, int] = {}
    killed = asyncio.Event()
    late = 0

    async def uploads(client: httpx.AsyncClient, until: float) -> None:
        nonlocal late
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            if url := await upload(client, stack):
                wins[url] = 0
                late += killed.is_set()
                rounds.append(asyncio.create_task(visits(client, url)))
            await asyncio.sleep(0.1)

    async def visits(client: httpx.AsyncClient, url: str) -> None:
        results = await asyncio.gather(*(won(client, url) for _ in range(10)))
        wins[url] += sum(results)

    async def settled(client: httpx.AsyncClient, url: str) -> bool:
        wins[url] += await won(client, url)
        return wins[url] > 0

    rounds: list[asyncio.Task[None]] = []
    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(timeout=120, limits=limits, cookies=strangers()) as client:
        running = asyncio.create_task(uploads(client, asyncio.get_running_loop().time() + 25))
        await asyncio.sleep(5)
        await asyncio.to_thread(stack.docker, "kill", victim)
        killed.set()
        await running
        await asyncio.gather(*rounds)
        # A claim whose answer was lost sent nothing: it lapses, and the link works again.
        for url in [url for url, count in wins.items() if count == 0]:
            await wait_until_async(
                functools.partial(settled, client, url), FAILOVER_SECONDS, what="an unused link"
            )
        for url in wins:
            wins[url] += await won(client, url)
    return list(wins.values()), late


def test_the_primary_killed_in_mid_race_no_link_works_twice_and_none_is_lost(
    stack: Compose,
) -> None:
    """1, 3."""
    waiting = [stack.upload(BODY) for _ in range(20)]
    used = stack.upload(BODY)
    assert httpx.get(used["url"]).content == BODY
    first = primary(stack)

    wins, late = asyncio.run(race(stack, container_of(stack, first)))

    assert len(wins) > 20
    assert set(wins) == {1}
    assert late > 0
    assert primary(stack) != first
    assert httpx.get(used["url"], timeout=60).status_code in (404, 410)
    for drop in waiting:
        assert httpx.get(drop["url"], headers=BROWSER, timeout=60).status_code == 200
        assert httpx.get(drop["url"], timeout=60).content == BODY
        assert httpx.get(drop["url"], timeout=60).status_code == 410


def test_the_old_primary_comes_back_as_a_replica_and_everything_outlives_down_and_up(
    stack: Compose,
) -> None:
    drop, used = stack.upload(BODY), stack.upload(BODY)
    assert httpx.get(used["url"]).content == BODY
    for service in NODES.values():
        stack.docker("start", container_of(stack, service))
    leader = primary(stack)

    def roles() -> list[str]:
        return sorted(
            stack.valkey("ROLE", container=container_of(stack, node)).split()[0]
            for node in NODES.values()
        )

    wait_until(lambda: roles() == ["master", "slave", "slave"], 60, what="two replicas")
    stack("down", "--timeout", "5")
    stack.up(build=False)

    assert primary(stack) == leader
    wait_until(lambda: roles() == ["master", "slave", "slave"], 60, what="two replicas")
    assert httpx.get(used["url"], timeout=60).status_code == 410
    assert httpx.get(drop["url"], timeout=60).content == BODY


def test_with_every_node_away_requests_are_refused_soon_and_work_again_afterwards(
    stack: Compose,
) -> None:
    """9: names that no longer resolve included."""
    drop = stack.upload(BODY)
    nodes = [container_of(stack, service) for service in NODES.values()]
    stack.docker("stop", "--time", "5", *nodes)
    try:
        for method, path in [("PUT", "/x"), ("GET", "/d/" + "A" * 22), ("GET", drop["url"])]:
            url = path if path.startswith("http") else stack.url + path
            answer = httpx.request(method, url, timeout=AWAY_SECONDS)
            assert answer.status_code == 503, answer
    finally:
        stack.docker("start", *nodes)

    def answers() -> bool:
        return httpx.put(f"{stack.url}/x", content=BODY, timeout=60).status_code == 201

    wait_until(answers, FAILOVER_SECONDS, what="uploads to be taken again")
    assert httpx.get(drop["url"], timeout=60).content == BODY
