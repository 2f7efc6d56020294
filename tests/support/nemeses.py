"""What breaks things while clients go on: a registry, each with dice of its own.

A nemesis ends with everything running again. Each one says whether Redis may have forgotten
something through it; the model needs to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from support.fleet import Fleet
from support.history import Fault, History
from support.redis_proxy import RedisProxy
from support.services import Service
from support.stack import OwnRedis
from support.valkey import admin


@dataclass
class Field:
    """What can be broken.

    Attributes:
        disk: The folder of a small file system of which the volume is a part; None: there is none.
    """

    fleet: Fleet
    history: History
    redis: OwnRedis
    proxy: RedisProxy
    disk: Path | None = None


Work = Callable[[Field, Random], Awaitable[None]]


@dataclass(frozen=True)
class Nemesis:
    """One way to break things.

    Attributes:
        does: In words, for docs/faults.md.
        forgets: Redis may know less afterwards.
        needs_disk: Only where the volume lies on a small disk of its own.
    """

    name: str
    does: str
    work: Work
    forgets: bool = False
    needs_disk: bool = False

    async def strike(self, field: Field, dice: Random) -> None:
        """Break things, mend them, and note from when to when they were broken."""
        began = time.monotonic()
        try:
            await self.work(field, dice)
        finally:
            fault = Fault(self.name, began, time.monotonic(), self.forgets)
            field.history.faults.append(fault)


NEMESES: list[Nemesis] = []


def nemesis(
    name: str, *, forgets: bool = False, needs_disk: bool = False
) -> Callable[[Work], Work]:
    """Register one; its docstring is what it does."""

    def register(work: Work) -> Work:
        does = (work.__doc__ or "").strip()
        NEMESES.append(Nemesis(name, does, work, forgets, needs_disk))
        return work

    return register


# Services.


async def _killed(services: Sequence[Service], dice: Random) -> None:
    service = dice.choice(services)
    await asyncio.to_thread(service.kill)
    await asyncio.sleep(dice.random() * 1.5)
    await asyncio.to_thread(service.start)


async def _stopped(services: Sequence[Service], dice: Random, most_seconds: float) -> None:
    process = dice.choice(services).process
    process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.2 + dice.random() * most_seconds)
    finally:
        process.send_signal(signal.SIGCONT)


@nemesis("ingest killed")
async def ingest_killed(field: Field, dice: Random) -> None:
    """`kill -9` of an ingest; started again after up to 1.5 s."""
    await _killed(field.fleet.ingests, dice)


@nemesis("deliver killed")
async def deliver_killed(field: Field, dice: Random) -> None:
    """`kill -9` of a deliver; started again after up to 1.5 s."""
    await _killed(field.fleet.delivers, dice)


@nemesis("janitor killed")
async def janitor_killed(field: Field, dice: Random) -> None:
    """`kill -9` of a janitor; started again after up to 1.5 s."""
    await _killed(field.fleet.janitors, dice)


@nemesis("ingest stopped")
async def ingest_stopped(field: Field, dice: Random) -> None:
    """SIGSTOP of an ingest, SIGCONT after a time that may be longer than the upload lease."""
    await _stopped(field.fleet.ingests, dice, field.history.lease_seconds + 2)


@nemesis("deliver stopped")
async def deliver_stopped(field: Field, dice: Random) -> None:
    """SIGSTOP of a deliver, SIGCONT after a time that may be longer than the claim lease."""
    await _stopped(field.fleet.delivers, dice, field.history.lease_seconds + 2)


@nemesis("janitor stopped")
async def janitor_stopped(field: Field, dice: Random) -> None:
    """SIGSTOP of a janitor in the middle of what it does, SIGCONT up to 4 s later."""
    await _stopped(field.fleet.janitors, dice, 4)


@nemesis("janitors sweep together")
async def janitors_sweep_together(field: Field, dice: Random) -> None:
    """All janitors are told to sweep at the same time, several times; none has a leader lock."""
    for _ in range(dice.randrange(1, 4)):
        await asyncio.gather(
            *(asyncio.to_thread(field.fleet.sweep, n) for n in range(len(field.fleet.janitors)))
        )


# Redis.


@nemesis("Redis killed", forgets=True)
async def redis_killed(field: Field, dice: Random) -> None:
    """`kill -9` of valkey, which syncs its file once a second; started again after up to 2 s."""
    await asyncio.to_thread(field.redis.kill)
    await asyncio.sleep(dice.random() * 2)
    await asyncio.to_thread(field.redis.start)


@nemesis("old Redis", forgets=True)
async def redis_old(field: Field, dice: Random) -> None:
    """Valkey is killed and comes back with a copy of its file that is up to 4 s old."""
    now = field.redis.folder / "appendonlydir"
    old = field.redis.folder / "old"
    await asyncio.to_thread(shutil.copytree, now, old)
    try:
        await asyncio.sleep(0.5 + dice.random() * 3.5)
        await asyncio.to_thread(field.redis.kill)
        shutil.rmtree(now)
        old.rename(now)
    finally:
        shutil.rmtree(old, ignore_errors=True)
        await asyncio.to_thread(field.redis.start)


@nemesis("Redis wiped", forgets=True)
async def redis_wiped(field: Field, _: Random) -> None:
    """FLUSHALL."""

    def flush() -> None:
        with admin(field.redis.url) as redis:
            redis.flushall()

    await asyncio.to_thread(flush)


@nemesis("Redis paused")
async def redis_paused(field: Field, dice: Random) -> None:
    """CLIENT PAUSE for up to 4 s: longer than the services wait."""
    seconds = 0.2 + dice.random() * 3.8

    def pause() -> None:
        with admin(field.redis.url) as redis:
            redis.client_pause(round(seconds * 1000))

    await asyncio.to_thread(pause)
    await asyncio.sleep(seconds)


@nemesis("Redis stopped")
async def redis_stopped(field: Field, dice: Random) -> None:
    """SIGSTOP of valkey, SIGCONT up to 4 s later: what was sent meanwhile is done then."""
    field.redis.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.2 + dice.random() * 3.8)
    finally:
        field.redis.signal(signal.SIGCONT)


@nemesis("replies lost")
async def replies_lost(field: Field, dice: Random) -> None:
    """Commands are executed, their replies dropped and the connections reset, up to 20 times."""
    for _ in range(dice.randrange(1, 6)):
        field.proxy.lose(dice.randrange(1, 5))
        await asyncio.sleep(dice.random() * 0.3)


@nemesis("connections reset")
async def connections_reset(field: Field, dice: Random) -> None:
    """Every connection to Redis is reset, whatever is on its way, several times."""
    for _ in range(dice.randrange(1, 6)):
        field.proxy.cut()
        await asyncio.sleep(dice.random() * 0.3)


# The volume.


@nemesis("disk full", needs_disk=True)
async def disk_full(field: Field, dice: Random) -> None:
    """The volume's disk is filled to the last byte, and freed up to 3 s later."""
    assert field.disk is not None
    ballast = field.disk / "ballast"
    try:
        await asyncio.to_thread(_fill, ballast)
        for _ in range(dice.randrange(2, 10)):
            await asyncio.sleep(0.3)
            # Deletions made room again.
            await asyncio.to_thread(_fill, ballast)
    finally:
        ballast.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while os.write(fd, bytes(size)):
                    pass
    finally:
        os.close(fd)


@nemesis("volume away")
async def volume_away(field: Field, dice: Random) -> None:
    """The volume's folder is not there for up to 3 s, as if it were not mounted."""
    away = field.fleet.volume_dir.with_name("away")
    field.fleet.volume_dir.rename(away)
    try:
        await asyncio.sleep(0.2 + dice.random() * 2.8)
    finally:
        with _nothing_in(field.fleet.volume_dir):
            away.rename(field.fleet.volume_dir)


@contextlib.contextmanager
def _nothing_in(folder: Path) -> Iterator[None]:
    """Whoever made anything in an unmounted volume's place has lost a drop."""
    if folder.exists():
        left = [p for p in folder.rglob("*") if p.is_file()]
        assert left == [], f"written beside the volume: {left}"
        shutil.rmtree(folder)
    yield


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory of this size; needs root."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
