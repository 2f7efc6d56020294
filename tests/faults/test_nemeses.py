"""Real processes, random clients, and what breaks things meanwhile; a model judges what was seen.

DESIGN section 10, invariants 1 to 9. The registry of what breaks things is support/nemeses.py, the
model support/model.py; tests/unit/test_model.py shows that it can find fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from support import fault_docs, long_form
from support.crowd import Crowd
from support.fleet import running_fleet
from support.history import Fault, History
from support.model import story, summary, violations
from support.nemeses import NEMESES, Field, Nemesis, small_disk
from support.redis_nodes import (
    FAILOVER_SECONDS,
    cluster_url,
    is_primary,
    running_cluster,
    running_sentinels,
    written,
)
from support.redis_proxy import RedisProxy
from support.settling import settle, told_secrets
from support.stack import OwnRedis
from support.waiting import wait_until_async

LEASE_SECONDS = 6
# Of a drop that nobody comes for: the disk is small.
TTL_SECONDS = 300
SETTINGS: dict[str, str | int] = {
    "claim_lease_seconds": LEASE_SECONDS,
    "upload_lease_seconds": LEASE_SECONDS,
    "grace_seconds": LEASE_SECONDS + 61,
    "due_interval_seconds": 1,
    "sweep_interval_seconds": 2,
    "claim_max_seconds": 3600,
    "leader_lock": 0,
    "min_free_bytes": 0,
    "default_ttl_seconds": TTL_SECONDS,
    "log_level": "warning",
}
# What the short form always has, and how many of the others.
ALWAYS = ("deliver killed", "Redis wiped", "replies lost", "old Redis")
OTHERS = 2
DISK_MEGABYTES = 192


def dice_for(name: str) -> Random:
    return Random(f"{long_form.SEED}/{name}")


def judge(history: History, problems: list[str]) -> str:
    """Fail with what the model cannot explain; else the run in numbers."""
    found = violations(history) + problems
    if found:
        drops = [text.rpartition(" ")[2] for text in found]
        stories = [story(history, d) for d in dict.fromkeys(drops) if d in history.kept]
        numbers = f"SEED={long_form.SEED}: {summary(history)}; violations: {len(found)}"
        pytest.fail("\n".join([numbers, *found, *stories[:5]]), pytrace=False)
    return f"{summary(history)}; violations: 0"


async def strike_all(field: Field, names: Sequence[Nemesis], dice: Random) -> None:
    """One after the other, with a moment of peace between them."""
    for nemesis in names:
        await asyncio.sleep(dice.random())
        await nemesis.strike(field, dice)
    await asyncio.sleep(1)


async def run(
    folder: Path, *, names: Sequence[Nemesis] | None, minutes: float = 0, disk: Path | None = None
) -> str:
    """Clients and nemeses until all of these have struck, or all at random for so long.

    Returns:
        The run in numbers.
    """
    history = History(LEASE_SECONDS)
    dice = dice_for("nemeses")
    volume_dir = (disk or folder) / "volume"
    volume_dir.mkdir()
    with contextlib.ExitStack() as stack:
        redis_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oncedrop-")))
        redis = OwnRedis(redis_dir)
        stack.callback(redis.stop)
        async with RedisProxy(redis_dir / "redis.sock") as proxy:
            fleet = await asyncio.to_thread(
                stack.enter_context,
                running_fleet(folder, proxy.url, [volume_dir], sizes=(2, 2, 3), **SETTINGS),
            )
            crowd = Crowd(fleet, history, long_form.SEED, ttl_seconds=TTL_SECONDS)
            field = Field(fleet, history, redis, proxy, disk)
            async with loose(crowd) as clients:
                if names is not None:
                    await strike_all(field, names, dice)
                until = time.monotonic() + 60 * minutes
                while time.monotonic() < until and not clients.done():
                    usable = [n for n in NEMESES if disk or not n.needs_disk]
                    await strike_all(field, [dice.choice(usable)], dice)
            problems = await settle(fleet, redis.url, crowd)
            # Its append-only file is written once a second.
            await asyncio.sleep(1.2)
            problems += told_secrets(history, [redis_dir, folder])
            await asyncio.to_thread(stack.close)
    return judge(history, problems)


@contextlib.asynccontextmanager
async def loose(crowd: Crowd) -> AsyncIterator[asyncio.Task[None]]:
    """The crowd goes about its business while the block runs, and ends what it began."""
    going = True
    task = asyncio.create_task(crowd.run(6, lambda _: going))
    try:
        yield task
    finally:
        going = False
        await task


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A small disk for the volume; only root can have one."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "CI runs this as root"
        yield None
    else:
        with small_disk(tmp_path / "disk", DISK_MEGABYTES) as folder:
            yield folder


@pytest.mark.timeout(180)
async def test_a_handful_of_nemeses_finds_no_violation(
    tmp_path: Path, disk: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = dice_for("choice")
    chosen = [n for n in NEMESES if n.name in ALWAYS]
    others = [n for n in NEMESES if n not in chosen and (disk or not n.needs_disk)]
    chosen += dice.sample(others, OTHERS)
    dice.shuffle(chosen)
    numbers = await run(tmp_path, names=chosen, disk=disk)
    with capsys.disabled():
        print(f"\nSEED={long_form.SEED}: {numbers}")  # noqa: T201 - what was done belongs to the proof


@pytest.mark.skipif(not long_form.LONG, reason="make faults LONG=1")
@pytest.mark.timeout(60 * long_form.MINUTES + 300)
async def test_all_nemeses_at_random_find_no_violation(
    tmp_path: Path, disk: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = await run(tmp_path, names=None, minutes=long_form.MINUTES, disk=disk)
    with capsys.disabled():
        print(f"\nSEED={long_form.SEED}: {numbers}")  # noqa: T201 - as above
    fault_docs.write("long run", f"{long_form.MINUTES:g} minutes: {numbers}.")


async def traffic(folder: Path, url: str, breaking: Callable[[History], Awaitable[None]]) -> str:
    """Clients of a small fleet over this Redis, while it breaks.

    Returns:
        The run in numbers.
    """
    history = History(LEASE_SECONDS)
    volume_dir = folder / "volume"
    volume_dir.mkdir()
    with contextlib.ExitStack() as stack:
        fleet = await asyncio.to_thread(
            stack.enter_context,
            running_fleet(folder, url, [volume_dir], sizes=(1, 2, 1), **SETTINGS),
        )
        crowd = Crowd(fleet, history, long_form.SEED, ttl_seconds=TTL_SECONDS)
        async with loose(crowd):
            await asyncio.sleep(1)
            await breaking(history)
            await asyncio.sleep(1)
        problems = await settle(fleet, url, crowd)
        problems += told_secrets(history, [folder])
        await asyncio.to_thread(stack.close)
    return judge(history, problems)


def note(history: History, name: str, began: float, *, forgets: bool) -> None:
    history.faults.append(Fault(name, began, time.monotonic(), forgets))


@pytest.mark.timeout(180)
async def test_a_sentinel_failover_to_a_replica_that_is_behind_finds_no_violation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, 3: the last seconds of the primary are lost; the volume remembers."""
    with running_sentinels(tmp_path) as (nodes, url):
        primary, replica = nodes

        async def failover(history: History) -> None:
            began = time.monotonic()
            # It answers, but takes nothing more in.
            await asyncio.to_thread(replica.call, "REPLICAOF", "127.0.0.1", 1)
            await asyncio.sleep(2)
            lost = await asyncio.to_thread(lambda: written(primary) - written(replica))
            await asyncio.to_thread(primary.end)
            # Whom Sentinel promotes says whom it follows: a dead one, so it cannot catch up.
            await asyncio.to_thread(replica.call, "REPLICAOF", "127.0.0.1", primary.port)
            assert lost > 0, "the replica is not behind"
            await wait_until_async(
                lambda: asyncio.to_thread(is_primary, replica), FAILOVER_SECONDS, what="a failover"
            )
            note(history, "failover", began, forgets=True)

        numbers = await traffic(tmp_path, url, failover)
    with capsys.disabled():
        print(f"\nSEED={long_form.SEED}: {numbers}")  # noqa: T201 - as above


@pytest.mark.timeout(180)
async def test_a_cluster_whose_node_stops_and_whose_node_dies_finds_no_violation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, 3, 9: drops of the other nodes go on; a replica that is a little behind takes over."""
    with running_cluster(tmp_path, replica=True) as nodes:

        async def breaking(history: History) -> None:
            began = time.monotonic()
            nodes[2].process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2)
            nodes[2].process.send_signal(signal.SIGCONT)
            note(history, "node stopped", began, forgets=False)
            await asyncio.sleep(1)
            began = time.monotonic()
            await asyncio.to_thread(nodes[0].end)
            await wait_until_async(
                lambda: asyncio.to_thread(is_primary, nodes[3]), FAILOVER_SECONDS, what="a failover"
            )
            note(history, "node killed", began, forgets=True)

        numbers = await traffic(tmp_path, cluster_url(nodes), breaking)
    with capsys.disabled():
        print(f"\nSEED={long_form.SEED}: {numbers}")  # noqa: T201 - as above


def test_the_page_has_every_nemesis() -> None:
    rows = "\n".join(f"| {n.name} | {n.does} |" for n in NEMESES)

    assert fault_docs.read("nemeses") == f"| nemesis | what it does |\n| --- | --- |\n{rows}"
