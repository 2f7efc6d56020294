"""A stack in which one service dies on purpose: what clients saw, what was left, what became of it.

Time passes by making records and files older, not by waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from oncedrop_common.crash_points import EXIT_CODE
from oncedrop_common.drops import DropId
from oncedrop_common.store import keys
from oncedrop_common.store.connection import Leases
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.services import Service
from support.stack import ADMIN_TOKEN, Stack, running_stack
from support.valkey import (
    admin,
    leaks,
    let_leases_pass,
    let_time_pass,
    make_older,
    make_ready_drop,
    make_store,
    record_fields,
    set_fields,
)
from support.waiting import wait_until

ServiceName = Literal["ingest", "deliver", "janitor"]
T = TypeVar("T")

LEASE_SECONDS = 60
GRACE_SECONDS = 2 * LEASE_SECONDS + 1
# Nothing happens by itself: a start-up sweep, then only what a test asks for.
SETTINGS: dict[str, str | int] = {
    "upload_lease_seconds": LEASE_SECONDS,
    "claim_lease_seconds": LEASE_SECONDS,
    "grace_seconds": GRACE_SECONDS,
    "due_interval_seconds": 3600,
    "sweep_interval_seconds": 3600,
    "claim_max_seconds": 3600,
}
LEASES = Leases(upload=LEASE_SECONDS, claim=LEASE_SECONDS, claim_max=3600, linger=0,
                tombstone=7 * 86_400)  # fmt: skip
DEATH_SECONDS = 20

CHANGES = ("orphan_files", "orphan_records", "expired", "abandoned", "leftovers", "interrupted",
            "delivered", "lapsed", "rebuilt", "adopted", "restored", "committed", "held_back",
            "damaged", "strangers", "errors")  # fmt: skip


@dataclass
class Visit:
    """What one visitor got.

    Attributes:
        status: None: no answer came.
        complete: The response came to its end.
    """

    status: int | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    received: bytes = b""
    complete: bool = False

    @property
    def body(self) -> bytes:
        """The part of the file it was given; a refusal's words are none."""
        return self.received if self.status in (200, 206) else b""

    @property
    def claim_path(self) -> str | None:
        """Where it may resume, if it was told."""
        path: str | None = self.headers.get("content-location") or self.headers.get("location")
        return path

    def saw(self, body: bytes) -> str:
        """In words."""
        if self.status is None:
            return "no answer"
        if self.status not in (200, 206):
            return f"{self.status}"
        if not self.body:
            return "the head"
        return "the whole file" if self.body == body else "a part"


def visit(url: str, *, method: str = "GET", **request: Any) -> Visit:
    """Ask once, and keep what comes until the answer or the connection ends."""
    seen = Visit()
    with contextlib.suppress(httpx.TransportError):
        with httpx.stream(method, url, timeout=30, **request) as answer:
            seen.status, seen.headers = answer.status_code, answer.headers
            for chunk in answer.iter_raw():
                seen.received += chunk
        seen.complete = True
    return seen


@dataclass
class Story:
    """One drop, from outside.

    Attributes:
        downloads: How many claims may be fed.
        restorable: A lapsed claim gives the file to the next, also when a server died that knew
            how far it had got.
        then: What who began it does when the service is back and a sweep has been.
    """

    id: DropId
    body: bytes
    url: str = ""
    owner_url: str = ""
    visits: list[Visit] = field(default_factory=list)
    downloads: int = 1
    restorable: bool = False
    then: Callable[[], str] | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether the uploader was answered, and so has the link."""
        return bool(self.url)

    @property
    def secrets(self) -> list[str]:
        """What must not be found anywhere."""
        texts = [self.url.rpartition("/")[2], self.owner_url.rpartition(".")[2]]
        texts += [v.claim_path.split("/")[2].partition(".")[2] for v in self.visits if v.claim_path]
        return [text for text in texts if text]


@contextlib.contextmanager
def mortal_world(folder: Path, mortal: ServiceName) -> Iterator[World]:
    """A stack for many deaths of one service, which does not run between them."""
    with running_stack(folder, **SETTINGS) as stack:
        world = World(stack, mortal)
        world.down()
        yield world
        world.up()
        world.check_silent()


class World:
    """The stack, and how one service of it dies."""

    def __init__(self, stack: Stack, mortal: ServiceName) -> None:
        self.stack = stack
        self.volume = Volume(stack.volume_dir)
        self._mortal: Service = getattr(stack, mortal)
        self.secrets: list[str] = [ADMIN_TOKEN]
        self.at_death = ""

    # Life and death.

    def up(self) -> None:
        """Have the mortal service run, unless it does."""
        if self._mortal.process.poll() is not None:
            self._mortal.start()

    def down(self) -> None:
        """End the mortal service."""
        if self._mortal.process.poll() is None:
            self._mortal.kill()

    @contextlib.contextmanager
    def dying(self, at: str, *, wait: bool = True, **settings: str | int) -> Iterator[None]:
        """The service dies at this crash point within the block; after it it runs again.

        Args:
            at: Crash point, as ONCEDROP_CRASH_AT has it.
            wait: For it to be ready before the block.
            **settings: For this life of the service only.
        """
        self.down()
        self._mortal.start(wait=wait, crash_at=at, **settings)
        yield
        code = self._mortal.process.wait(DEATH_SECONDS)
        assert code == EXIT_CODE, f"{at}: {code}\n{self._mortal.logged()[-2000:]}"
        self.at_death = self.remains()
        self.up()

    def wait_dead(self) -> None:
        """Wait until it has died."""
        self._mortal.process.wait(DEATH_SECONDS)

    def reset(self) -> None:
        """No drop anywhere but a bystander; the pair of Redis and volume stays."""
        with admin(self.stack.redis.url) as redis:
            names = [name for name in redis.scan_iter(count=1000) if name != keys.VOLUME.encode()]
            if names:
                redis.delete(*names)
        for path in self.stack.files():
            path.unlink(missing_ok=True)
        self._bystander = self.with_store(lambda store: make_ready_drop(store, self.volume))

    # Drops.

    def put(self, body: bytes, **options: str) -> Story:
        """Upload, and be answered."""
        drop = self.stack.upload(body, **options)
        story = Story(DropId(drop.id), body, drop.url, drop.owner_url)
        story.downloads = int(options.get("max_downloads", 1))
        story.restorable = options.get("if_interrupted") == "restore"
        return self.told(story)

    def told(self, story: Story) -> Story:
        """Note the secrets that clients know by now."""
        self.secrets += story.secrets
        return story

    def remains(self) -> str:
        """What there is of the one drop; of several, no single word tells."""
        ids = self.drops()
        return self.standing(self.only_drop()) if len(ids) <= 1 else f"{len(ids)} drops"

    def only_drop(self) -> DropId:
        """The one drop there is something of; else an id that is none's."""
        ids = self.drops()
        assert len(ids) <= 1, ids
        return DropId(ids.pop() if ids else "0" * 32)

    def drops(self) -> set[str]:
        """All drops, the bystander aside, that have a record or a file."""
        with admin(self.stack.redis.url) as redis:
            names: list[bytes] = list(redis.scan_iter(match=keys.DROP_PREFIX + "*"))
        ids = {name.decode().removeprefix(keys.DROP_PREFIX) for name in names}
        ids |= {path.name[:32] for path in self.stack.files()}
        ids.discard(self._bystander.drop_id)
        return ids

    def visit(self, story: Story, **request: Any) -> Visit:
        """One more visitor of this drop."""
        seen = visit(story.url, **request)
        story.visits.append(seen)
        self.told(story)
        return seen

    def resume(self, first: Visit) -> bytes:
        """The claimant comes back for the rest; all that it has then."""
        assert first.claim_path is not None
        headers = {"Range": f"bytes={len(first.body)}-"} if first.body else {}
        rest = visit(self.stack.deliver.url + first.claim_path, headers=headers)
        assert rest.complete, f"{rest.status} {rest.received[:200]!r}"
        assert rest.status in (200, 206), rest.received
        return first.body + rest.body

    def operator_deletes(self, drop_id: DropId) -> Visit:
        """The operator ends this drop."""
        return visit(
            f"{self.stack.janitor.url}/drops/{drop_id}",
            method="DELETE",
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        )

    # Behind everybody's back.

    def with_store(self, work: Callable[[DropStore], Awaitable[T]]) -> T:
        """Do this with a store of one's own."""

        async def run() -> T:
            store = make_store(self.stack.redis.url, LEASES)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def age(self, drop_id: DropId, seconds: float, *, expiry: bool = False) -> None:
        """Leases of this drop become older, and its files do; with expiry its life, too."""

        async def work(store: DropStore) -> None:
            if expiry:
                await let_time_pass(store, drop_id, seconds)
                make_older(self.volume, drop_id, seconds)
            else:
                await let_leases_pass(store, self.volume, drop_id, seconds)

        self.with_store(work)

    def write(self, drop_id: DropId, **fields: str) -> None:
        """Have these fields in the record."""
        self.with_store(lambda store: set_fields(store, drop_id, fields))

    def forget(self, drop_id: DropId) -> None:
        """Redis loses this record."""
        with admin(self.stack.redis.url) as redis:
            redis.delete(keys.drop(drop_id))

    @contextlib.contextmanager
    def forgetting(self, drop_id: DropId) -> Iterator[None]:
        """Redis loses what the block does to this record."""
        key = keys.drop(drop_id)
        with admin(self.stack.redis.url) as redis:
            before: Any = redis.dump(key)
            yield
            redis.restore(key, 86_400_000, before, replace=True)

    # What is left.

    def sweep(self) -> dict[str, Any]:
        """One sweep; it meets nothing strange."""
        result = self.stack.sweep()
        assert "errors" in result, result
        problems = {n: result[n] for n in ("errors", "damaged", "strangers", "held_back")}
        assert not any(problems.values()), problems
        assert result["guard"] is None
        return result

    def converge(self) -> dict[str, Any]:
        """One sweep heals; a second has nothing to do; then records and files match."""
        first = self.sweep()
        second = self.sweep()
        assert {n: second[n] for n in CHANGES if second[n]} == {}
        self.check_agreement()
        return first

    def fields(self, drop_id: DropId) -> dict[str, str]:
        """The record."""
        return self.with_store(lambda store: record_fields(store, drop_id))

    def standing(self, drop_id: DropId) -> str:
        """State and place, in words."""
        record = self.fields(drop_id)
        state = record.get("state", "no record")
        if reason := record.get("reason"):
            state = f"{state} ({reason})"
        places = [f"{found.place}/" for found in self.volume.find(drop_id)]
        return f"{state}; {' and '.join(places) or 'no file'}"

    def check_agreement(self) -> None:
        """Every file has the record it needs, every record the file; 5 (converges)."""
        with admin(self.stack.redis.url) as redis:
            names: list[bytes] = list(redis.scan_iter(match=keys.DROP_PREFIX + "*"))
            states: dict[str, tuple[bytes, set[str]]] = {}
            for name in names:
                row: Any = redis.hgetall(name)
                claims = {n.decode().removeprefix("claim:") for n in row if n.startswith(b"claim:")}
                single = row.get(b"max_downloads", b"1") == b"1"
                states[name.decode().removeprefix(keys.DROP_PREFIX)] = (
                    row[b"state"],
                    claims if single else set(),
                )
        living = {drop_id: state for drop_id, (state, _) in states.items()}
        for path in self.stack.files():
            drop_id, _, claim_hash = path.name.partition(".")
            state, claims = states.pop(drop_id, (b"none", set()))
            folder = path.relative_to(self.stack.volume_dir).parts[0]
            expected = {
                "incoming": state == b"uploading",
                # Within the lease of an upload that died before its commit.
                "blobs": state in (b"ready", b"claimed", b"uploading"),
                "claimed": state == b"claimed" and claim_hash in claims,
            }
            assert expected[folder], f"{path.name} in {folder}/, record {state!r}"
        assert [s for s, _ in states.values() if s not in (b"gone", b"uploading")] == []
        assert {drop_id for drop_id, state in living.items() if state != b"gone"} <= self._listed()

    def _listed(self) -> set[str]:
        """Drops that the due index has."""
        with admin(self.stack.redis.url) as redis:
            shards: list[Any] = [redis.zrange(shard, 0, -1) for shard in keys.DUE_SHARDS]
        return {name.decode() for shard in shards for name in shard}

    def check_silent(self) -> None:
        """No secret in Redis, its file, a name or header in the volume, or a log; 8 (silent)."""
        with admin(self.stack.redis.url) as redis:
            assert leaks(redis, self.secrets) == []
        places = [*self.stack.redis.folder.rglob("*"), *self.stack.volume_dir.rglob("*"), *(
            service.log for service in self.stack.services)]  # fmt: skip
        content = b"".join(p.read_bytes() for p in places if p.is_file())
        for secret in self.secrets:
            assert secret.encode() not in content
            assert not any(secret in path.name for path in places)

    def check_gone(self, story: Story) -> None:
        """No name in the volume leads to the bytes, and the link says so; 4 (gone means gone)."""
        assert self.volume.find(story.id) == []
        sample = story.body[:64]
        assert not any(sample in path.read_bytes() for path in self.stack.files())
        if story.acknowledged:
            assert visit(story.url).status == 410

    # What it comes to.

    def outcome(self, story: Story) -> tuple[str, str]:
        """Sweep, let clients and time do the rest, and check every invariant on the way.

        Returns:
            What was left after the restart and one sweep, and what it came to in the end.
        """
        self.converge()
        left = self.standing(story.id)
        if left.startswith("claimed"):
            # Who comes now gets nothing of it, and changes nothing.
            stranger = self.visit(story)
            assert stranger.status in (409, 410), stranger.received[:200]
            assert self.standing(story.id) == left
        ends = [story.then()] if story.then else []
        ends += self._resumed(story)
        ends += self._lapsed(story)
        ends += self._visited(story)
        self.converge()
        self.check_gone(story)
        self._check_clients(story)
        assert self.standing(self._bystander.drop_id) == "ready; blobs/"
        return left, "; ".join(ends) or "stays so"

    def _resumed(self, story: Story) -> list[str]:
        """The claimant comes back, if it may and needs to."""
        claimant = next((v for v in story.visits if v.claim_path), None)
        if claimant is None or claimant.body == story.body:
            return []
        if not self.standing(story.id).startswith("claimed"):
            return []
        assert self.resume(claimant) == story.body
        claimant.status, claimant.received, claimant.complete = 200, story.body, True
        # Within a second of the last byte; unless what the dead process knew is missing.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.volume.find(story.id), 1, what="the end")
        return ["its claimant resumes and has the rest"]

    def _lapsed(self, story: Story) -> list[str]:
        """Leases and grace go by."""
        before = self.standing(story.id)
        self.age(story.id, GRACE_SECONDS + 1)
        self.converge()
        after = self.standing(story.id)
        if after == before:
            return []
        if after.startswith("gone (interrupted)") and not any(v.body for v in story.visits):
            return ["burnt, for nobody knows that nothing was sent"]
        return [after]

    def _visited(self, story: Story) -> list[str]:
        """Others come while there is something to have, or it expires."""
        if not self.standing(story.id).startswith("ready"):
            return []
        if not story.acknowledged:
            self.age(story.id, 30 * 86_400, expiry=True)
            self.converge()
            assert self.standing(story.id) == "gone (expired); no file"
            return ["expires, for nobody has its link"]
        count = 0
        while self.standing(story.id).startswith("ready"):
            seen = self.visit(story)
            assert seen.complete, seen
            assert seen.body == story.body
            count += 1
        return ["the next visitor has it" if count == 1 else f"the next {count} visitors have it"]

    def _check_clients(self, story: Story) -> None:
        """1 (once) and 2 (whole or not), as clients saw them."""
        fed = [v for v in story.visits if v.body]
        assert all(story.body.startswith(v.body) for v in fed)
        assert all(v.body == story.body for v in fed if v.complete)
        if not story.restorable:
            assert len(fed) <= story.downloads
