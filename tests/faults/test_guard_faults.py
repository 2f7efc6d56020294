"""An operator's mistakes, on the whole stack with 300 drops: the documented answer, all kept.

DESIGN section 5, the guard, and invariants 3, 6 and 9.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from oncedrop_common.store import keys
from oncedrop_common.tokens import mint
from oncedrop_common.volume import Marker, Volume
from support.services import BROWSER
from support.stack import Stack, running_stack
from support.valkey import ReadyDrop, admin, let_leases_pass, make_ready_drop, make_store
from support.waiting import wait_until

BODY = b"once and never again"
DROPS = 300
LONG_SECONDS = 1000
NOTICED_SECONDS = 15

Drops = list[ReadyDrop]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path, due_interval_seconds=1, sweep_interval_seconds=3600) as stack:
        yield stack


@pytest.fixture
def drops(stack: Stack) -> Drops:
    """Three hundred, beyond every grace."""

    async def make() -> Drops:
        store, volume = make_store(stack.redis.url), Volume(stack.volume_dir)
        try:
            old: dict[str, int] = {
                "ttl_seconds": 86_400,
                "created_ms": await store.now_ms() - 1000 * LONG_SECONDS,
            }
            made = [await make_ready_drop(store, volume, BODY, **old) for _ in range(DROPS)]
            for drop in made:
                await let_leases_pass(store, volume, drop.drop_id, LONG_SECONDS)
            return made
        finally:
            await store.close()

    return asyncio.run(make())


def link(stack: Stack, drop: ReadyDrop) -> str:
    return f"{stack.deliver.url}/d/{drop.token}"


def refused(stack: Stack, drop: ReadyDrop) -> bool:
    """Whether every service says 503, to whoever checks, looks, takes and sends."""
    checks = (f"{service.url}/readyz" for service in stack.services)
    if not all(get(url) == 503 for url in checks):
        return False
    assert get(link(stack, drop), **BROWSER) == 503
    assert get(link(stack, drop)) == 503
    assert httpx.put(f"{stack.ingest.url}/x", content=b"x").status_code == 503
    return True


def get(url: str, **headers: str) -> int:
    """The status; 0 while nobody listens."""
    try:
        return httpx.get(url, headers=headers, timeout=30).status_code
    except httpx.TransportError:
        return 0


def states(stack: Stack, drops: Drops) -> list[Any]:
    """Of their records."""
    with admin(stack.redis.url) as server:
        return [server.hget(keys.drop(drop.drop_id), "state") for drop in drops]


def assert_all_there(stack: Stack, drops: Drops) -> None:
    """Nothing was lost, and the first and the last can be had."""
    assert states(stack, drops) == [b"ready"] * DROPS
    assert len(stack.files()) == DROPS
    for drop in (drops[0], drops[-1]):
        assert httpx.get(link(stack, drop)).content == BODY
        assert httpx.get(link(stack, drop)).status_code == 410


@contextlib.contextmanager
def instead_of_the_volume(stack: Stack) -> Iterator[Path]:
    """An empty folder in the volume's place; afterwards the volume is back."""
    away = stack.volume_dir.with_name("away")
    stack.volume_dir.rename(away)
    stack.volume_dir.mkdir()
    try:
        yield stack.volume_dir
    finally:
        stack.volume_dir.rename(away.with_name("what was there"))
        away.rename(stack.volume_dir)
        stack.wait_ready()


@contextlib.contextmanager
def with_database(stack: Stack, number: int) -> Iterator[None]:
    """All services use another database of the same server; afterwards the right one again."""
    for service in stack.services:
        service.stop()
        service.start(wait=False, redis_url=f"{stack.redis.url}?db={number}")
    try:
        yield
    finally:
        for service in stack.services:
            service.stop()
            service.start(wait=False)
        stack.wait_ready()


def test_an_unmounted_volume_is_503_and_is_not_taken_into_use(stack: Stack, drops: Drops) -> None:
    with instead_of_the_volume(stack) as empty:
        wait_until(lambda: refused(stack, drops[0]), NOTICED_SECONDS, what="the guard")

        assert stack.sweep()["type"].endswith("sweep_guarded")
        assert list(empty.iterdir()) == []
        assert states(stack, drops) == [b"ready"] * DROPS

    assert_all_there(stack, drops)


def test_the_wrong_volume_is_503_and_neither_side_loses_anything(
    stack: Stack, drops: Drops
) -> None:
    with instead_of_the_volume(stack) as folder:
        another = Volume(folder)
        another.write_marker(Marker(mint(), 1))
        another.make_layout()
        alien = folder / "blobs" / "ab" / ("ab" * 16)
        alien.parent.mkdir(exist_ok=True)
        alien.write_bytes(b"of another Redis")
        wait_until(lambda: refused(stack, drops[0]), NOTICED_SECONDS, what="the guard")

        assert stack.sweep()["type"].endswith("sweep_guarded")
        assert alien.read_bytes() == b"of another Redis"
        assert states(stack, drops) == [b"ready"] * DROPS

    assert_all_there(stack, drops)


def test_an_empty_redis_adopts_the_volume_and_every_drop_is_rebuilt(
    stack: Stack, drops: Drops
) -> None:
    with admin(stack.redis.url) as server:
        server.flushall()

    assert httpx.get(link(stack, drops[7]), headers=BROWSER).status_code == 200
    result = stack.sweep()

    assert (result["removed"], result["held_back"], result["guard"]) == (0, 0, None)
    assert_all_there(stack, drops)


def test_the_wrong_database_is_an_empty_redis_and_gives_nothing_twice(
    stack: Stack, drops: Drops
) -> None:
    used = drops[5]
    with with_database(stack, 1):
        stack.wait_ready()
        result = stack.sweep()
        assert (result["records"] + result["rebuilt"], result["removed"]) == (DROPS, 0), result
        assert httpx.get(link(stack, used)).content == BODY

    assert httpx.get(link(stack, used)).status_code in (410, 503)
    assert states(stack, drops).count(b"ready") >= DROPS - 1
    assert len(stack.files()) == DROPS - 1
    assert httpx.get(link(stack, drops[6])).content == BODY


def test_a_database_of_another_volume_is_503_and_keeps_what_it_has(
    stack: Stack, drops: Drops
) -> None:
    with redis.Redis.from_url(f"{stack.redis.url}?db=2") as server:
        server.set(keys.VOLUME, "another one's")
        with with_database(stack, 2):
            wait_until(lambda: refused(stack, drops[0]), NOTICED_SECONDS, what="the guard")
            assert stack.sweep()["type"].endswith("sweep_guarded")

        assert server.keys(keys.DROP_PREFIX + "*") == []
        assert server.get(keys.VOLUME) == b"another one's"
    assert_all_there(stack, drops)


def removed_by_hand(stack: Stack, count: int) -> dict[Path, bytes]:
    """So many files; what was in them."""
    contents = {path: path.read_bytes() for path in stack.files()[:count]}
    for path in contents:
        path.unlink()
    return contents


def taken(stack: Stack, drops: Drops, removed: dict[Path, bytes]) -> tuple[set[int], set[int]]:
    """What visitors are told who take two drops whose file was removed, and two of the others."""
    names = {path.name for path in removed}
    without = [drop for drop in drops if drop.drop_id in names]
    others = [drop for drop in drops if drop.drop_id not in names]
    told = []
    for some in (without, others):
        told.append({get(link(stack, drop)) for drop in some[:2]})
        # Given away: somebody else's next time.
        drops[:] = [drop for drop in drops if drop not in some[:2]]
    return told[0], told[1]


def test_half_of_the_files_removed_by_hand_their_records_go_and_no_other(
    stack: Stack, drops: Drops
) -> None:
    removed = removed_by_hand(stack, DROPS // 2)

    result = stack.sweep()

    assert (result["guard"], result["orphan_records"]) == (None, DROPS // 2)
    assert states(stack, drops).count(b"ready") == len(stack.files()) == DROPS // 2
    assert taken(stack, drops, removed) == ({410}, {200})


@pytest.mark.parametrize("remedy", ["force", "files put back"])
def test_more_than_half_of_the_files_removed_by_hand_nothing_is_lost_until_the_remedy(
    stack: Stack, drops: Drops, remedy: str
) -> None:
    removed = removed_by_hand(stack, 160)

    for _ in range(2):
        result = stack.sweep()
        assert "160 of 300 records have no file" in result["guard"]
        assert (result["removed"], result["held_back"]) == (0, 160)
    assert states(stack, drops) == [b"ready"] * DROPS
    assert len(stack.files()) == DROPS - 160
    assert get(f"{stack.janitor.url}/readyz") == 503
    # The rest is served. A request never loses a record; only a sweep does.
    assert get(f"{stack.deliver.url}/readyz") == 200
    assert taken(stack, drops, removed) == ({503}, {200})

    lost = 160
    if remedy == "force":
        result = stack.sweep(force="1")
    else:
        others = {drop.drop_id for drop in drops}
        for path in [path for path in removed if path.name in others][:20]:
            path.write_bytes(removed.pop(path))
        lost = 140
        result = stack.sweep()

    # Two were asked for just now: younger than grace.
    assert (result["guard"], result["orphan_records"]) == (None, lost - 2)
    assert len(stack.files()) == DROPS - lost - 2
    assert taken(stack, drops, removed) == ({410}, {200})
    assert get(f"{stack.janitor.url}/readyz") == 200
