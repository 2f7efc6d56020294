"""Power cuts: what was told to a client outlives them (3, 1, 4), in whatever order disks write.

Each scenario runs once on real services, recorded; then, for every cut of what was done, in every
state that disk and Redis may be in, a fresh start: a visitor, sweeps, time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from oncedrop_common.drops import DropId
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import drop_id
from oncedrop_common.volume import Volume
from oncedrop_deliver.app import create_app as create_deliver
from oncedrop_ingest.app import create_app as create_ingest
from oncedrop_janitor.passes import Passes
from support.crashes import GRACE_SECONDS, LEASES, SETTINGS
from support.power_cut import Cut, cuts, everything
from support.recording import Recording, Step, content_of, served
from support.services import RawClient, files_in
from support.valkey import let_leases_pass, let_time_pass, make_older, make_store
from support.waiting import wait_until, wait_until_async

BODY = os.urandom(200_000)
LARGE = os.urandom(8 * 1024 * 1024)
_KEEP_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class Stack:
    """Recorded services."""

    ingest: str
    deliver: str
    recording: Recording

    def upload(self, body: bytes = BODY, **options: str) -> dict[str, str]:
        """Upload; link and receipt as these services have them."""
        headers = {f"Oncedrop-{k.replace('_', '-')}": v for k, v in options.items()}
        answer = httpx.put(
            f"{self.ingest}/x", content=body, headers={**headers, "Accept": "application/json"}
        )
        assert answer.status_code == 201
        document = answer.json()
        return {
            "url": self.deliver + httpx.URL(document["url"]).path,
            "owner_url": self.ingest + httpx.URL(document["owner_url"]).path,
        }


@pytest.fixture
def stack(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    volume = Volume(tmp_path / "volume")
    volume.make_root()
    settings = Settings(**SETTINGS)  # type: ignore[arg-type]
    recording = Recording(volume.root, redis_url, monkeypatch)
    ingest = create_ingest(settings, make_store(redis_url, LEASES), volume)
    deliver = create_deliver(settings, make_store(redis_url, LEASES), volume)
    with (
        served(recording.watched(ingest, "ingest"), settings) as ingest_url,
        served(recording.watched(deliver, "deliver"), settings) as deliver_url,
    ):
        yield Stack(ingest_url, deliver_url, recording)


@contextlib.contextmanager
def recorded(stack: Stack) -> Iterator[None]:
    """Record the block; nothing must have passed the shim by."""
    stack.recording.begin()
    yield
    stack.recording.end()
    assert everything(stack.recording) == content_of(stack.recording.root)


def order(steps: list[Step], *wanted: str) -> list[int]:
    """Where the first of each of these steps is: each behind the one before."""
    places = [next((at for at, step in enumerate(steps) if str(step).startswith(name)), -1)
              for name in wanted]  # fmt: skip
    done = [str(step) for step in steps]
    assert -1 not in places, f"no {wanted[places.index(-1)]} in {done}"
    assert places == sorted(places), f"{done} instead of {wanted}"
    return places


# The order itself.


def test_an_upload_is_answered_when_file_and_folders_are_on_the_disk(stack: Stack) -> None:
    with recorded(stack):
        link = stack.upload()["url"]

    steps = stack.recording.steps
    wanted = drop_id(link.rpartition("/")[2])
    places = order(
        steps, "ask OpenUpload", "told OpenUpload OPENED", f"create incoming/{wanted}",
        "sync_file", f"rename incoming/{wanted} blobs/{wanted[:2]}/{wanted}",
        f"sync_folder blobs/{wanted[:2]}", "sync_folder incoming", "ask Commit",
        "told Commit COMMITTED", "answer ingest 201",
    )  # fmt: skip
    writes = [at for at, step in enumerate(steps) if step.what == "write"]
    header = next(at for at in writes if steps[at].offset == 0)
    assert header == max(writes)
    assert max(writes) < steps[places[3]].covers
    assert places[4] < min(steps[places[5]].covers, steps[places[6]].covers)


def test_a_byte_of_a_file_is_sent_when_its_taking_is_on_the_disk(stack: Stack) -> None:
    link = stack.upload()["url"]
    wanted = drop_id(link.rpartition("/")[2])
    with recorded(stack):
        assert httpx.get(link).content == BODY
        wait_until(lambda: not files_in(stack.recording.root), 5, what="the unlink")

    steps = stack.recording.steps
    places = order(
        steps, "ask ClaimResult", "told ClaimResult CLAIMED",
        f"rename blobs/{wanted[:2]}/{wanted} claimed/{wanted}", "sync_folder claimed",
        "answer deliver 200", "bytes deliver", "ask Deliver", "told Deliver DELIVERED",
        f"unlink claimed/{wanted}",
    )  # fmt: skip
    assert places[2] < steps[places[3]].covers


# The cuts.


@dataclass(frozen=True)
class Promise:
    """What clients had been told, or given, when the power went.

    Attributes:
        kept: The link must lead to the whole file, now or when leases have lapsed.
        ended: Nobody must be given a byte any more.
    """

    kept: bool = False
    ended: bool = False


def happened(steps: list[Step], name: str) -> bool:
    return any(str(step).startswith(name) for step in steps)


def fed(steps: list[Step]) -> bool:
    return happened(steps, "bytes deliver")


def taken(steps: list[Step]) -> bool:
    return any(step.what == "rename" and step.to.startswith("claimed/") for step in steps)


class _OneShard(Volume):
    """A volume in which one drop lies: a sweep need not look at 255 empty folders."""

    def __init__(self, root: Path, drop: DropId) -> None:
        super().__init__(root)
        self._shard = drop[:2]

    def shards(self) -> tuple[str, ...]:
        """The only one."""
        return (self._shard,)


class Aftermath:
    """A fresh start after a cut: a volume, a Redis, a janitor, and who comes.

    Attributes:
        whole: How many visitors got the file.
    """

    def __init__(self, store: DropStore, root: Path, link: str, drop: DropId, body: bytes) -> None:
        self._store = store
        self._volume = _OneShard(root, drop)
        settings = Settings(**SETTINGS)  # type: ignore[arg-type]
        pairing = Pairing(store, self._volume, ephemeral=False)
        self._passes = Passes(settings, store, self._volume, pairing, Metrics("janitor"))
        self._client = httpx.AsyncClient(timeout=20)
        self._link = link
        self._body = body
        self._drop_id = drop
        self.whole = 0

    async def close(self) -> None:
        """Nobody comes any more."""
        await self._client.aclose()

    async def start(self, cut: Cut) -> None:
        """Disk and Redis are what the cut left."""
        self.whole = 0
        for path in self.files():
            path.unlink()
        for name, content in cut.files.items():
            (self._volume.root / name).write_bytes(content)
        for pattern in (keys.DROP_PREFIX + "*", "oncedrop:due:*"):
            for key in await self._store.call("KEYS", pattern):
                await self._store.call("DEL", key)
        for key, dump in cut.records.items():
            await self._store.call("RESTORE", key, 86_400_000, dump)

    async def visit(self) -> int:
        """Somebody comes; the status. Who gets the file gets all of it, and then it is gone."""
        answer = await self._client.get(self._link)
        if answer.status_code == 200:
            assert answer.content == self._body
            self.whole += 1
            await wait_until_async(self._empty, 5, what="the delivered file to be unlinked")
        else:
            assert self._body[:64] not in answer.content
        return answer.status_code

    async def _empty(self) -> bool:
        return not self.files()

    async def sweep(self) -> None:
        """One sweep mends; a second has nothing to do."""
        first, second = await self._passes.sweep(), await self._passes.sweep()
        assert (first.errors, first.damaged) == (0, 0), first.counts()
        assert second.changes == 0, second.counts()

    async def lapse(self) -> None:
        """Leases and grace go by."""
        await let_leases_pass(self._store, self._volume, self._drop_id, GRACE_SECONDS + 1)
        await self.sweep()

    async def expire(self) -> None:
        """The drop's time goes by."""
        await let_time_pass(self._store, self._drop_id, _KEEP_SECONDS)
        make_older(self._volume, self._drop_id, _KEEP_SECONDS)
        await self.sweep()

    def files(self) -> list[Path]:
        """What lies in the volume."""
        return files_in(self._volume.root)


async def outlives(aftermath: Aftermath, cut: Cut, promise: Promise, *, restorable: bool) -> None:
    """The promise holds, whether a visitor or a sweep comes first."""
    for sweep_first in (False, True):
        await aftermath.start(cut)
        if sweep_first:
            await aftermath.sweep()
        status = await aftermath.visit()
        if promise.kept:
            assert status in (200, 409, 410, 503)
        await aftermath.sweep()
        await aftermath.visit()
        await aftermath.lapse()
        await aftermath.visit()
        if promise.kept:
            assert aftermath.whole == 1
        if promise.ended:
            assert aftermath.whole == 0
        if not restorable:
            assert aftermath.whole <= 1
        if promise.ended:
            await aftermath.lapse()
            assert aftermath.files() == []
        await aftermath.expire()
        assert aftermath.files() == []


def survives(
    stack: Stack,
    redis_url: str,
    promise_at: Callable[[list[Step]], Promise],
    *,
    link: str = "",
    body: bytes = BODY,
    restorable: bool = False,
) -> None:
    """What was promised holds after each cut of what was recorded.

    Args:
        stack: With its recording.
        redis_url: Its Redis.
        promise_at: The promise when these steps were done.
        link: The drop's, if anybody has it.
        body: Its file.
        restorable: Who was given a part may be followed by somebody else.
    """
    recording = stack.recording
    names = [step.name for step in recording.steps if step.what in ("create", "rename")]
    drop = DropId([*names, *recording.baseline][0].rpartition("/")[2][:32])
    link = link or f"{stack.deliver}/d/{'A' * 22}"

    async def all_of_them() -> int:
        store = make_store(redis_url, LEASES)
        aftermath = Aftermath(store, recording.root, link, drop, body)
        count = 0
        try:
            for cut in cuts(recording):
                steps = recording.steps[: cut.steps]
                with told_about(cut, steps):
                    await outlives(aftermath, cut, promise_at(steps), restorable=restorable)
                count += 1
        finally:
            await aftermath.close()
            await store.close()
        return count

    assert asyncio.run(all_of_them()) > len(recording.steps)


@contextlib.contextmanager
def told_about(cut: Cut, steps: list[Step]) -> Iterator[None]:
    """A failure says after which cut."""
    try:
        yield
    except AssertionError as exc:
        fields = [redis_words(dump) for dump in cut.records.values()]
        exc.add_note(f"cut after {[str(step) for step in steps]}\n"
                     f"files {list(cut.files)}\nrecords {fields}")  # fmt: skip
        raise


def redis_words(dump: bytes) -> list[str]:
    """What can be read of a record's DUMP."""
    return re.findall(r"[\w:]{4,}", dump.decode("latin-1"), re.ASCII)


def test_what_was_answered_201_outlives_a_cut(stack: Stack, redis_url: str) -> None:
    with recorded(stack):
        link = stack.upload()["url"]

    survives(
        stack,
        redis_url,
        lambda steps: Promise(kept=happened(steps, "answer ingest 201")),
        link=link,
    )


def test_who_took_a_file_is_the_only_one_also_after_a_cut(stack: Stack, redis_url: str) -> None:
    link = stack.upload()["url"]
    with recorded(stack):
        assert httpx.get(link).content == BODY
        wait_until(lambda: not files_in(stack.recording.root), 5, what="the unlink")

    survives(
        stack,
        redis_url,
        lambda steps: Promise(kept=not taken(steps), ended=fed(steps)),
        link=link,
    )


def test_a_claim_that_was_undone_uses_nothing_up_also_after_a_cut(
    stack: Stack, redis_url: str
) -> None:
    link = stack.upload()["url"]
    with recorded(stack):
        claim = stack.deliver + httpx.post(link).headers["location"]
        refused = httpx.get(claim, headers={"Range": "bytes=9000000-"})
        assert refused.status_code == 416

    survives(
        stack,
        redis_url,
        lambda steps: Promise(kept=not taken(steps) or happened(steps, "answer deliver 416")),
        link=link,
    )


def test_an_interrupted_file_that_was_given_back_outlives_a_cut(
    stack: Stack, redis_url: str
) -> None:
    link = stack.upload(LARGE, resume="0", if_interrupted="restore")["url"]
    url = httpx.URL(link)
    with recorded(stack):
        client = RawClient.get(url.port or 0, url.path, receive_buffer=65536)
        client.read_body(1000)
        client.close()
        wait_until(lambda: happened(stack.recording.steps, "told Restore READY"), 5, what="the end")

    survives(
        stack,
        redis_url,
        lambda steps: Promise(kept=not taken(steps) or happened(steps, "told Restore READY")),
        link=link,
        body=LARGE,
        restorable=True,
    )


def test_a_deletion_that_was_answered_outlives_a_cut(stack: Stack, redis_url: str) -> None:
    drop = stack.upload()
    with recorded(stack):
        assert httpx.delete(drop["owner_url"]).json()["file_deleted"] is True

    survives(
        stack,
        redis_url,
        lambda steps: Promise(
            kept=not happened(steps, "ask Delete"), ended=happened(steps, "answer ingest 200")
        ),
        link=drop["url"],
    )


def test_an_upload_that_was_given_up_leaves_nothing_for_ever(stack: Stack, redis_url: str) -> None:
    def body() -> Iterator[bytes]:
        yield BODY
        raise ConnectionError

    with recorded(stack):
        with pytest.raises(ConnectionError):
            httpx.put(f"{stack.ingest}/x", content=body())
        wait_until(lambda: happened(stack.recording.steps, "told Abandon"), 5, what="the end")

    survives(stack, redis_url, lambda _: Promise())
