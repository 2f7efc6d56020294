"""The store on a Redis Cluster of three real nodes: all of it, and what a node's absence costs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from oncedrop_common.drops import DropId, DropState
from oncedrop_common.errors import StoreUnavailable
from oncedrop_common.pairing import Pairing
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import claim_hash, mint
from oncedrop_common.volume import Volume
from support.redis_nodes import FAILOVER_SECONDS, Node, cluster_url, running_cluster
from support.valkey import ReadyDrop, make_ready_drop, make_store
from support.waiting import wait_until_async

TIMEOUT_SECONDS = 2.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    with running_cluster(tmp_path, replica=True) as nodes:
        yield nodes


@pytest.fixture
async def store(nodes: list[Node]) -> AsyncIterator[DropStore]:
    store = make_store(cluster_url(nodes), timeout_seconds=TIMEOUT_SECONDS)
    yield store
    await store.close()


async def ready_drops(store: DropStore, volume: Volume, count: int) -> list[ReadyDrop]:
    return await asyncio.gather(*(make_ready_drop(store, volume) for _ in range(count)))


def slots_of(node: Node, drops: list[ReadyDrop]) -> list[DropId]:
    """The drops that this node has."""
    names = set(node.call("KEYS", "*"))
    return [d.drop_id for d in drops if keys.drop(d.drop_id) in names]


async def outcome(store: DropStore, drop_id: DropId) -> bool:
    try:
        return await store.read(drop_id) is not None
    except StoreUnavailable:
        return False


async def test_all_that_services_ask_of_a_store_works_on_three_nodes(
    store: DropStore, volume: Volume, nodes: list[Node]
) -> None:
    drops = await ready_drops(store, volume, 40)
    ids = [drop.drop_id for drop in drops]

    scanned = [drop_id async for page in store.scan(7) for drop_id in page]
    glances = await store.glance(ids)
    records = await asyncio.gather(*map(store.read, ids))
    due = await store.due(await store.now_ms() + 10**9, 100)

    assert all(slots_of(node, drops) for node in nodes[:3])
    assert sorted(scanned) == sorted(ids)
    assert {glance.state for glance in glances if glance} == {DropState.READY}
    assert [record.drop_id for record in records if record] == ids
    assert sorted(due) == sorted(ids)
    await store.forget_due(ids)
    assert await store.due(10**14, 100) == []
    assert await store.usage() == (0, 40)
    assert len(await store.last_events(100)) == 40
    assert [e.name for e in await store.events_of(ids[0], 0, 10**14)] == ["created"]
    assert await store.events_after("$", 100) == []
    assert await store.lead("me", 5)
    assert not await store.lead("another", 5)
    await store.save_pass("due", {"scanned": 1})
    assert await store.load_pass("due") == {"scanned": 1}


async def test_a_claim_has_one_winner_and_a_life_ends_on_every_node(
    store: DropStore, volume: Volume
) -> None:
    drops = await ready_drops(store, volume, 12)

    for drop in drops:
        hashes = [claim_hash(mint()) for _ in range(10)]
        answers = await asyncio.gather(*(store.claim(drop.drop_id, h, "r") for h in hashes))
        won = [h for h, (word, _) in zip(hashes, answers, strict=True) if word == "CLAIMED"]
        assert len(won) == 1
        word, _ = await store.deliver(drop.drop_id, won[0], [(0, 20)])
        assert word is scripts.Deliver.DELIVERED


async def test_each_primary_is_asked_whether_it_keeps_what_it_is_given(
    store: DropStore, nodes: list[Node]
) -> None:
    assert await store.server_warnings() == []

    nodes[2].call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    assert await store.server_warnings() == [
        "Redis may evict records: set maxmemory-policy noeviction"
    ]


async def test_a_silent_node_fails_its_own_drops_and_delays_no_other(
    store: DropStore, volume: Volume, nodes: list[Node]
) -> None:
    drops = await ready_drops(store, volume, 30)
    silent = set(slots_of(nodes[2], drops))
    nodes[2].process.send_signal(signal.SIGSTOP)
    took: dict[DropId, float] = {}

    async def ask(drop_id: DropId) -> bool:
        began = time.monotonic()
        answered = await outcome(store, drop_id)
        took[drop_id] = time.monotonic() - began
        return answered

    # In one turn of the loop: they would travel together.
    answers = await asyncio.gather(*(ask(d.drop_id) for d in drops))

    assert {d.drop_id for d, ok in zip(drops, answers, strict=True) if not ok} == silent
    assert max(took[d.drop_id] for d in drops if d.drop_id not in silent) < TIMEOUT_SECONDS / 2
    assert max(took.values()) < TIMEOUT_SECONDS + 1
    nodes[2].process.send_signal(signal.SIGCONT)

    async def all_answered() -> bool:
        return all(await asyncio.gather(*(outcome(store, d.drop_id) for d in drops)))

    await wait_until_async(all_answered, 10, what="the node to be asked again")


async def test_when_a_replica_takes_over_its_drops_are_found_there(
    store: DropStore, volume: Volume, nodes: list[Node]
) -> None:
    drops = await ready_drops(store, volume, 30)
    assert slots_of(nodes[0], drops)
    nodes[0].call("WAIT", 1, 2000)

    os.kill(nodes[0].process.pid, signal.SIGKILL)

    async def all_answered() -> bool:
        return all(await asyncio.gather(*(outcome(store, d.drop_id) for d in drops)))

    await wait_until_async(all_answered, FAILOVER_SECONDS, what="the failover")
    assert len([i async for page in store.scan() for i in page]) == 30


async def test_pairing_works_with_a_cluster(store: DropStore, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "another")
    volume.make_root()

    marker = await Pairing(store, volume, ephemeral=False).check()

    assert await store.volume_id() == marker.volume_id
