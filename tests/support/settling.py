"""After the faults: everything mended, leases over, and what is left is taken and looked at."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from oncedrop_common.drops import DropId, DropState
from oncedrop_common.store.connection import Leases
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.crashes import CHANGES
from support.crowd import Crowd
from support.fleet import Fleet
from support.history import History, What
from support.stack import ADMIN_TOKEN
from support.valkey import let_leases_pass, let_time_pass, make_store
from support.waiting import wait_until_async

# Beyond every lease, the grace and the pause after wrong passwords.
_LONG_SECONDS = 1000
# Beyond every life, and within that of a tombstone.
_TTL_SECONDS = 2 * 86_400
_STRANGE = ("errors", "damaged", "strangers", "held_back")
_LEASES = Leases(upload=60, claim=60, claim_max=3600, linger=0, tombstone=7 * 86_400)
_SECRET = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])|secret [0-9a-f]+")


async def settle(fleet: Fleet, redis_url: str, crowd: Crowd) -> list[str]:
    """Let leases and grace pass, sweep, and let somebody come to every link.

    Returns:
        What of invariants 4 (gone means gone) and 5 (converges) does not hold.
    """
    problems: list[str] = []
    kept = crowd.history.kept
    await asyncio.to_thread(fleet.wait_ready)
    store = make_store(redis_url, _LEASES)
    try:
        await _age(store, Volume(fleet.volume_dir), fleet.files())
        problems += await _converge(fleet)
        await crowd.take_the_rest()
        with contextlib.suppress(AssertionError):
            await wait_until_async(lambda: _none_left(fleet, kept), 10, what="the last file to go")
        # What lapses only now, or expires with its claims.
        await _age(store, Volume(fleet.volume_dir), fleet.files())
        nobodys = {path.name[:32] for path in fleet.files()} - kept.keys()
        problems += _unexplained(nobodys, crowd.history)
        for drop_id in nobodys:
            await let_time_pass(store, DropId(drop_id), _TTL_SECONDS)
        problems += await _converge(fleet)
    finally:
        await store.close()
    problems += [f"4 still in the volume: {path.name}" for path in fleet.files()]
    return problems


async def _none_left(fleet: Fleet, kept: Container[str]) -> bool:
    return not any(path.name[:32] in kept for path in await asyncio.to_thread(fleet.files))


def _unexplained(nobodys: Collection[str], history: History) -> list[str]:
    """Whether there are more drops that nobody has the link of than uploaders without an answer.

    An upload may have been committed when its answer got lost; such a drop expires.
    """
    unheard = sum(a.what is What.UPLOAD and not (a.status and a.complete) for a in history.asked)
    if len(nobodys) <= unheard:
        return []
    return [f"4 {len(nobodys)} drops are nobody's, {unheard} uploaders had no answer"]


async def _age(store: DropStore, volume: Volume, files: Sequence[Path]) -> None:
    """All that lives, and all files, become older than any lease."""
    ids = {DropId(path.name[:32]) for path in files}
    async for page in store.scan():
        glances = await store.glance(page)
        ids |= {
            d for d, g in zip(page, glances, strict=True) if g and g.state is not DropState.GONE
        }
    for drop_id in ids:
        await let_leases_pass(store, volume, drop_id, _LONG_SECONDS)


async def _converge(fleet: Fleet) -> list[str]:
    """5: one sweep heals, the next one has nothing to do."""
    first = await asyncio.to_thread(fleet.sweep)
    then = await asyncio.to_thread(fleet.sweep, -1)
    if _found(then, CHANGES).keys() == {"expired"}:
        # Some drops live for seconds only: one's life ended between the two.
        then = await asyncio.to_thread(fleet.sweep, -1)
    problems: list[str] = []
    for result, counts in ((first, _STRANGE), (then, CHANGES)):
        if "errors" not in result:
            problems.append(f"5 no sweep: {result}")
        elif (found := _found(result, counts)) or result["guard"]:
            problems.append(f"5 a sweep found {found} {result['guard'] or ''}")
    return problems


def _found(result: dict[str, Any], counts: Iterable[str]) -> dict[str, int]:
    return {name: result[name] for name in counts if result.get(name)}


def told_secrets(history: History, folders: Iterable[Path]) -> list[str]:
    """8: which files of these folders, or their names, hold a secret of this run."""
    secrets = {secret.encode() for secret in history.secrets} | {ADMIN_TOKEN.encode()}
    problems = []
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
        text = path.name.encode() + b"\n" + path.read_bytes()
        found = set(_SECRET.findall(text)) & secrets
        if found or ADMIN_TOKEN.encode() in text:
            problems.append(f"8 {path.name} holds {len(found)} secrets")
    return problems
