"""Random interleavings of all arrows and all moves of the file, against a model.

Visitors, the uploader, the owner and janitors take one step at a time, in any order, repeat
steps, or stop for ever between any two. What a service does between two steps is written here as
DESIGN says it; the store and the volume are real. `let_time_pass` makes leases lapse.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader
from oncedrop_common.drops import ClaimHash, Drop, DropState, GoneReason, IfInterrupted
from oncedrop_common.errors import BlobMissing, VolumeUnavailable
from oncedrop_common.store import scripts
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import ClaimResult, Deliver, Lapse, Release, RenewClaim
from oncedrop_common.tokens import claim_hash, drop_id, mint, owner_hash
from oncedrop_common.volume import FoundFile, Marker, Part, Place, Volume
from support.valkey import (
    TEST_LEASES,
    TTL_SECONDS,
    let_time_pass,
    make_ready_drop,
    make_store,
    meta_for,
)

T = TypeVar("T")

BODY = b"once and never again"
WHOLE = [(0, len(BODY))]
PENDING_MOST = 6
REQUESTS_MOST = 5
ROUNDS_TO_CONVERGE = 8


@dataclass
class Request:
    """One request of a visitor, at the step it has reached.

    Attributes:
        renamed: This very request moved the file to its claimant.
        deadline_ms: Its lease as the server that serves it knows it.
        sent: It has handed out a byte.
    """

    claim_hash: ClaimHash
    request_id: str
    deadline_ms: int
    step: str = "claimed"
    renamed: bool = False
    sent: bool = False


@dataclass
class Look:
    """What a janitor, or a request that met no record, saw: the record first, then the files."""

    drop: Drop | None
    files: list[FoundFile]

    def place_of(self, claim: ClaimHash) -> str:
        """Where the file was, in lapse's words."""
        if any(f.claim_hash == claim for f in self.files):
            return "claimed"
        return "blobs" if any(f.place is Place.BLOBS for f in self.files) else "none"


@dataclass
class Task:
    """What a process will do next, unless it is stopped before."""

    what: str
    run: Callable[[], Awaitable[None]]


@dataclass
class Seen:
    """What has happened, for the invariants."""

    acknowledged: bool = False
    wiped: bool = False
    taken: bool = False
    ended: bool = False
    received: set[ClaimHash] = field(default_factory=set)
    delivered: set[ClaimHash] = field(default_factory=set)
    tombstone: GoneReason | None = None


class OneDrop(RuleBasedStateMachine):
    """The life of one drop."""

    def __init__(self, runner: asyncio.Runner, store: DropStore, volume: Volume) -> None:
        super().__init__()
        self.runner, self.store, self.volume = runner, store, volume
        self.id, self.owner_key = drop_id(mint()), mint()
        self.claimants = [claim_hash(mint()) for _ in range(3)]
        self.requests: list[Request] = []
        self.tasks: list[Task] = []
        self.look: Look | None = None
        self.part: Part | None = None
        self.upload_step = "none"
        self.count = 0
        self.seen = Seen()

    def wait(self, awaitable: Coroutine[Any, Any, T]) -> T:
        """Run to the end on the machine's own loop."""
        return self.runner.run(awaitable)

    def later(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Something that a process does at another step, or never."""
        self.tasks.append(Task(what, run))

    # The upload.

    @initialize(
        if_interrupted=st.sampled_from(IfInterrupted),
        resume=st.sampled_from([True, True, False]),
        max_downloads=st.sampled_from([1, 1, 1, 2, 3]),
        uploaded=st.sampled_from([True, True, True, False]),
    )
    def upload(
        self, *, if_interrupted: IfInterrupted, resume: bool, max_downloads: int, uploaded: bool
    ) -> None:
        """Choose a drop; most runs begin with a link that was handed out."""
        self.wait(self.store.call("FLUSHALL"))
        self.meta = meta_for(
            BODY,
            self.owner_key,
            self.wait(self.store.now_ms()),
            if_interrupted=if_interrupted,
            resume=resume,
            max_downloads=max_downloads,
        )
        self.single = max_downloads == 1
        while uploaded and self.upload_step != "done":
            self._upload_on()

    @precondition(lambda self: self.upload_step != "done")
    @rule()
    def upload_goes_on(self) -> None:
        """The next step of open, part, blob, commit."""
        self._upload_on()

    def _upload_on(self) -> None:
        match self.upload_step:
            case "none":
                self.wait(self.store.open_upload(self.id, self.meta.owner_hash, TTL_SECONDS))
                self.upload_step = "opened"
            case "opened":
                word, _ = self.wait(
                    self.store.renew_upload(self.id, self.meta.owner_hash, TTL_SECONDS)
                )
                if word is scripts.RenewUpload.RENEWED:
                    self.part = self.volume.create_part(self.id)
                    self.part.write_at(HEADER_BYTES, BODY)
                    self.upload_step = "written"
                else:
                    self.upload_step = "done"
            case "written":
                assert self.part is not None
                try:
                    self.volume.commit_part(self.part, BlobHeader(self.id, self.meta))
                    self.upload_step = "in place"
                except VolumeUnavailable:
                    # A janitor took the part away.
                    self.part.close()
                    self.upload_step = "done"
            case "in place":
                if self.wait(self.store.commit(self.id, self.meta)) is scripts.Commit.COMMITTED:
                    self.seen.acknowledged = True
                else:
                    self.later("uploader unlinks", self._unlink)
                self.upload_step = "done"

    @precondition(lambda self: self.seen.acknowledged)
    @rule()
    def commit_is_repeated(self) -> None:
        """Its reply was lost."""
        known = self.wait(self.store.read(self.id))
        if known is not None:
            self.wait(self.store.commit(self.id, self.meta))

    @precondition(lambda self: self.upload_step in {"opened", "written"})
    @rule()
    def uploader_gives_up(self) -> None:
        """The client is gone: part and record are removed."""
        self.upload_step = "done"
        if self.part is not None:
            self.part.close()
        self.wait(self.store.abandon(self.id, given_up=True))
        self.later("uploader unlinks", self._unlink)

    # Visitors.

    @precondition(lambda self: len(self.requests) < REQUESTS_MOST)
    @rule(
        who=st.integers(0, 2),
        steps=st.sampled_from([3, 4, 2, 1, 0]),
        resume_only=st.sampled_from([False, False, False, True]),
    )
    def visitor_asks(self, *, who: int, steps: int, resume_only: bool) -> None:
        """A request: claim, or see that it is theirs; then some steps in which nobody disturbs."""
        known = len(self.requests)
        self._ask(who, resume_only=resume_only)
        for request in self.requests[known:]:
            for _ in range(steps):
                if request in self.requests:
                    self._go_on(request)

    def _ask(self, who: int, *, resume_only: bool) -> None:
        self.count += 1
        claim, request_id = self.claimants[who], f"request{self.count}"
        word, drop = self.wait(
            self.store.claim(self.id, claim, request_id, resume_only=resume_only)
        )
        if word in {ClaimResult.CLAIMED, ClaimResult.YOURS}:
            mine = drop.claim(claim) if drop else None
            assert mine is not None
            self.requests.append(Request(claim, request_id, mine.deadline_ms))
        elif word is ClaimResult.UNKNOWN:
            seen = Look(None, self.volume.find(self.id))
            self.later("request rebuilds", lambda: self._rebuild(seen))

    @precondition(lambda self: self.requests)
    @rule(n=st.integers(0, REQUESTS_MOST - 1))
    def request_goes_on(self, n: int) -> None:
        """The next step of take, confirm, serve, deliver."""
        self._go_on(self.requests[n % len(self.requests)])

    @precondition(lambda self: self.requests)
    @rule(n=st.integers(0, REQUESTS_MOST - 1))
    def some_bytes_are_acknowledged(self, n: int) -> None:
        """A renewal of the lease, with progress."""
        request = self.requests[n % len(self.requests)]
        if request.sent:
            word, drop = self._renew(request)
            if word is RenewClaim.UNKNOWN and self.single:
                # It holds the file, which proves the claim.
                self.wait(self.store.rebuild(self.id, self.meta, request.claim_hash))
                word, drop = self._renew(request)
            self._note_lease(request, word, drop)

    @precondition(lambda self: self.requests)
    @rule(n=st.integers(0, REQUESTS_MOST - 1))
    def request_fails(self, n: int) -> None:
        """The visitor goes away, or the server finds that it cannot serve."""
        request = self.requests.pop(n % len(self.requests))
        if request.sent:
            if not self.meta.resume:
                self._lapse_at_once(request)
        elif request.step == "claimed" or request.renamed or not self.single:
            self._release(request)

    @precondition(lambda self: self.requests)
    @rule(n=st.integers(0, REQUESTS_MOST - 1))
    def server_dies(self, n: int) -> None:
        """Nothing more comes of the request."""
        self.requests.pop(n % len(self.requests))

    def _go_on(self, request: Request) -> None:
        match request.step:
            case "claimed":
                self._take(request)
            case "taken":
                self._confirm(request)
            case "serving":
                self._serve(request)
            case "served":
                self._deliver(request)

    def _take(self, request: Request) -> None:
        if not self.single:
            if any(f.place is Place.BLOBS for f in self.volume.find(self.id)):
                request.step = "taken"
            else:
                self.requests.remove(request)
                self._release(request)
            return
        request.renamed = self.volume.take(self.id, request.claim_hash)
        if request.renamed:
            self.seen.taken = True
            request.step = "taken"
            return
        drop = self.wait(self.store.read(self.id))
        holders = [f.claim_hash for f in self.volume.find(self.id) if f.claim_hash]
        if request.claim_hash in holders:
            request.step = "taken"
            return
        self.requests.remove(request)
        if not holders:
            self._release(request)
        elif drop is not None:
            revision = drop.revision
            self.later("request adopts", lambda: self._adopt(holders[0], revision))

    def _confirm(self, request: Request) -> None:
        """Opened, synced, and the lease still lives by the server's own clock."""
        alive = request.deadline_ms > self.wait(self.store.now_ms())
        if alive:
            try:
                self._open(request).close()
            except BlobMissing:
                alive = False
        if alive and not self.single:
            # The file stays in its place and tells nothing: the record must know.
            word, _ = self.wait(
                self.store.renew_claim(self.id, request.claim_hash, [], progressed=False)
            )
            alive = word is RenewClaim.RENEWED
            self.seen.taken = self.seen.taken or alive
        if alive:
            request.step = "serving"
        else:
            self.requests.remove(request)
            if request.renamed:
                self.volume.give_back(self.id, request.claim_hash)

    def _open(self, request: Request) -> Any:
        if self.single:
            return self.volume.open_claimed(self.id, request.claim_hash)
        return self.volume.open_blob(self.id)

    def _renew(self, request: Request) -> tuple[RenewClaim, Drop | None]:
        return self.wait(
            self.store.renew_claim(self.id, request.claim_hash, [(0, 5)], progressed=True)
        )

    def _note_lease(self, request: Request, word: RenewClaim, drop: Drop | None) -> None:
        mine = drop.claim(request.claim_hash) if drop else None
        if word is RenewClaim.RENEWED and mine is not None:
            request.deadline_ms = mine.deadline_ms
        elif request in self.requests:
            self.requests.remove(request)

    def _serve(self, request: Request) -> None:
        now_ms = self.wait(self.store.now_ms())
        if request.deadline_ms <= now_ms:
            self.requests.remove(request)
            return
        others = {
            r.claim_hash
            for r in self.requests
            if r.step in {"serving", "served"} and r.deadline_ms > now_ms
        } - {request.claim_hash}
        assert not (self.single and others), "two claimants are served at once"
        request.sent, request.step = True, "served"
        self.seen.received.add(request.claim_hash)

    def _deliver(self, request: Request) -> None:
        self.requests.remove(request)
        word, _ = self.wait(self.store.deliver(self.id, request.claim_hash, WHOLE))
        if word in {Deliver.DELIVERED, Deliver.COUNTED}:
            self.seen.delivered.add(request.claim_hash)
        if word is Deliver.DELIVERED:
            self.later("request unlinks", self._unlink)

    def _release(self, request: Request) -> None:
        word, drop = self.wait(self.store.release(self.id, request.claim_hash, request.request_id))
        if word is Release.RELEASED and self.single and drop is not None:
            self._later_give_back("request", request.claim_hash, drop.revision)
        elif word is Release.CLOSED and request.renamed:
            self.volume.give_back(self.id, request.claim_hash)
        elif word is Release.GONE:
            self.later("request unlinks", self._unlink)

    def _lapse_at_once(self, request: Request) -> None:
        word, drop = self.wait(
            self.store.lapse(
                self.id, request.claim_hash, revision=None, place="claimed", at_once=True
            )
        )
        self._after_lapse("request", request.claim_hash, word, drop)

    def _after_lapse(self, who: str, claim: ClaimHash, word: Lapse, drop: Drop | None) -> None:
        if word is Lapse.RESTORE and drop is not None:
            self._later_give_back(who, claim, drop.revision)
        elif word in {Lapse.INTERRUPTED, Lapse.DELIVERED, Lapse.GONE}:
            self.later(f"{who} unlinks", self._unlink)

    def _later_give_back(self, who: str, claim: ClaimHash, revision: int) -> None:
        async def give_back() -> None:
            self.volume.give_back(self.id, claim)
            self.later(f"{who} restores", restore)

        async def restore() -> None:
            await self.store.restore(self.id, claim, revision=revision)

        self.later(f"{who} gives back", give_back)

    # Janitors.

    @rule()
    def janitor_looks(self) -> None:
        """The record, then the files, in the order in which they move."""
        drop = self.wait(self.store.read(self.id))
        self.look = Look(drop, self.volume.find(self.id))

    @precondition(lambda self: self.look is not None)
    @rule()
    def janitor_acts(self) -> None:
        """Upon what it saw, however long ago; what it saw stays, as for a second janitor."""
        assert self.look is not None
        self.wait(self._act(self.look))

    async def _act(self, look: Look) -> None:
        drop = look.drop
        if drop is None:
            await self._rebuild(look)
        elif drop.state is DropState.GONE:
            if look.files:
                self.later("janitor unlinks", self._unlink)
        elif drop.state is DropState.UPLOADING:
            await self._act_on_upload(drop, look)
        else:
            await self._act_on_claims(drop, look)

    async def _act_on_upload(self, drop: Drop, look: Look) -> None:
        if drop.now_ms < drop.upload_deadline_ms:
            return
        if any(f.place is Place.BLOBS for f in look.files):
            await self.store.commit(self.id, self.meta)
        elif await self.store.abandon(self.id, given_up=False) is scripts.Abandon.ABANDONED:
            self.later("janitor unlinks", self._unlink)

    async def _act_on_claims(self, drop: Drop, look: Look) -> None:
        for holder in {f.claim_hash for f in look.files if f.claim_hash}:
            if drop.claim(holder) is None:
                await self._adopt(holder, drop.revision)
        for claim in drop.claims:
            if claim.closed or claim.deadline_ms <= drop.now_ms:
                place = look.place_of(claim.claim_hash)
                word, after = await self.store.lapse(
                    self.id, claim.claim_hash, revision=drop.revision, place=place
                )
                self._after_lapse("janitor", claim.claim_hash, word, after)
        if drop.expired and await self.store.expire(self.id) is scripts.Expire.EXPIRED:
            self.seen.ended = True
            self.later("janitor unlinks", self._unlink)
        if not look.files:
            await self.store.lose(self.id, revision=drop.revision)

    async def _rebuild(self, look: Look) -> None:
        for found in look.files:
            if found.place is not Place.INCOMING:
                word, _ = await self.store.rebuild(self.id, self.meta, found.claim_hash)
                if word is scripts.Rebuild.EXPIRED:
                    self.later("janitor unlinks", self._unlink)

    async def _adopt(self, holder: ClaimHash, revision: int) -> None:
        word, _ = await self.store.adopt(self.id, holder, revision=revision)
        if word is scripts.Adopt.LAPSED:
            # A claim that lapsed before its file moved: it sent nothing.
            self.volume.give_back(self.id, holder)
        elif word is scripts.Adopt.GONE:
            self.later("janitor unlinks", self._unlink)

    async def _unlink(self) -> None:
        """Every file of a drop that is gone; a record that lives again is left alone."""
        drop = await self.store.read(self.id)
        if drop is not None and drop.state is DropState.GONE:
            self.volume.unlink(self.id)

    @precondition(lambda self: self.tasks)
    @rule(n=st.integers(0, PENDING_MOST))
    def process_goes_on(self, n: int) -> None:
        """What was begun is carried on, at some time."""
        self.wait(self._run_task(n % len(self.tasks)))

    @precondition(lambda self: len(self.tasks) > PENDING_MOST)
    @rule()
    def process_dies(self) -> None:
        """What was begun is never carried on."""
        self.tasks.pop(0)

    async def _run_task(self, n: int) -> None:
        await self.tasks.pop(n).run()

    # The world.

    @rule(seconds=st.sampled_from([10, TEST_LEASES.claim + 1]))
    def time_passes(self, seconds: int) -> None:
        """For the record, and for the leases that servers remember."""
        self._pass(seconds)

    def _pass(self, seconds: int) -> None:
        self.wait(let_time_pass(self.store, self.id, seconds))
        for request in self.requests:
            request.deadline_ms -= seconds * 1000

    @precondition(lambda self: self.count > 4)
    @rule()
    def life_ends(self) -> None:
        """The expiry comes."""
        self._pass(TTL_SECONDS + 1)

    @precondition(lambda self: self.count > 4)
    @rule()
    def owner_deletes(self) -> None:
        """In any state."""
        word, _ = self.wait(self.store.delete(self.id))
        if word is scripts.Delete.DELETED:
            self.seen.ended = True
            self.later("owner unlinks", self._unlink)

    @precondition(lambda self: self.count > 1 and self.upload_step == "done")
    @precondition(lambda self: not self.seen.wiped)
    @rule()
    def redis_is_wiped(self) -> None:
        """Once a run."""
        self.wait(self.store.call("FLUSHALL"))
        self.seen.wiped = True
        self.seen.tombstone = None

    # What must hold after each step.

    @invariant()
    def no_more_claimants_than_downloads_got_a_byte(self) -> None:
        """Once."""
        if not hasattr(self, "meta"):
            return
        counted = self.single or not self.seen.wiped
        if counted and self.meta.if_interrupted is IfInterrupted.BURN:
            assert len(self.seen.received) <= self.meta.max_downloads
        if counted:
            assert len(self.seen.delivered) <= self.meta.max_downloads

    @invariant()
    def the_record_keeps_its_promises(self) -> None:
        """Live claims are counted, tombstones stay, and no acknowledged drop is lost."""
        if not hasattr(self, "meta"):
            return
        drop = self.wait(self.store.read(self.id))
        if self.seen.tombstone is not None:
            assert drop is not None
            assert drop.reason is self.seen.tombstone
        if drop is None:
            return
        self.seen.tombstone = drop.reason
        live = [c for c in drop.claims if not c.closed and c.deadline_ms > drop.now_ms]
        assert len(live) <= self.meta.max_downloads
        if drop.state is not DropState.GONE:
            assert drop.downloads_left + len(live) <= self.meta.max_downloads
        self._nothing_is_lost(drop)

    def _nothing_is_lost(self, drop: Drop) -> None:
        files = self.volume.find(self.id)
        if not self.seen.acknowledged:
            return
        if drop.state is not DropState.GONE:
            if not self.seen.wiped:
                assert files, "an acknowledged drop has its file"
            return
        if drop.reason in {GoneReason.DELETED, GoneReason.EXPIRED}:
            assert self.seen.ended
        elif drop.reason is GoneReason.DELIVERED:
            assert self.seen.delivered
        elif drop.reason is GoneReason.INTERRUPTED:
            assert self._may_be_used_up(), "nothing was sent of it"
            assert self.seen.wiped or self.meta.if_interrupted is IfInterrupted.BURN
        else:
            assert self.seen.wiped, f"an acknowledged drop is {drop.reason}"

    def _may_be_used_up(self) -> bool:
        return self.seen.taken or bool(self.seen.received)

    # Afterwards.

    def teardown(self) -> None:
        """Every process stops, leases lapse: sweeps make record and file agree, and then rest."""
        try:
            if hasattr(self, "meta"):
                self._converge()
        finally:
            if self.part is not None:
                self.part.close()
            self.volume.unlink(self.id)

    def _converge(self) -> None:
        self.requests.clear()
        self.tasks.clear()
        self._pass(TEST_LEASES.claim + 1)
        for _ in range(ROUNDS_TO_CONVERGE):
            self.wait(self._sweep())
            self._pass(TEST_LEASES.claim + 1)
        drop, files = self.wait(self.store.read(self.id)), self.volume.find(self.id)
        places = [f.place for f in files]
        if drop is None or drop.state is DropState.GONE:
            # A part without a record waits for its grace.
            assert [p for p in places if p is not Place.INCOMING] == []
            assert not self.seen.acknowledged or self.seen.ended or self._may_be_used_up(), (
                "an acknowledged drop is lost"
            )
        else:
            assert drop.state is DropState.READY
            assert places == [Place.BLOBS], "a ready record's file is in blobs/"
        event(f"{self.count} asked")
        event(f"ended {drop.reason or 'ready' if drop else 'forgotten'}")
        event(f"{len(self.seen.received)} got a byte, {len(self.seen.delivered)} the whole")
        self.the_record_keeps_its_promises()

    async def _sweep(self) -> None:
        drop = await self.store.read(self.id)
        await self._act(Look(drop, self.volume.find(self.id)))
        while self.tasks:
            await self._run_task(0)


@pytest.mark.timeout(300)
def test_no_interleaving_serves_a_drop_twice_or_loses_it(redis_url: str, tmp_path: Path) -> None:
    assert hashlib.sha256(BODY).hexdigest() == meta_for(BODY, "key", 0).sha256
    assert owner_hash("key") == meta_for(BODY, "key", 0).owner_hash
    volume = Volume(tmp_path / "volume")
    volume.make_root()
    volume.write_marker(Marker(mint(), 1))
    volume.make_layout()
    with asyncio.Runner() as runner:
        store = make_store(redis_url)

        usual = settings.default or settings()

        class Machine(OneDrop):
            """The machine on this test's store and volume."""

            def __init__(self) -> None:
                super().__init__(runner, store, volume)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    usual,
                    max_examples=3 * usual.max_examples,
                    stateful_step_count=40,
                    suppress_health_check=[*HealthCheck],
                ),
            )
        finally:
            runner.run(store.close())


async def test_a_late_give_back_never_lets_a_second_claimant_in(
    store: DropStore, volume: Volume
) -> None:
    """A request that released its claim was stopped before it renamed the file back.

    A janitor does it instead, and the visitor's repeated POST, with the claim id of its form,
    takes the file again and is served. Then the first request wakes and renames a file that is
    being served back to blobs/, where a lapsed claim's file counts as never sent.
    """
    drop = (await make_ready_drop(store, volume, BODY)).drop_id
    first, second = claim_hash(mint()), claim_hash(mint())
    received = set()

    async def revision() -> int:
        record = await store.read(drop)
        assert record is not None
        return record.revision

    async def serve(claim: ClaimHash, request_id: str) -> None:
        word, _ = await store.claim(drop, claim, request_id)
        if word is ClaimResult.CLAIMED and volume.take(drop, claim):
            confirmed, _ = await store.renew_claim(drop, claim, [], progressed=True)
            if confirmed is RenewClaim.RENEWED:
                received.add(claim)

    # The first request, up to its stop.
    await store.claim(drop, first, "request1")
    assert volume.take(drop, first)
    assert (await store.release(drop, first, "request1"))[0] is Release.RELEASED
    # A due pass.
    word, _ = await store.lapse(drop, first, revision=await revision(), place="claimed")
    assert word is Lapse.RESTORE
    assert volume.give_back(drop, first)
    assert await store.restore(drop, first, revision=await revision()) is scripts.Restore.READY
    # The repeated POST, and then the first request wakes.
    await serve(first, "request2")
    volume.give_back(drop, first)
    # The visitor goes away; a due pass sees the lapsed claim and its file in blobs/.
    await let_time_pass(store, drop, TEST_LEASES.claim + 1)
    await store.lapse(drop, first, revision=await revision(), place="blobs")
    await serve(second, "request3")
    assert len(received) <= 1
