"""Every arrow of the state machine, against a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oncedrop_common.drops import (
    ClaimHash,
    Confirm,
    Drop,
    DropId,
    DropMeta,
    DropState,
    GoneReason,
    IfInterrupted,
)
from oncedrop_common.errors import BlobDamaged, StoreUnavailable
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.arrows import Arrows, Intervals
from oncedrop_common.store.connection import Leases
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import ClaimResult, Lapse, Release, RenewClaim, TryPassword
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint, owner_hash
from support.valkey import (
    TEST_LEASES,
    TTL_SECONDS,
    let_time_pass,
    make_store,
    meta_for,
    record_fields,
    set_fields,
)

BODY = b"once and never again"
WHOLE = [(0, len(BODY))]
A, B, C = (ClaimHash(letter * 32) for letter in "abc")
DAY = 86_400


@dataclass
class Scene:
    """A drop in some state, with what its callers know."""

    store: DropStore
    owner_key: str = field(default_factory=mint)
    drop_id: DropId = field(default_factory=lambda: drop_id_of(mint()))
    meta: DropMeta = field(init=False)

    async def prepare(self, **options: Any) -> None:
        """Learn Redis' time."""
        self.meta = meta_for(BODY, self.owner_key, await self.store.now_ms(), **options)

    async def record(self) -> Drop:
        """The record, which must be there."""
        drop = await self.store.read(self.drop_id)
        assert drop is not None
        return drop

    async def revision(self) -> int:
        """What a look at the volume would name."""
        drop = await self.store.read(self.drop_id)
        return drop.revision if drop else 0

    async def claim(
        self, claim_hash: ClaimHash = A, request: str = "r1", **how: Any
    ) -> ClaimResult:
        """The word for this claim."""
        return (await self.store.claim(self.drop_id, claim_hash, request, **how))[0]

    async def renew(
        self, claim_hash: ClaimHash = A, ranges: Intervals = (), *, progressed: bool = True
    ) -> RenewClaim:
        """The word for this renewal."""
        return (
            await self.store.renew_claim(self.drop_id, claim_hash, ranges, progressed=progressed)
        )[0]

    async def deliver(
        self, claim_hash: ClaimHash = A, ranges: Intervals = WHOLE
    ) -> scripts.Deliver:
        """The word for these acknowledged ranges."""
        return (await self.store.deliver(self.drop_id, claim_hash, ranges))[0]

    async def lapse(self, claim_hash: ClaimHash = A, place: str = "claimed", **how: Any) -> Lapse:
        """The word, for who looked just now."""
        how.setdefault("revision", await self.revision())
        return (await self.store.lapse(self.drop_id, claim_hash, place=place, **how))[0]

    async def restore(self, claim_hash: ClaimHash = A) -> scripts.Restore:
        """The word, for who looked just now."""
        return await self.store.restore(self.drop_id, claim_hash, revision=await self.revision())

    async def pass_time(self, seconds: float) -> None:
        """Age the record."""
        await let_time_pass(self.store, self.drop_id, seconds)


async def scene(store: DropStore, state: str = "ready", **options: Any) -> Scene:
    """A drop in this state, brought there by the arrows alone."""
    if state == "interrupted":
        options.setdefault("if_interrupted", IfInterrupted.RESTORE)
    made = Scene(store)
    await made.prepare(**options)
    steps = PATHS[state.partition(":")[0]]
    for step in steps:
        await step(made)
    if state.startswith("gone:"):
        await set_fields(store, made.drop_id, {"reason": state.partition(":")[2]})
    return made


Step = Callable[[Scene], Awaitable[object]]


async def _open(s: Scene) -> object:
    return await s.store.open_upload(s.drop_id, s.meta.owner_hash, TTL_SECONDS)


async def _commit(s: Scene) -> object:
    return await s.store.commit(s.drop_id, s.meta)


async def _release(s: Scene) -> object:
    return await s.store.release(s.drop_id, A, "r1")


async def _end_lease(s: Scene) -> None:
    await s.pass_time(TEST_LEASES.claim + 1)


async def _end_life(s: Scene) -> None:
    await s.pass_time(TTL_SECONDS + 1)


async def _send_some(s: Scene) -> object:
    return await s.renew(A, [(0, 5)])


async def _delete(s: Scene) -> object:
    return await s.store.delete(s.drop_id)


PATHS: dict[str, list[Step]] = {
    "absent": [],
    "uploading": [_open],
    "stalled": [_open, _end_lease],
    "ready": [_open, _commit],
    "expired": [_open, _commit, _end_life],
    "claimed": [_open, _commit, Scene.claim],
    "lapsed": [_open, _commit, Scene.claim, _end_lease],
    "released": [_open, _commit, Scene.claim, _release],
    "interrupted": [_open, _commit, Scene.claim, _send_some, _end_lease, Scene.lapse],
    "gone": [_open, _commit, _delete],
}


# The table: from each state, in the order of PATHS, the word and, where it changes, the new state.


def _lapse(place: str, *, at_once: bool = False) -> Callable[[Scene, int], Awaitable[object]]:
    return lambda s, revision: s.store.lapse(
        s.drop_id, A, revision=revision, place=place, at_once=at_once
    )


ARROWS: dict[str, tuple[Callable[[Scene, int], Awaitable[object]], str]] = {
    "read": (
        lambda s, _: s.store.run(scripts.READ, s.drop_id),
        "UNKNOWN FOUND FOUND FOUND FOUND FOUND FOUND FOUND FOUND FOUND",
    ),
    "open_upload": (
        lambda s, _: s.store.open_upload(s.drop_id, s.meta.owner_hash, TTL_SECONDS),
        "OPENED>uploading OPENED OPENED EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS",
    ),
    "open_upload of another owner": (
        lambda s, _: s.store.open_upload(s.drop_id, owner_hash("another"), TTL_SECONDS),
        "OPENED>uploading EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS",
    ),
    "renew_upload": (
        lambda s, _: s.store.renew_upload(s.drop_id, s.meta.owner_hash, TTL_SECONDS),
        (
            "RENEWED>uploading RENEWED RENEWED"
            " COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED GONE"
        ),
    ),
    "abandon": (
        lambda s, _: s.store.abandon(s.drop_id, given_up=False),
        (
            "UNKNOWN LIVE ABANDONED>abandoned"
            " COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED GONE"
        ),
    ),
    "abandon, given up": (
        lambda s, _: s.store.abandon(s.drop_id, given_up=True),
        (
            "UNKNOWN ABANDONED>abandoned ABANDONED>abandoned"
            " COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED GONE"
        ),
    ),
    "commit": (
        lambda s, _: s.store.commit(s.drop_id, s.meta),
        (
            "COMMITTED>ready COMMITTED>ready COMMITTED>ready"
            " COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED COMMITTED GONE"
        ),
    ),
    "claim by A": (
        lambda s, _: s.store.claim(s.drop_id, A, "r1"),
        "UNKNOWN UPLOADING UPLOADING CLAIMED>claimed EXPIRED YOURS CLOSED CLOSED CLOSED GONE",
    ),
    "claim by B": (
        lambda s, _: s.store.claim(s.drop_id, B, "r2"),
        "UNKNOWN UPLOADING UPLOADING CLAIMED>claimed EXPIRED TAKEN TAKEN TAKEN TAKEN GONE",
    ),
    "claim by B, resume only": (
        lambda s, _: s.store.claim(s.drop_id, B, "r2", resume_only=True),
        "UNKNOWN UPLOADING UPLOADING TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN GONE",
    ),
    "release": (
        lambda s, _: s.store.release(s.drop_id, A, "r1"),
        "UNKNOWN CLOSED CLOSED CLOSED CLOSED RELEASED RELEASED RELEASED CLOSED GONE",
    ),
    "renew_claim": (
        lambda s, _: s.store.renew_claim(s.drop_id, A, [(0, 7)], progressed=True),
        "UNKNOWN CLOSED CLOSED CLOSED CLOSED RENEWED CLOSED CLOSED CLOSED GONE",
    ),
    "deliver": (
        lambda s, _: s.store.deliver(s.drop_id, A, WHOLE),
        (
            "UNKNOWN CLOSED CLOSED CLOSED CLOSED"
            " DELIVERED>delivered DELIVERED>delivered CLOSED CLOSED GONE"
        ),
    ),
    "deliver, in part": (
        lambda s, _: s.store.deliver(s.drop_id, A, [(0, 7)]),
        "UNKNOWN CLOSED CLOSED CLOSED CLOSED PARTIAL PARTIAL CLOSED CLOSED GONE",
    ),
    "lapse, file in blobs": (
        _lapse("blobs"),
        "UNKNOWN CHANGED CHANGED CHANGED CHANGED LIVE READY>ready READY>ready READY>ready GONE",
    ),
    "lapse, file in claimed": (
        _lapse("claimed"),
        "UNKNOWN CHANGED CHANGED CHANGED CHANGED LIVE INTERRUPTED>interrupted RESTORE RESTORE GONE",
    ),
    "lapse, no second chance": (
        _lapse("claimed", at_once=True),
        (
            "UNKNOWN CHANGED CHANGED CHANGED CHANGED"
            " INTERRUPTED>interrupted INTERRUPTED>interrupted RESTORE RESTORE GONE"
        ),
    ),
    "restore": (
        lambda s, revision: s.store.restore(s.drop_id, A, revision=revision),
        "UNKNOWN CHANGED CHANGED CHANGED CHANGED CHANGED CHANGED READY>ready READY>ready GONE",
    ),
    "adopt A": (
        lambda s, revision: s.store.adopt(s.drop_id, A, revision=revision),
        "UNKNOWN CHANGED CHANGED ADOPTED>claimed ADOPTED>claimed YOURS YOURS YOURS YOURS GONE",
    ),
    "adopt B": (
        lambda s, revision: s.store.adopt(s.drop_id, B, revision=revision),
        (
            "UNKNOWN CHANGED CHANGED ADOPTED>claimed ADOPTED>claimed"
            " ADOPTED ADOPTED ADOPTED ADOPTED GONE"
        ),
    ),
    "expire": (
        lambda s, _: s.store.expire(s.drop_id),
        "UNKNOWN LIVE LIVE LIVE EXPIRED>expired LIVE LIVE LIVE LIVE GONE",
    ),
    "delete": (
        lambda s, _: s.store.delete(s.drop_id),
        (
            "UNKNOWN DELETED>deleted DELETED>deleted DELETED>deleted DELETED>deleted"
            " DELETED>deleted DELETED>deleted DELETED>deleted DELETED>deleted GONE"
        ),
    ),
    "try_password": (
        lambda s, _: s.store.count_password_attempt(s.drop_id, "try1"),
        "UNKNOWN ? ? TRY TRY TRY TRY TRY TRY GONE",
    ),
    "try_password, right": (
        lambda s, _: s.store.settle_password_attempt(s.drop_id, "try1", right=True),
        "UNKNOWN ? ? RIGHT RIGHT RIGHT RIGHT RIGHT RIGHT GONE",
    ),
    "try_password, wrong": (
        lambda s, _: s.store.settle_password_attempt(s.drop_id, "try1", right=False),
        "UNKNOWN ? ? WRONG WRONG WRONG WRONG WRONG WRONG GONE",
    ),
    "lose": (
        lambda s, revision: s.store.lose(s.drop_id, revision=revision),
        "UNKNOWN CHANGED CHANGED LOST>lost LOST>lost LOST>lost LOST>lost LOST>lost LOST>lost GONE",
    ),
    "rebuild": (
        lambda s, _: s.store.rebuild(s.drop_id, s.meta, None),
        "REBUILT>ready EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS",
    ),
    "rebuild, file in claimed": (
        lambda s, _: s.store.rebuild(s.drop_id, s.meta, A),
        "REBUILT>claimed EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS EXISTS",
    ),
}

# What a repeated call may say instead of the first word.
REPEATED = {
    "CLAIMED": {"YOURS"},
    "READY": {"CHANGED"},
    "RESTORE": {"RESTORE", "CHANGED"},
    "INTERRUPTED": {"GONE"},
    "ADOPTED": {"YOURS"},
    "EXPIRED": {"EXPIRED", "GONE"},
    "DELETED": {"GONE"},
    "LOST": {"GONE"},
    "ABANDONED": {"GONE"},
    "REBUILT": {"EXISTS"},
}


def _word(result: object) -> str:
    first = result[0] if isinstance(result, tuple) else result
    assert isinstance(first, StrEnum)
    return first.value


def _where(drop: Drop | None) -> str:
    if drop is None:
        return "absent"
    return drop.reason.value if drop.reason else drop.state.value


def _comparable(record: dict[str, str]) -> dict[str, object]:
    """A record without what each call may renew: the revision and running times."""
    comparable: dict[str, object] = {}
    for name, value in record.items():
        if name.startswith("claim:"):
            claim = json.loads(value)
            comparable[name] = {k: v for k, v in claim.items() if k not in {"started", "deadline"}}
        elif name not in {"revision", "upload_deadline_ms", "gone_ms", "claimed_ms", "wrong_ms"}:
            comparable[name] = "" if name.startswith("lapsed:") else value
    return comparable


@pytest.mark.parametrize("arrow", ARROWS)
async def test_each_arrow_does_from_each_state_what_the_table_says(
    store: DropStore, arrow: str
) -> None:
    call, row = ARROWS[arrow]
    expected, found = dict(zip(PATHS, row.split(), strict=True)), {}
    for state, cell in expected.items():
        s = await scene(store, state)
        before = await store.read(s.drop_id)
        word = _word(await call(s, before.revision if before else 0))
        after = await store.read(s.drop_id)
        changed = _where(before) != _where(after)
        found[state] = f"{word}>{_where(after)}" if changed else word
        if cell == "?":
            found[state] = "?"
    assert found == expected


@pytest.mark.parametrize("arrow", ARROWS)
async def test_a_repeated_call_leaves_the_record_as_the_first_one_left_it(
    store: DropStore, arrow: str
) -> None:
    call, _ = ARROWS[arrow]
    for state in PATHS:
        s = await scene(store, state)
        revision = await s.revision()
        first = _word(await call(s, revision))
        left = await record_fields(store, s.drop_id)
        for _ in range(2):
            again = _word(await call(s, revision))
            assert again in REPEATED.get(first, {first}), f"{state}: {first}, then {again}"
            record = await record_fields(store, s.drop_id)
            assert _comparable(record) == _comparable(left), state


@pytest.mark.parametrize("arrow", ARROWS)
async def test_every_change_increments_the_revision(store: DropStore, arrow: str) -> None:
    call, _ = ARROWS[arrow]
    for state in PATHS:
        s = await scene(store, state)
        before = await record_fields(store, s.drop_id)
        await call(s, int(before.get("revision", 0)))
        after = await record_fields(store, s.drop_id)
        if before != after:
            assert int(after["revision"]) > int(before.get("revision", 0)), state


@pytest.mark.parametrize("arrow", ARROWS)
async def test_no_arrow_changes_a_tombstone(store: DropStore, arrow: str) -> None:
    call, _ = ARROWS[arrow]
    also = {GoneReason.DELIVERED: "DELIVERED", GoneReason.LOCKED: "LOCKED"}
    for reason in GoneReason:
        s = await scene(store, f"gone:{reason}")
        before = await record_fields(store, s.drop_id)
        word = _word(await call(s, int(before["revision"])))
        assert await record_fields(store, s.drop_id) == before
        assert word in {"GONE", "EXISTS", "FOUND", also.get(reason)}


@pytest.mark.parametrize(
    "arrow", ["lapse, file in blobs", "lapse, file in claimed", "restore", "adopt B", "lose"]
)
@pytest.mark.parametrize("state", ["ready", "claimed", "lapsed", "released", "interrupted"])
async def test_who_looked_before_the_last_change_changes_nothing(
    store: DropStore, arrow: str, state: str
) -> None:
    call, _ = ARROWS[arrow]
    s = await scene(store, state)
    before = await record_fields(store, s.drop_id)
    assert _word(await call(s, int(before["revision"]) - 1)) == "CHANGED"
    assert await record_fields(store, s.drop_id) == before


async def test_a_whole_life_goes_on_while_the_server_forgets_the_scripts(store: DropStore) -> None:
    s = Scene(store)
    await s.prepare(if_interrupted=IfInterrupted.RESTORE)
    steps: list[tuple[Step, str]] = [
        (_open, "OPENED"),
        (_commit, "COMMITTED"),
        (Scene.claim, "CLAIMED"),
        (_send_some, "RENEWED"),
        (_end_lease, ""),
        (Scene.lapse, "RESTORE"),
        (Scene.restore, "READY"),
        (lambda s: s.claim(B), "CLAIMED"),
        (lambda s: s.deliver(B), "DELIVERED"),
    ]
    for step, word in steps:
        await store.call("SCRIPT", "FLUSH")
        result = await step(s)
        assert result is None or _word(result) == word


# Headers.


@dataclass(frozen=True)
class Header:
    """A script's first comment."""

    name: str
    args: tuple[str, ...]
    more: bool
    words: frozenset[str]


def _header(name: str) -> Header:
    text = (importlib.resources.files("oncedrop_common.store") / "lua" / f"{name}.lua").read_text()
    comment = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    lines = [line.removeprefix("--") for line in comment.splitlines()]
    parts = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines}
    assert f"{name}:" in parts, "the first line names the script"
    assert parts["KEYS"] == ["1 record"]
    assert parts["Keeps"], "says what must hold"
    numbered = re.findall(r"(\d+)(\.\.\.)? ([a-z_]+)", "".join(parts["ARGV"]))
    assert [int(n) for n, _, _ in numbered] == list(range(1, len(numbered) + 1))
    return Header(
        name,
        tuple(arg for _, dots, arg in numbered if not dots),
        any(dots for _, dots, _ in numbered),
        frozenset(parts["Returns"][0].split(" | ")),
    )


ALL_SCRIPTS = {s.name: s for s in vars(scripts).values() if isinstance(s, scripts.Script)}


def test_every_lua_file_is_loaded() -> None:
    folder = importlib.resources.files("oncedrop_common.store") / "lua"
    files = {f.name.removesuffix(".lua") for f in folder.iterdir() if f.name.endswith(".lua")}
    assert files == {*ALL_SCRIPTS, "prelude"}


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_a_header_lists_the_words_of_the_enum_and_of_the_code(name: str) -> None:
    script = ALL_SCRIPTS[name]
    assert _header(name).words == set(script.results.__members__)
    code = script.source.removeprefix(scripts.PRELUDE)
    code = "\n".join(line for line in code.splitlines() if not line.startswith("--"))
    code = code.replace("redis.call('EXISTS'", "")
    assert _header(name).words == set(re.findall(r"'([A-Z]+)'", code))


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_a_script_reads_the_arguments_of_its_header_and_no_others(name: str) -> None:
    header = _header(name)
    code = ALL_SCRIPTS[name].source.removeprefix(scripts.PRELUDE)
    used = {int(n) for n in re.findall(r"ARGV\[(\d+)\]", code)}
    assert used == set(range(1, len(header.args) + 1))
    unpacked = re.findall(r"unpack\(ARGV, (\d+)\)", code)
    assert unpacked == ([str(len(header.args) + 1)] if header.more else [])


class _Recorder(Arrows):
    """Arrows that go nowhere: keeps what would have been sent."""

    def __init__(self) -> None:
        self.leases = Leases(upload=101, claim=102, claim_max=103, linger=104, tombstone=105)
        self.sent: list[tuple[scripts.Script[Any], tuple[str | int, ...]]] = []

    async def run(
        self,
        script: scripts.Script[Any],
        drop_id: DropId,  # noqa: ARG002 - as the wrapper calls it
        *args: str | int,
    ) -> tuple[Any, None]:
        self.sent.append((script, args))
        return next(iter(script.results.__members__.values())), None

    def cast(self, *command: str | bytes | float) -> None:
        """Nothing."""


META = meta_for(BODY, "key", 10**12, max_downloads=3)
ANY = drop_id_of("any")
# Each wrapper, called so that every argument has a value of its own.
SENT: dict[str, tuple[Callable[[Arrows], Awaitable[object]], dict[str, str | int]]] = {
    "read": (lambda a: a.read(ANY), {}),
    "open_upload": (
        lambda a: a.open_upload(ANY, "owner", 7),
        {"owner_hash": "owner", "lease_seconds": 101, "ttl_seconds": 7, "tombstone_seconds": 105},
    ),
    "renew_upload": (
        lambda a: a.renew_upload(ANY, "owner", 7),
        {"owner_hash": "owner", "lease_seconds": 101, "ttl_seconds": 7, "tombstone_seconds": 105},
    ),
    "abandon": (lambda a: a.abandon(ANY, given_up=True), {"given_up": 1}),
    "commit": (
        lambda a: a.commit(ANY, META),
        {"tombstone_seconds": 105, "expires_ms": META.expires_ms, "max_downloads": 3},
    ),
    "claim": (
        lambda a: a.claim(ANY, A, "r1", password_verified=True),
        {
            "claim_hash": A,
            "request_id": "r1",
            "lease_seconds": 102,
            "resume_only": 0,
            "password_verified": 1,
            "confirmed": 0,
        },
    ),
    "release": (lambda a: a.release(ANY, A, "r1"), {"claim_hash": A, "request_id": "r1"}),
    "renew_claim": (
        lambda a: a.renew_claim(ANY, A, [(0, 5), (7, 9)], progressed=True),
        {
            "claim_hash": A,
            "lease_seconds": 102,
            "claim_max_seconds": 103,
            "linger_seconds": 104,
            "progressed": 1,
            "ranges": "0-5 7-9",
        },
    ),
    "deliver": (
        lambda a: a.deliver(ANY, A, [(0, 5)]),
        {"claim_hash": A, "linger_seconds": 104, "ranges": "0-5"},
    ),
    "lapse": (
        lambda a: a.lapse(ANY, A, revision=9, place="blobs", at_once=True),
        {"claim_hash": A, "revision": 9, "place": "blobs", "at_once": 1},
    ),
    "restore": (lambda a: a.restore(ANY, A, revision=9), {"claim_hash": A, "revision": 9}),
    "adopt": (
        lambda a: a.adopt(ANY, A, revision=9),
        {"claim_hash": A, "revision": 9, "lease_seconds": 102},
    ),
    "expire": (lambda a: a.expire(ANY), {}),
    "delete": (lambda a: a.delete(ANY), {}),
    "try_password": (
        lambda a: a.settle_password_attempt(ANY, "t1", right=True),
        {
            "step": "right",
            "attempt_id": "t1",
            "attempts_per_pause": 5,
            "pause_seconds": 900,
            "attempts_in_all": 25,
        },
    ),
    "lose": (lambda a: a.lose(ANY, revision=9), {"revision": 9}),
    "rebuild": (
        lambda a: a.rebuild(ANY, META, A),
        {
            "claim_hash": A,
            "lease_seconds": 102,
            "tombstone_seconds": 105,
            "expires_ms": META.expires_ms,
            "max_downloads": 3,
        },
    ),
}


@pytest.mark.parametrize("name", ALL_SCRIPTS)
async def test_a_wrapper_sends_the_arguments_of_the_header_in_order(name: str) -> None:
    header, recorder = _header(name), _Recorder()
    call, expected = SENT[name]
    await call(recorder)
    ((script, args),) = recorder.sent
    assert script.name == name
    assert dict(zip(header.args, args, strict=False)) == expected
    rest = args[len(header.args) :]
    if header.more:
        assert set(rest[::2]) == {f for f in DropMeta.__dataclass_fields__ if f != "drop_id"}
        assert len(rest) == 2 * len(rest[::2])
    else:
        assert not rest


def test_every_wrapper_is_checked_against_its_header() -> None:
    public = {n for n, f in inspect.getmembers(Arrows, inspect.isfunction) if n in vars(Arrows)}
    wrappers = {n for n in public if not n.startswith("_")}
    assert wrappers - {"count_password_attempt", "settle_password_attempt"} == set(SENT) - {
        "try_password"
    }


# Claims.


@contextlib.asynccontextmanager
async def _stores(url: str, count: int) -> AsyncIterator[list[DropStore]]:
    stores = [make_store(url, timeout_seconds=30) for _ in range(count)]
    try:
        yield stores
    finally:
        for each in stores:
            await each.close()


async def test_claim_has_one_winner_among_100_visitors(store: DropStore, redis_url: str) -> None:
    s = await scene(store)
    async with _stores(redis_url, 5) as stores:
        results = await asyncio.gather(
            *(stores[n % 5].claim(s.drop_id, ClaimHash(f"{n:032x}"), f"r{n}") for n in range(100))
        )
    words = [word for word, _ in results]
    assert words.count(ClaimResult.CLAIMED) == 1
    assert words.count(ClaimResult.TAKEN) == 99
    (claim,) = (await s.record()).claims
    assert claim.claim_hash == f"{words.index(ClaimResult.CLAIMED):032x}"


async def test_max_downloads_has_as_many_winners_among_100_visitors(
    store: DropStore, redis_url: str
) -> None:
    s = await scene(store, max_downloads=3)
    async with _stores(redis_url, 5) as stores:
        results = await asyncio.gather(
            *(stores[n % 5].claim(s.drop_id, ClaimHash(f"{n:032x}"), f"r{n}") for n in range(100))
        )
    words = [word for word, _ in results]
    assert words.count(ClaimResult.CLAIMED) == 3
    assert words.count(ClaimResult.TAKEN) == 97
    assert (await s.record()).downloads_left == 0


async def test_a_claim_that_100_requests_repeat_is_theirs_once(
    store: DropStore, redis_url: str
) -> None:
    s = await scene(store)
    async with _stores(redis_url, 5) as stores:
        results = await asyncio.gather(
            *(stores[n % 5].claim(s.drop_id, A, f"r{n}") for n in range(100))
        )
    words = [word for word, _ in results]
    assert words.count(ClaimResult.CLAIMED) == 1
    assert words.count(ClaimResult.YOURS) == 99


async def test_a_protected_drop_asks_for_its_password_and_counts_no_claim(store: DropStore) -> None:
    s = await scene(store, password_hash="$argon2id$v=19$made-up")
    assert await s.claim() == "PASSWORD"
    assert (await s.record()).claims == ()
    assert await s.claim(confirmed=True) == "PASSWORD"
    assert await s.claim(password_verified=True) == "CLAIMED"
    assert await s.claim() == "YOURS", "a resume needs no password again"


async def test_a_drop_to_be_confirmed_waits_for_the_button(store: DropStore) -> None:
    s = await scene(store, confirm=Confirm.ALWAYS)
    assert await s.claim() == "CONFIRM"
    assert (await s.record()).state is DropState.READY
    assert await s.claim(confirmed=True) == "CLAIMED"
    assert await s.claim() == "YOURS"


async def test_password_and_button_are_both_needed_where_both_are_set(store: DropStore) -> None:
    s = await scene(store, confirm=Confirm.ALWAYS, password_hash="$argon2id$v=19$made-up")
    assert await s.claim(password_verified=True) == "CONFIRM"
    assert await s.claim(confirmed=True) == "PASSWORD"
    assert await s.claim(password_verified=True, confirmed=True) == "CLAIMED"


async def test_a_request_does_not_undo_a_claim_that_another_one_shares(store: DropStore) -> None:
    s = await scene(store, "claimed")
    assert await s.claim(A, "r2") == "YOURS"
    for request in ("r1", "r2"):
        word, _ = await store.release(s.drop_id, A, request)
        assert word is Release.SHARED
    assert await s.renew() is RenewClaim.RENEWED


async def test_a_repeated_claim_of_the_same_request_does_not_count_as_shared(
    store: DropStore,
) -> None:
    s = await scene(store, "claimed")
    assert await s.claim(A, "r1") == "YOURS"
    assert (await store.release(s.drop_id, A, "r1"))[0] is Release.RELEASED


async def test_only_the_request_that_began_a_claim_undoes_it(store: DropStore) -> None:
    s = await scene(store, "claimed")
    assert (await store.release(s.drop_id, A, "r9"))[0] is Release.SHARED


async def test_a_claim_whose_bytes_were_acknowledged_is_not_released(store: DropStore) -> None:
    s = await scene(store, "claimed")
    await s.renew(A, [(0, 1)])
    assert (await store.release(s.drop_id, A, "r1"))[0] is Release.SHARED


async def test_a_released_claim_uses_nothing_up(store: DropStore) -> None:
    s = await scene(store, "released")
    assert await s.claim(B) == "TAKEN", "the file is not back yet"
    assert await s.restore() == "READY"
    drop = await s.record()
    assert (drop.state, drop.downloads_left, drop.claims) == (DropState.READY, 1, ())
    assert await s.claim(B) == "CLAIMED"


async def test_a_released_download_of_several_is_free_at_once(store: DropStore) -> None:
    s = await scene(store, "claimed", max_downloads=2)
    assert await s.claim(B) == "CLAIMED"
    assert (await store.release(s.drop_id, A, "r1"))[0] is Release.RELEASED
    drop = await s.record()
    assert (drop.state, drop.downloads_left) == (DropState.READY, 1)
    assert (await store.release(s.drop_id, A, "r1"))[0] in {Release.RELEASED, Release.CLOSED}
    assert (await s.record()).downloads_left == 1


async def test_a_sent_and_lapsed_claim_can_never_be_used_again(store: DropStore) -> None:
    s = await scene(store, "interrupted")
    for after in ("while its file is away", "when the drop is ready again"):
        assert await s.claim() == "CLOSED", after
        assert await s.renew() is RenewClaim.CLOSED, after
        assert await s.deliver() == "CLOSED", after
        if after.startswith("while"):
            assert await s.restore() == "READY"
    assert await s.claim(B) == "CLAIMED"
    assert await s.claim() == "CLOSED"


async def test_a_lapsed_claim_whose_file_never_moved_leaves_the_drop_ready(
    store: DropStore,
) -> None:
    for if_interrupted in IfInterrupted:
        s = await scene(store, "lapsed", if_interrupted=if_interrupted)
        assert await s.lapse(place="blobs") is Lapse.READY
        assert (await s.record()).state is DropState.READY
        assert await s.renew() is RenewClaim.CLOSED
        assert await s.claim() == "CLOSED"
        assert await s.claim(B) == "CLAIMED"


async def test_a_lease_ends_by_the_servers_clock(redis_url: str) -> None:
    store = make_store(redis_url, replace(TEST_LEASES, claim=1))
    try:
        s = await scene(store, "claimed")
        for _ in range(3):
            await asyncio.sleep(0.4)
            assert await s.renew() is RenewClaim.RENEWED
        assert await s.lapse() is Lapse.LIVE
        await asyncio.sleep(1.05)
        assert await s.renew() is RenewClaim.CLOSED
        assert await s.claim() == "CLOSED"
        assert await s.lapse() is Lapse.INTERRUPTED
        assert (await s.record()).reason is GoneReason.INTERRUPTED
    finally:
        await store.close()


async def test_an_upload_lease_ends_by_the_servers_clock(redis_url: str) -> None:
    store = make_store(redis_url, replace(TEST_LEASES, upload=1))
    try:
        s = await scene(store, "uploading")
        await asyncio.sleep(0.6)
        await store.renew_upload(s.drop_id, s.meta.owner_hash, TTL_SECONDS)
        await asyncio.sleep(0.6)
        assert await store.abandon(s.drop_id, given_up=False) == "LIVE"
        await asyncio.sleep(0.6)
        assert await store.abandon(s.drop_id, given_up=False) == "ABANDONED"
    finally:
        await store.close()


async def test_expiry_is_judged_when_a_claim_comes_not_when_a_janitor_does(
    store: DropStore,
) -> None:
    s = Scene(store)
    await s.prepare()
    s.meta = replace(s.meta, expires_ms=await store.now_ms() + 150)
    await _commit(s)
    assert await store.expire(s.drop_id) == "LIVE"
    await asyncio.sleep(0.2)
    assert await s.claim() == "EXPIRED"
    assert (await s.record()).claims == ()
    assert await store.expire(s.drop_id) == "EXPIRED"


async def test_a_live_claim_may_finish_after_the_expiry(store: DropStore) -> None:
    s = await scene(store, "claimed", ttl_seconds=10)
    await s.pass_time(11)
    assert await store.expire(s.drop_id) == "LIVE"
    assert await s.claim() == "YOURS"
    assert await s.renew(A, [(0, 5)]) is RenewClaim.RENEWED
    assert await s.deliver() == "DELIVERED"


async def test_no_further_download_of_several_begins_after_the_expiry(store: DropStore) -> None:
    s = await scene(store, "claimed", max_downloads=3, ttl_seconds=10)
    await s.pass_time(11)
    assert await store.expire(s.drop_id) == "FINISHING"
    assert await store.expire(s.drop_id) in {"FINISHING", "LIVE"}
    assert await s.claim(B) in {"EXPIRED", "TAKEN"}
    assert await s.claim() == "YOURS"
    assert await s.deliver() == "DELIVERED"
    assert (await s.record()).reason is GoneReason.DELIVERED


async def test_a_claim_released_after_the_expiry_lets_the_drop_expire(store: DropStore) -> None:
    s = await scene(store, "claimed", max_downloads=2, ttl_seconds=10)
    await s.pass_time(11)
    assert await store.expire(s.drop_id) == "FINISHING"
    assert (await store.release(s.drop_id, A, "r1"))[0] is Release.RELEASED
    assert await s.claim(B) in {"EXPIRED", "TAKEN"}
    assert await store.expire(s.drop_id) == "EXPIRED"


async def test_progress_renews_a_lease_up_to_the_longest_life_of_a_claim(store: DropStore) -> None:
    s = await scene(store, "claimed")
    for _ in range(14):
        await s.pass_time(20)
        assert await s.renew(A, [(0, 1)]) is RenewClaim.RENEWED
    await s.pass_time(20)
    assert await s.renew(A, [(0, 2)]) is RenewClaim.CLOSED
    assert await s.lapse() is Lapse.INTERRUPTED


async def test_without_progress_a_lease_is_not_renewed(store: DropStore) -> None:
    s = await scene(store, "claimed")
    for _ in range(2):
        await s.pass_time(14)
        assert await s.renew(A, [(0, 1)], progressed=False) is RenewClaim.RENEWED
    await s.pass_time(14)
    assert await s.renew(A, [(0, 1)], progressed=False) is RenewClaim.CLOSED


async def test_a_shorter_renewal_never_takes_lease_time_away(store: DropStore) -> None:
    s = await scene(store, "claimed")
    (before,) = (await s.record()).claims
    hasty = DropStore(store.client, replace(store.leases, claim=1), store.timeout_seconds)
    await hasty.renew_claim(s.drop_id, A, [(0, 1)], progressed=True)
    (after,) = (await s.record()).claims
    assert after.deadline_ms >= before.deadline_ms


# The end.


async def test_an_empty_file_is_delivered_without_a_byte(store: DropStore) -> None:
    s = Scene(store)
    await s.prepare()
    s.meta = replace(s.meta, size=0)
    await _commit(s)
    assert await s.claim() == "CLAIMED"
    assert await s.deliver(A, []) == "DELIVERED"


async def test_an_empty_file_that_nobody_fetched_comes_back(store: DropStore) -> None:
    s = Scene(store)
    await s.prepare()
    s.meta = replace(s.meta, size=0)
    await _commit(s)
    await s.claim()
    await _end_lease(s)
    assert await s.lapse(place="blobs") is Lapse.READY


async def test_ranges_of_several_requests_add_up_to_a_delivery(store: DropStore) -> None:
    s = await scene(store, "claimed")
    assert await s.deliver(A, [(10, 20)]) == "PARTIAL"
    assert await s.renew(A, [(5, 10)]) is RenewClaim.RENEWED
    assert await s.deliver(A, [(0, 4)]) == "PARTIAL"
    assert await s.deliver(A, [(4, 5)]) == "DELIVERED"


async def test_a_lapsed_claim_whose_every_byte_arrived_was_delivered(store: DropStore) -> None:
    for options in ({}, {"if_interrupted": IfInterrupted.RESTORE}):
        s = await scene(store, "claimed", **options)
        await s.renew(A, WHOLE)
        await _end_lease(s)
        assert await s.lapse() is Lapse.DELIVERED
        assert (await s.record()).reason is GoneReason.DELIVERED


async def test_a_delivered_file_lingers_for_its_claimant_only(store: DropStore) -> None:
    store.leases = replace(store.leases, linger=20)
    s = await scene(store, "claimed")
    assert await s.deliver() == "LINGERING"
    assert await s.deliver() == "LINGERING"
    assert await s.claim() == "YOURS"
    assert await s.claim(B) == "TAKEN"
    assert await s.lapse() is Lapse.LIVE
    await s.pass_time(21)
    assert await s.claim() == "CLOSED"
    assert await s.lapse() is Lapse.DELIVERED
    assert await s.deliver() == "DELIVERED"


async def test_who_delivers_again_after_the_linger_time_ends_the_drop(store: DropStore) -> None:
    store.leases = replace(store.leases, linger=20)
    s = await scene(store, "claimed")
    assert await s.deliver() == "LINGERING"
    await s.pass_time(21)
    assert await s.deliver() == "DELIVERED"


async def test_a_drop_of_three_downloads_goes_with_the_last(store: DropStore) -> None:
    s = await scene(store, max_downloads=3)
    for claim_hash in (A, B):
        assert await s.claim(claim_hash) == "CLAIMED"
    assert await s.deliver(A) == "COUNTED"
    assert (await s.record()).state is DropState.READY
    assert await s.claim(C) == "CLAIMED"
    assert await s.claim(ClaimHash("d" * 32)) == "TAKEN"
    assert await s.deliver(C) == "COUNTED", "B still holds one"
    assert await s.deliver(B) == "DELIVERED"
    assert await s.deliver(B) == "DELIVERED"
    assert (await s.record()).reason is GoneReason.DELIVERED


async def test_a_burnt_download_of_several_is_used_up_and_a_restored_one_is_not(
    store: DropStore,
) -> None:
    for if_interrupted, left in ((IfInterrupted.BURN, 1), (IfInterrupted.RESTORE, 2)):
        s = await scene(store, "claimed", max_downloads=2, if_interrupted=if_interrupted)
        await _send_some(s)
        await _end_lease(s)
        await s.lapse(place="blobs")
        drop = await s.record()
        assert (drop.state, drop.downloads_left) == (DropState.READY, left)
        assert await s.claim() == "CLOSED"


async def test_claims_of_several_that_sent_no_byte_do_not_use_the_drop_up(
    store: DropStore,
) -> None:
    """Servers died between the claims and their first bytes; the file never moves here."""
    s = await scene(store, "claimed", max_downloads=2)
    assert await s.claim(B) == "CLAIMED"
    await _end_lease(s)
    for claim_hash in (A, B):
        await s.lapse(claim_hash, place="blobs")
    drop = await s.record()
    assert (drop.state, drop.downloads_left) == (DropState.READY, 2)


async def test_a_claim_rebuilt_from_the_volume_is_burnt_when_it_lapses(store: DropStore) -> None:
    for if_interrupted in IfInterrupted:
        s = await scene(store, "absent", if_interrupted=if_interrupted)
        assert (await store.rebuild(s.drop_id, s.meta, A))[0] == "REBUILT"
        assert await s.claim() == "YOURS"
        assert await s.claim(B) == "TAKEN"
        assert await s.lapse() is Lapse.LIVE, "its lease is fresh"
        await _end_lease(s)
        assert await s.lapse() is Lapse.INTERRUPTED


async def test_a_claim_rebuilt_from_the_volume_may_outlive_the_expiry(store: DropStore) -> None:
    s = await scene(store, "absent", ttl_seconds=-10)
    assert (await store.rebuild(s.drop_id, s.meta, A))[0] == "REBUILT"
    assert await s.claim() == "YOURS"


async def test_an_expired_blob_brings_nothing_back(store: DropStore) -> None:
    s = await scene(store, "absent", ttl_seconds=-10)
    assert await store.rebuild(s.drop_id, s.meta, None) == (scripts.Rebuild.EXPIRED, None)
    assert await store.read(s.drop_id) is None


async def test_an_adopted_claim_closes_those_that_the_volume_contradicts(store: DropStore) -> None:
    s = await scene(store, "claimed")
    assert (await store.adopt(s.drop_id, B, revision=await s.revision()))[0] == "ADOPTED"
    assert await s.renew(A) is RenewClaim.CLOSED
    assert await s.claim(A) == "CLOSED"
    assert await s.claim(B) == "YOURS"
    assert [c.claim_hash for c in (await s.record()).claims] == [B]


async def test_a_file_of_a_lapsed_claim_is_not_adopted(store: DropStore) -> None:
    s = await scene(store, "lapsed")
    await s.lapse(place="blobs")
    assert (await store.adopt(s.drop_id, A, revision=await s.revision()))[0] == "LAPSED"


async def test_deletion_ends_every_living_state_and_cuts_the_claim(store: DropStore) -> None:
    for state in ("uploading", "ready", "claimed", "interrupted"):
        s = await scene(store, state)
        assert (await store.delete(s.drop_id))[0] == "DELETED"
        assert await s.renew() is RenewClaim.GONE
        assert await s.claim() == "GONE"
        assert await store.commit(s.drop_id, s.meta) == "GONE"
        assert (await s.record()).reason is GoneReason.DELETED


DOCUMENTED = {
    "state",
    "reason",
    "gone_ms",
    "revision",
    "owner_hash",
    "created_ms",
    "expires_ms",
    "claimed_ms",
    # For the receipt: how much of how much arrived.
    "size",
    "acknowledged",
}


@pytest.mark.parametrize("state", ["uploading", "ready", "claimed", "interrupted", "released"])
async def test_a_tombstone_keeps_the_documented_fields_only(store: DropStore, state: str) -> None:
    s = await scene(store, state, password_hash="$argon2id$v=19$made-up" * (state == "ready"))
    await store.count_password_attempt(s.drop_id, "t1")
    await _delete(s)
    record = await record_fields(store, s.drop_id)
    assert set(record) <= DOCUMENTED
    assert {"state", "reason", "gone_ms", "owner_hash", "created_ms"} <= set(record)
    if state != "uploading":
        assert {"size", "expires_ms"} <= set(record)


async def test_a_tombstone_tells_the_receipt_how_far_it_went(store: DropStore) -> None:
    s = await scene(store, "claimed")
    await s.renew(A, [(0, 5), (8, 10)])
    await s.renew(A, [(3, 6)])
    await _delete(s)
    drop = await s.record()
    assert (drop.size, drop.acknowledged_bytes) == (len(BODY), 8)
    assert drop.claimed_ms >= drop.created_ms > 0
    assert drop.gone_ms >= drop.claimed_ms
    assert drop.expires_ms == s.meta.expires_ms


# How long Redis keeps a record.


async def _ttl_seconds(s: Scene) -> float:
    return float(await s.store.call("PTTL", keys.drop(s.drop_id))) / 1000


@pytest.mark.parametrize("arrow", ARROWS)
async def test_a_record_is_forgotten_a_tombstone_time_after_its_original_expiry(
    store: DropStore, arrow: str
) -> None:
    call, _ = ARROWS[arrow]
    for state in PATHS:
        s = await scene(store, state)
        await call(s, await s.revision())
        drop = await store.read(s.drop_id)
        if drop is None:
            continue
        expected = TTL_SECONDS + TEST_LEASES.tombstone
        uploading = drop.state is DropState.UPLOADING or drop.reason is GoneReason.ABANDONED
        slack = TEST_LEASES.upload if uploading or state in {"uploading", "stalled"} else 0
        assert expected - 10 <= await _ttl_seconds(s) <= expected + slack, state


async def test_a_rebuilt_claim_is_kept_a_tombstone_time_from_now_at_least(
    store: DropStore,
) -> None:
    s = await scene(store, "absent", ttl_seconds=-DAY)
    await store.rebuild(s.drop_id, s.meta, A)
    assert TEST_LEASES.tombstone - 10 <= await _ttl_seconds(s) <= TEST_LEASES.tombstone


# Passwords.


async def _try(s: Scene, attempt: str) -> TryPassword:
    return (await s.store.count_password_attempt(s.drop_id, attempt))[0]


async def _settle(s: Scene, attempt: str, *, right: bool = False) -> TryPassword:
    return (await s.store.settle_password_attempt(s.drop_id, attempt, right=right))[0]


async def _guess(s: Scene, first: int, count: int) -> None:
    for n in range(first, first + count):
        assert await _try(s, f"t{n}") is TryPassword.TRY, n
        assert await _settle(s, f"t{n}") is TryPassword.WRONG, n


async def test_five_wrong_passwords_start_a_pause_of_15_minutes(store: DropStore) -> None:
    s = await scene(store)
    await _guess(s, 0, 5)
    assert await _try(s, "t5") is TryPassword.WAIT
    await s.pass_time(899)
    assert await _try(s, "t5") is TryPassword.WAIT
    await s.pass_time(2)
    await _guess(s, 5, 5)
    assert await _try(s, "t10") is TryPassword.WAIT


async def test_25_wrong_passwords_lock_the_drop(store: DropStore) -> None:
    s = await scene(store, ttl_seconds=DAY)
    for first in (0, 5, 10, 15):
        await _guess(s, first, 5)
        await s.pass_time(901)
    await _guess(s, 20, 4)
    assert await _try(s, "t24") is TryPassword.TRY
    assert await _settle(s, "t24") is TryPassword.LOCKED
    assert (await s.record()).reason is GoneReason.LOCKED
    assert await _settle(s, "t24") is TryPassword.LOCKED
    assert await _try(s, "t25") is TryPassword.LOCKED
    assert await s.claim(password_verified=True) == "GONE"


async def test_100_parallel_guesses_get_five_tries(store: DropStore, redis_url: str) -> None:
    s = await scene(store)
    async with _stores(redis_url, 5) as stores:
        results = await asyncio.gather(
            *(stores[n % 5].count_password_attempt(s.drop_id, f"t{n}") for n in range(100))
        )
    words = [word for word, _ in results]
    assert words.count(TryPassword.TRY) == 5
    assert words.count(TryPassword.WAIT) == 95


async def test_an_attempt_that_was_never_settled_counts_as_wrong(store: DropStore) -> None:
    s = await scene(store)
    for n in range(5):
        assert await _try(s, f"t{n}") is TryPassword.TRY
    assert await _try(s, "t5") is TryPassword.WAIT


async def test_the_right_password_gives_its_attempt_back(store: DropStore) -> None:
    s = await scene(store)
    await _guess(s, 0, 4)
    for n in range(10, 20):
        assert await _try(s, f"t{n}") is TryPassword.TRY
        assert await _settle(s, f"t{n}", right=True) is TryPassword.RIGHT
    await _guess(s, 4, 1)
    assert await _try(s, "t5") is TryPassword.WAIT


async def test_a_repeated_attempt_counts_once(store: DropStore) -> None:
    s = await scene(store)
    for _ in range(11):
        assert await _try(s, "same") is TryPassword.TRY
        assert await _settle(s, "same") is TryPassword.WRONG
    await _guess(s, 0, 4)
    assert await _try(s, "t5") is TryPassword.WAIT
    assert await _try(s, "same") is TryPassword.TRY, "its reply was lost, it was counted"


async def test_the_right_password_after_a_pause_starts_no_new_pause(store: DropStore) -> None:
    s = await scene(store, max_downloads=3)
    await _guess(s, 0, 5)
    await s.pass_time(901)
    for n in (5, 6, 7):
        assert await _try(s, f"t{n}") is TryPassword.TRY, "each knows the password"
        assert await _settle(s, f"t{n}", right=True) is TryPassword.RIGHT


async def test_a_right_password_that_is_being_verified_is_not_locked_out(store: DropStore) -> None:
    s = await scene(store, ttl_seconds=DAY)
    for first in (0, 5, 10, 15):
        await _guess(s, first, 5)
        await s.pass_time(901)
    await _guess(s, 20, 4)
    assert await _try(s, "right") is TryPassword.TRY
    assert await _try(s, "other") in {TryPassword.WAIT, TryPassword.TRY}, "24 were wrong so far"
    assert await _settle(s, "right", right=True) is TryPassword.RIGHT


async def test_guesses_claim_nothing(store: DropStore) -> None:
    s = await scene(store, password_hash="$argon2id$v=19$made-up")
    await _guess(s, 0, 5)
    drop = await s.record()
    assert (drop.state, drop.claims, drop.downloads_left) == (DropState.READY, (), 1)


# Acknowledged ranges.

POINTS = st.one_of(st.integers(0, 60), st.integers(10**13 - 60, 10**13))
RANGES = st.lists(
    st.tuples(POINTS, st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=12
)


def _union(intervals: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The model: half-open intervals as sets of points, joined where they touch."""
    points = sorted({p for start, end in intervals for p in range(start, end)})
    runs: list[tuple[int, int]] = []
    for point in points:
        if runs and runs[-1][1] == point:
            runs[-1] = (runs[-1][0], point + 1)
        else:
            runs.append((point, point + 1))
    return tuple(runs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(RANGES, min_size=1, max_size=5))
@example(calls=[[(0, 10)], [(10, 20)], [(5, 5)]])
@example(calls=[[(10**13 - 1, 10**13)], [(0, 10**13 - 1)]])
async def test_acknowledged_ranges_are_a_union(
    store: DropStore, calls: list[list[tuple[int, int]]]
) -> None:
    s = await scene(store, "claimed")
    for ranges in calls:
        await s.renew(A, ranges)
    (claim,) = (await s.record()).claims
    intervals = [interval for ranges in calls for interval in ranges]
    if all(end - start < 100 for start, end in intervals):
        assert claim.acknowledged == _union(intervals)
    else:
        assert claim.acknowledged == ((0, 10**13),)
    await _delete(s)
    assert (await s.record()).acknowledged_bytes == claim.acknowledged_bytes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(starts=st.sets(st.integers(0, 5000), min_size=60, max_size=150), data=st.data())
async def test_at_most_64_ranges_are_kept_and_none_is_invented(
    store: DropStore, starts: set[int], data: st.DataObject
) -> None:
    s = await scene(store, "claimed")
    intervals = [(3 * n, 3 * n + 2) for n in starts]
    order = data.draw(st.permutations(intervals))
    half = len(order) // 2
    for ranges in (order[:half], order[half:]):
        await s.renew(A, ranges)
    (claim,) = (await s.record()).claims
    assert len(claim.acknowledged) == min(len(intervals), 64)
    assert set(claim.acknowledged) <= set(intervals)
    assert list(claim.acknowledged) == sorted(claim.acknowledged)


async def test_a_10_tb_file_is_delivered_to_the_byte(store: DropStore) -> None:
    size = 10**13
    s = Scene(store)
    await s.prepare()
    s.meta = replace(s.meta, size=size)
    await _commit(s)
    await s.claim()
    assert await s.deliver(A, [(0, size - 1)]) == "PARTIAL"
    (claim,) = (await s.record()).claims
    assert claim.acknowledged == ((0, size - 1),)
    assert await s.deliver(A, [(size - 1, size)]) == "DELIVERED"
    assert (await s.record()).acknowledged_bytes == size


# Records that are not as they must be.

GARBAGE: list[dict[str, str]] = [
    {"state": "melted"},
    {"state": ""},
    {"revision": "many"},
    {"size": "large"},
    {"size": "1e3"},
    {"expires_ms": "soon"},
    {"max_downloads": "x"},
    {"if_interrupted": "shrug"},
    {"confirm": "perhaps"},
    {"downloads_left": "\x00"},
    {"state": "gone", "reason": "bored"},
    {"name": "\udcff"},
    {f"claim:{A}": "no json"},
    {f"claim:{A}": "[]"},
    {f"claim:{A}": "null"},
    {f"claim:{A}": "{}"},
    {f"claim:{A}": '{"started":"1","deadline":"soon","ranges":""}'},
    {f"claim:{A}": '{"started":"1","deadline":"2","ranges":"a-b"}'},
    {f"claim:{A}": '{"started":"1","deadline":"2","ranges":"1-2-3"}'},
    {f"claim:{A}": '{"started":"1","deadline":"2","ranges":7}'},
    {f"claim:{A}": '{"started":Infinity,"deadline":"2","ranges":""}'},
    {f"claim:{A}": '{"started":NaN,"deadline":"2","ranges":""}'},
    {f"claim:{A}": "[" * 100_000},
    {"claim:": "{}"},
]


async def _damage(s: Scene, garbage: dict[str, str]) -> None:
    flat = [i.encode(errors="surrogateescape") for pair in garbage.items() for i in pair]
    await s.store.call("HSET", keys.drop(s.drop_id), *flat)


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: str(g)[:60])
async def test_a_damaged_record_is_reported_as_damaged(
    store: DropStore, garbage: dict[str, str]
) -> None:
    s = await scene(store, "claimed")
    await _damage(s, garbage)
    with pytest.raises(BlobDamaged):
        await store.read(s.drop_id)
    await store.glance([s.drop_id])


@pytest.mark.parametrize("missing", ["state", "revision", "owner_hash", "name", "sha256", "size"])
async def test_a_record_without_a_field_is_reported_as_damaged(
    store: DropStore, missing: str
) -> None:
    s = await scene(store, "claimed")
    await store.call("HDEL", keys.drop(s.drop_id), missing)
    with pytest.raises(BlobDamaged):
        await store.read(s.drop_id)


@pytest.mark.parametrize("arrow", ARROWS)
async def test_an_arrow_on_a_damaged_record_fails_as_damaged_or_unavailable(
    store: DropStore, arrow: str
) -> None:
    call, _ = ARROWS[arrow]
    for garbage in GARBAGE:
        for state in ("ready", "claimed"):
            s = await scene(store, state)
            await _damage(s, garbage)
            with contextlib.suppress(BlobDamaged, StoreUnavailable):
                await call(s, 0)


@pytest.mark.parametrize("field_name", ["expires_ms", "downloads_left", "size", "max_downloads"])
async def test_a_damaged_record_never_lets_a_claim_through_nor_ends_the_drop(
    store: DropStore, field_name: str
) -> None:
    s = await scene(store)
    await set_fields(store, s.drop_id, {field_name: "garbage"})
    for call in (s.claim(), store.expire(s.drop_id)):
        with pytest.raises((BlobDamaged, StoreUnavailable)):
            await call
    record = await record_fields(store, s.drop_id)
    assert record["state"] != "gone"


@pytest.mark.parametrize("arrow", ARROWS)
async def test_a_key_of_another_type_is_an_error_of_the_store(store: DropStore, arrow: str) -> None:
    call, _ = ARROWS[arrow]
    for command in (("SET", "text"), ("RPUSH", "item"), ("SADD", "member")):
        s = await scene(store, "absent")
        key = keys.drop(s.drop_id)
        await store.call(command[0], key, command[1])
        try:
            result = await call(s, 0)
        except (BlobDamaged, StoreUnavailable):
            result = None
        assert result is None or _word(result) == "EXISTS"
        assert await store.call("TYPE", key) != b"hash"
        await store.call("DEL", key)
