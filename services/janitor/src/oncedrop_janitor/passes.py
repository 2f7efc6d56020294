"""The two passes: sweep and due.

Both look, decide and apply by the same code, in two phases: what repairs is done at once, what
deletes is only listed; then the guard is asked, and then each listed drop is looked at and decided
on once more. So what is deleted is what was wrong twice, in a pair that was right all along.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import DropId
from oncedrop_common.errors import (
    DependencyError,
    OncedropError,
    StoreUnavailable,
    SweepGuarded,
    VolumeUnavailable,
)
from oncedrop_common.metrics import JanitorMetrics, Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.events import SAMPLE_SECONDS
from oncedrop_common.volume import Marker, Volume
from oncedrop_janitor.apply import Applier
from oncedrop_janitor.guard import Tally
from oncedrop_janitor.look import Looker
from oncedrop_janitor.plan import (
    Action,
    Damaged,
    Keep,
    Look,
    Lose,
    Rules,
    UnlinkOrphan,
    Why,
    decide,
)
from oncedrop_janitor.report import Report, standing_objection
from oncedrop_janitor.scan import Scan, count_strangers

SWEEP = "sweep"
DUE = "due"

_log = structlog.get_logger()

_PAGE = 500
_DELETION_PAGE = 200
_AT_A_TIME = 32
# The longest way of a drop through the table, with room to spare: commit, adopt, lapse, give
# back, expire.
_ROUNDS = 8
_DUE_PER_SHARD = 250
_DUE_BATCHES = 40
# When to look again at what is due and must be kept all the same.
_AGAIN_MS = 60_000
_ID_BYTES = 16


@dataclass(slots=True)
class _Run:
    """One pass while it runs.

    Attributes:
        listed: Ids of drops that a deletion is planned for, 16 bytes each.
        deleting: The second phase has begun.
        mismatches: Whether deletions for a mismatch may be done.
        notes, forget: What the due index is to learn.
    """

    report: Report
    marker: Marker
    rules: Rules
    volume_now_ms: int
    tally: Tally = field(default_factory=Tally)
    listed: bytearray = field(default_factory=bytearray)
    deleting: bool = False
    mismatches: bool = True
    notes: dict[DropId, int] = field(default_factory=dict)
    forget: list[DropId] = field(default_factory=list)


class Passes:
    """Runs passes, one sweep at a time, and keeps what became of the last of each kind."""

    def __init__(
        self,
        settings: Settings,
        store: DropStore,
        volume: Volume,
        pairing: Pairing,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._store = store
        self._volume = volume
        self._pairing = pairing
        self._gauges = JanitorMetrics(metrics)
        self._looker = Looker(store, volume)
        self._applier = Applier(store, volume, metrics)
        self._sweeping = asyncio.Lock()
        self._results: dict[str, dict[str, Any]] = {}
        self._sampled = 0

    # Results.

    async def last(self, name: str) -> dict[str, Any]:
        """The last result of a pass, whichever janitor ran it; empty when there is none.

        Without Redis it is this janitor's own.
        """
        own = self._results.get(name, {})
        try:
            shared = await self._store.load_pass(name)
        except StoreUnavailable:
            return own
        return max(own, shared, key=lambda result: int(result.get("started_ms", 0)))

    async def require_unguarded(self) -> None:
        """The /readyz check: the guard has nothing against what passes would delete.

        Raises:
            SweepGuarded: It has; says why.
        """
        if isinstance(self._pairing.problem, VolumeUnavailable):
            raise SweepGuarded(self._pairing.problem.detail)
        for name in (SWEEP, DUE):
            reason = standing_objection(await self.last(name))
            if reason:
                raise SweepGuarded(reason)

    # The passes.

    async def sweep(self, *, dry_run: bool = False, force: bool = False) -> Report:
        """Compare every file with its record and every record with its file, and mend both.

        Waits for a sweep that is running. Never raises: what stopped it is in the report.

        Args:
            dry_run: Only say what would be done.
            force: The operator's word that this Redis and this volume are a pair, and that
                what the guard objects to is right.
        """
        async with self._sweeping:
            report = Report(SWEEP, dry_run=dry_run, forced=force)
            return await self._finish(report, self._sweep)

    async def due(self) -> Report:
        """Look at the drops whose time has come. Never raises."""
        return await self._finish(Report(DUE), self._due)

    async def _finish(self, report: Report, body: Callable[[Report], Awaitable[None]]) -> Report:
        began = time.perf_counter()
        try:
            await body(report)
        except DependencyError as exc:
            report.failure, report.error = exc, exc.detail
            report.errors += 1
            if isinstance(exc, VolumeUnavailable):
                report.guard = exc.detail
        report.duration_seconds = time.perf_counter() - began
        if not report.dry_run:
            await self._keep(report)
        if report.name == SWEEP or report.changes or report.errors or report.guard:
            write = _log.warning if report.guard or report.error else _log.info
            write("sweep_finished" if report.name == SWEEP else "due_pass_finished",
                  **report.counts())  # fmt: skip
        return report

    async def _keep(self, report: Report) -> None:
        self._results[report.name] = report.document()
        self._gauges.passed(
            report.name,
            started_ms=report.started_ms,
            duration_seconds=report.duration_seconds,
            scanned=report.scanned,
            removed=report.removed,
            rebuilt=report.rebuilt,
            kept=report.kept_by_grace,
            errors=report.errors,
        )
        standing = any(standing_objection(result) for result in self._results.values())
        self._gauges.guard(active=standing or report.guard is not None)
        if isinstance(report.failure, StoreUnavailable):
            return
        try:
            await self._sample(report.started_ms)
            await self._store.save_pass(report.name, report.document())
        except StoreUnavailable as exc:
            _log.warning("pass_not_kept", detail=exc.detail)
            return
        if report.name == SWEEP and report.failure is None:
            self._store.record_event("swept", scanned=report.scanned, removed=report.removed)

    async def _sample(self, at_ms: int) -> None:
        """Note how much is stored, for the plot; of most passes there is nothing to note."""
        period = at_ms // (SAMPLE_SECONDS * 1000)
        if period != self._sampled:
            size, drops = await self._store.usage()
            self._store.note_sample(at_ms, max(0, drops), max(0, size))
            self._sampled = period

    async def _begin(self, report: Report) -> _Run:
        try:
            marker = await self._pairing.check()
        except VolumeUnavailable:
            if not report.forced or report.dry_run:
                raise
            marker = await self._pairing.force()
        leases, settings = self._store.leases, self._settings
        rules = Rules(
            grace_ms=settings.grace_seconds * 1000,
            upload_lease_ms=leases.upload * 1000,
            volume_born_ms=marker.created_ms if settings.ephemeral_volume else 0,
        )
        volume_now_ms = await asyncio.to_thread(self._volume.probe_clock_ms)
        return _Run(report, marker, rules, volume_now_ms)

    async def _sweep(self, report: Report) -> None:
        run = await self._begin(report)
        CrashPoint.SWEEP_BEFORE_SCAN.reached()
        scan = Scan(self._store, self._volume)
        ledger = await scan.read_records(note_due=not report.dry_run)
        CrashPoint.SWEEP_AFTER_DUE_INDEX.reached()
        strangers = await scan.read_elsewhere()
        report.records = ledger.records
        report.living = run.tally.records = ledger.living
        size = 0
        for shard in self._volume.shards():
            result = await scan.compare(ledger, shard)
            strangers += result.strangers
            size += result.size
            report.files += result.files
            for page in _pages(result.suspects, _PAGE):
                await self._settle(run, page)
            CrashPoint.SWEEP_AFTER_SHARD.reached()
        run.tally.files = report.files
        report.strangers, report.strangers_ignored, report.stranger_kinds = count_strangers(
            strangers
        )
        if strangers:
            _log.warning("strangers_found", kinds=report.stranger_kinds)
        CrashPoint.SWEEP_AFTER_PLAN.reached()
        await self._delete(run)
        CrashPoint.SWEEP_AFTER_DELETIONS.reached()
        if not report.dry_run:
            await self._note_usage(size - report.bytes_freed, report.files, ledger.living)
            CrashPoint.SWEEP_AFTER_USAGE.reached()

    async def _note_usage(self, size: int, files: int, living: int) -> None:
        await self._store.set_usage(max(0, size), files)
        free = await asyncio.to_thread(self._volume.free_bytes)
        self._gauges.usage(drops=living, stored_bytes=max(0, size), free_bytes=free)

    async def _due(self, report: Report) -> None:
        run = await self._begin(report)
        sweep = await self.last(SWEEP)
        # What a sweep was not allowed to delete is not nibbled away here either.
        run.mismatches = not sweep.get("guard")
        seen: set[DropId] = set()
        for _ in range(_DUE_BATCHES):
            drop_ids = await self._store.due(await self._store.now_ms(), _DUE_PER_SHARD)
            fresh = [drop_id for drop_id in drop_ids if drop_id not in seen]
            if not fresh:
                return
            seen.update(fresh)
            report.records = len(seen)
            # A share of all there is: orphans may become due together.
            run.tally.records = max(len(seen), sweep.get("living", 0))
            run.tally.files = max(len(seen), sweep.get("files", 0))
            for page in _pages(fresh, _PAGE):
                await self._settle(run, page)
            await self._delete(run)
            if report.guard:
                return

    # Both.

    async def _delete(self, run: _Run) -> None:
        """Do what is listed, if the guard has nothing against it."""
        report = run.report
        listed, run.listed = run.listed, bytearray()
        objection = run.tally.objection(self._settings.sweep_max_fraction)
        if objection is not None and not report.forced:
            report.guard = objection
            report.held_back += len(listed) // _ID_BYTES
            return
        if report.dry_run:
            return
        run.deleting = True
        step = _DELETION_PAGE * _ID_BYTES
        for first in range(0, len(listed), step):
            await self._confirm(run)
            await self._settle(run, _unpacked(listed[first : first + step]))
        run.deleting = False

    async def _confirm(self, run: _Run) -> None:
        """Whether the pair is still the one that the pass began with.

        Raises:
            VolumeUnavailable, StoreUnavailable: It is not; the pass ends.
        """
        marker = await self._pairing.check()
        if marker.volume_id != run.marker.volume_id:
            raise VolumeUnavailable("The volume was exchanged for another one meanwhile.")

    async def _settle(self, run: _Run, drop_ids: Iterable[DropId]) -> None:
        """Look, decide and apply until each of these drops is to be kept, or is listed."""
        waiting = list(drop_ids)
        for _ in range(_ROUNDS):
            if not waiting:
                break
            looks = await self._looker.look(waiting, run.volume_now_ms)
            waiting = []
            for page in _pages(list(looks), _AT_A_TIME):
                outcomes = await asyncio.gather(
                    *(self._step(run, drop_id, looks[drop_id]) for drop_id in page),
                    return_exceptions=True,
                )
                for drop_id, again in zip(page, outcomes, strict=True):
                    if isinstance(again, BaseException):
                        raise again
                    if again:
                        waiting.append(drop_id)
        if not run.report.dry_run:
            # A sweep knows less about when than whoever changed the record since the look.
            await self._store.note_due_times(run.notes, only_missing=run.report.name == SWEEP)
            await self._store.forget_due(run.forget)
        run.notes.clear()
        run.forget.clear()

    async def _step(self, run: _Run, drop_id: DropId, look: Look | OncedropError) -> bool:
        """One look's consequence.

        Returns:
            Whether to look again.

        Raises:
            VolumeUnavailable, StoreUnavailable: Not this drop is the trouble; the pass ends.
        """
        if isinstance(look, OncedropError):
            await self._failed(run, drop_id, look)
            return False
        action = decide(look, run.rules)
        if isinstance(action, Keep):
            self._kept(run, look, action)
        elif isinstance(action, Damaged):
            self._damaged(run, look, action)
        elif action.deletes and not run.deleting:
            self._list(run, drop_id, action)
        elif run.report.dry_run:
            run.report.plan(drop_id, action)
        elif action.mismatched and not run.mismatches:
            run.report.held_back += 1
            self._note(run, look, 0)
        else:
            return await self._applied(run, look, action)
        return False

    async def _applied(self, run: _Run, look: Look, action: Action) -> bool:
        try:
            return await self._applier.apply(look, action, run.report)
        except OncedropError as exc:
            await self._failed(run, look.drop_id, exc)
            return False

    def _list(self, run: _Run, drop_id: DropId, action: Action) -> None:
        run.listed += bytes.fromhex(drop_id)
        if run.mismatches and action.mismatched:
            run.tally.orphan_files += isinstance(action, UnlinkOrphan)
            run.tally.orphan_records += isinstance(action, Lose)
        elif isinstance(action, Lose) and action.expected:
            run.tally.records -= 1
        if run.report.dry_run:
            run.report.plan(drop_id, action)

    def _kept(self, run: _Run, look: Look, keep: Keep) -> None:
        if keep.why is Why.GRACE and not run.deleting:
            run.report.kept_by_grace += 1
        if keep.why is Why.MOVING:
            return
        drop = look.drop
        if keep.why is Why.NOTHING:
            run.forget.append(look.drop_id)
        else:
            self._note(run, look, keep.again_ms or (drop.due_ms if drop else 0))

    def _damaged(self, run: _Run, look: Look, damaged: Damaged) -> None:
        if not run.deleting:
            run.report.damaged += 1
            _log.error("drop_damaged", drop_id=look.drop_id, what=damaged.what)
        self._note(run, look, look.drop.due_ms if look.drop else 0)

    def _note(self, run: _Run, look: Look, at_ms: int) -> None:
        now_ms = look.redis_now_ms
        run.notes[look.drop_id] = at_ms if at_ms > now_ms else now_ms + _AGAIN_MS

    async def _failed(self, run: _Run, drop_id: DropId, exc: OncedropError) -> None:
        """Count a failure at one drop.

        Raises:
            VolumeUnavailable, StoreUnavailable: It was not the drop's own.
        """
        run.report.errors += 1
        _log.warning("drop_not_settled", drop_id=drop_id, problem=exc.slug, detail=exc.detail)
        await self._confirm(run)
        run.notes[drop_id] = await self._store.now_ms() + _AGAIN_MS


def _pages(drop_ids: list[DropId], size: int) -> Iterator[list[DropId]]:
    for first in range(0, len(drop_ids), size):
        yield drop_ids[first : first + size]


def _unpacked(listed: bytearray) -> Iterator[DropId]:
    for first in range(0, len(listed), _ID_BYTES):
        yield DropId(listed[first : first + _ID_BYTES].hex())
