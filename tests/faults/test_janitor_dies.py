"""janitor dies at every step of a sweep and of a deletion; the next one finishes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from support.crash_cases import JANITOR, LARGE, SWEEP, Case
from support.crashes import World, mortal_world, visit
from support.every_kind import EveryKind
from support.services import RawClient


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with mortal_world(tmp_path_factory.mktemp("janitor"), "janitor") as world:
        yield world


@pytest.mark.parametrize("case", JANITOR, ids=lambda case: case.name)
def test_janitor_dies(world: World, case: Case) -> None:
    """4: the answer never came, and the next DELETE or sweep finishes it."""
    assert case.run(world) == case.expected


@pytest.mark.parametrize("point", SWEEP)
def test_the_next_sweep_finishes_what_one_began(world: World, point: CrashPoint) -> None:
    """5, 6: also while an upload and a download run, which it spares."""

    async def make(store: DropStore) -> EveryKind:
        kinds = EveryKind(store, world.volume)
        await kinds.make()
        # A sweep lists them anew.
        await store.pipeline([("DEL", shard) for shard in keys.DUE_SHARDS])
        return kinds

    def body() -> Iterator[bytes]:
        yield LARGE[:100_000]
        with world.dying(point, wait=False):
            pass
        world.converge()
        yield LARGE[100_000:200_000]

    world.reset()
    drop = world.put(LARGE)
    path = drop.url.removeprefix(world.stack.deliver.url)
    client = RawClient.get(world.stack.deliver.port, path, receive_buffer=65536)
    try:
        client.read_body(1000)
        kinds = world.with_store(make)
        uploaded = httpx.put(
            f"{world.stack.ingest.url}/x",
            content=body(),
            headers={"Accept": "application/json"},
            timeout=60,
        )
        assert uploaded.status_code == 201
        assert client.read_body(len(LARGE)) == LARGE
    finally:
        client.close()
        world.down()

    assert {n: world.standing(i) for n, i in kinds.ids.items()} == kinds.expected
    link = world.stack.deliver.url + httpx.URL(uploaded.json()["url"]).path
    assert visit(link).body == LARGE[:200_000]
