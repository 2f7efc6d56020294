"""Does what was decided. Redis decides: each script checks again before a file is touched."""

from __future__ import annotations

import asyncio

import structlog

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import DropId, DropState
from oncedrop_common.metrics import Metrics
from oncedrop_common.store import scripts
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Place, Volume
from oncedrop_janitor.plan import (
    Abandon,
    Action,
    Adopt,
    Commit,
    Expire,
    GiveBack,
    Lapse,
    Look,
    Lose,
    MoveBack,
    Rebuild,
    UnlinkGone,
    UnlinkOrphan,
)
from oncedrop_janitor.report import Report

_log = structlog.get_logger()

_ENDED = {scripts.Lapse.INTERRUPTED: "interrupted", scripts.Lapse.DELIVERED: "delivered"}


class Applier:
    """Carries out actions, and counts and logs those that took effect."""

    def __init__(self, store: DropStore, volume: Volume, metrics: Metrics) -> None:
        self._store = store
        self._volume = volume
        self._metrics = metrics

    async def apply(self, look: Look, action: Action, report: Report) -> bool:
        """Do it, unless the drop changed since the look.

        Returns:
            Whether to look at the drop again.

        Raises:
            StoreUnavailable, VolumeUnavailable: It was not done, or not to the end; a later pass
                meets the drop as it is then.
        """
        match action:
            case Rebuild():
                return await self._rebuild(look, action, report)
            case Adopt():
                await self._adopt(look.drop_id, action, report)
            case GiveBack() | MoveBack():
                await self._give_back(look, action, report)
            case Commit():
                await self._commit(look.drop_id, action, report)
            case Lapse():
                await self._lapse(look.drop_id, action, report)
            case Expire() | Abandon() | UnlinkGone():
                await self._end(look.drop_id, action, report)
            case UnlinkOrphan():
                await self._unlink_orphan(look.drop_id, action, report)
            case Lose():
                await self._lose(look.drop_id, action, report)
        return True

    async def _adopt(self, drop_id: DropId, action: Adopt, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_ADOPT.reached()
        adopted, _ = await self._store.adopt(drop_id, action.claim_hash, revision=action.revision)
        CrashPoint.APPLY_AFTER_ADOPT.reached()
        if self._counted("adopt", adopted, scripts.Adopt.ADOPTED):
            self._did(report, action, "claim_adopted", drop_id)

    async def _rebuild(self, look: Look, action: Rebuild, report: Report) -> bool:
        CrashPoint.APPLY_BEFORE_REBUILD.reached()
        rebuilt, _ = await self._store.rebuild(look.drop_id, action.meta, action.claim_hash)
        CrashPoint.APPLY_AFTER_REBUILD.reached()
        if not self._counted("rebuild", rebuilt, scripts.Rebuild.REBUILT):
            return True
        self._did(report, action, "drop_rebuilt", look.drop_id)
        # A second look at each would double the time that a wiped Redis takes to heal.
        return len(look.files) > 1

    async def _commit(self, drop_id: DropId, action: Commit, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_COMMIT.reached()
        committed = await self._store.commit(drop_id, action.meta)
        CrashPoint.APPLY_AFTER_COMMIT.reached()
        if self._counted("commit", committed, scripts.Commit.COMMITTED):
            self._did(report, action, "upload_committed", drop_id)

    async def _lose(self, drop_id: DropId, action: Lose, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_LOSE.reached()
        lost = await self._store.lose(drop_id, revision=action.revision)
        CrashPoint.APPLY_AFTER_LOSE.reached()
        if self._counted("lose", lost, scripts.Lose.LOST):
            self._did(report, action, "drop_lost", drop_id)

    async def _give_back(self, look: Look, action: GiveBack | MoveBack, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_GIVE_BACK.reached()
        moved = await asyncio.to_thread(self._volume.give_back, look.drop_id, action.claim_hash)
        CrashPoint.APPLY_AFTER_GIVE_BACK.reached()
        if isinstance(action, MoveBack):
            if moved:
                self._did(report, action, "file_given_back", look.drop_id)
            return
        if not moved and look.blob is None:
            return
        restored = await self._store.restore(
            look.drop_id, action.claim_hash, revision=action.revision
        )
        CrashPoint.APPLY_AFTER_RESTORE.reached()
        if self._counted("restore", restored, scripts.Restore.READY):
            self._did(report, action, "drop_restored", look.drop_id)

    async def _end(
        self, drop_id: DropId, action: Expire | Abandon | UnlinkGone, report: Report
    ) -> None:
        if isinstance(action, Expire):
            event = "drop_expired"
            CrashPoint.APPLY_BEFORE_EXPIRE.reached()
            expired = await self._store.expire(drop_id)
            CrashPoint.APPLY_AFTER_EXPIRE.reached()
            ended = self._counted("expire", expired, scripts.Expire.EXPIRED)
        elif isinstance(action, Abandon):
            event = "upload_abandoned"
            CrashPoint.APPLY_BEFORE_ABANDON.reached()
            abandoned = await self._store.abandon(drop_id, given_up=False)
            CrashPoint.APPLY_AFTER_ABANDON.reached()
            ended = self._counted("abandon", abandoned, scripts.Abandon.ABANDONED)
        else:
            event, ended = "gone_file_unlinked", True
        if ended:
            self._did(report, action, event, drop_id)
            await self._unlink(drop_id, report)

    async def _lapse(self, drop_id: DropId, action: Lapse, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_LAPSE.reached()
        lapsed, _ = await self._store.lapse(
            drop_id, action.claim_hash, revision=action.revision, place=action.place
        )
        CrashPoint.APPLY_AFTER_LAPSE.reached()
        self._metrics.arrow("lapse", lapsed)
        if lapsed in (
            scripts.Lapse.LIVE,
            scripts.Lapse.CHANGED,
            scripts.Lapse.GONE,
            scripts.Lapse.UNKNOWN,
        ):
            return
        report.count(action.counter)
        _log.info("drop_lapsed", drop_id=drop_id, result=lapsed.lower())
        if lapsed in _ENDED:
            report.count(_ENDED[lapsed])
            await self._unlink(drop_id, report)

    async def _unlink_orphan(self, drop_id: DropId, action: UnlinkOrphan, report: Report) -> None:
        drop = await self._store.read(drop_id)
        part = action.found.place is Place.INCOMING
        if drop is not None and not (part and drop.state is not DropState.UPLOADING):
            return
        CrashPoint.APPLY_BEFORE_ORPHAN_UNLINK.reached()
        self._freed(await asyncio.to_thread(self._volume.unlink_found, action.found), report)
        CrashPoint.APPLY_AFTER_ORPHAN_UNLINK.reached()
        self._did(report, action, "orphan_file_unlinked", drop_id)

    async def _unlink(self, drop_id: DropId, report: Report) -> None:
        CrashPoint.APPLY_BEFORE_UNLINK.reached()
        self._freed(await asyncio.to_thread(self._volume.unlink, drop_id), report)
        CrashPoint.APPLY_AFTER_UNLINK.reached()

    def _freed(self, count: int, report: Report) -> None:
        report.bytes_freed += count
        self._store.freed(count)

    def _counted(self, arrow: str, result: str, hoped: str) -> bool:
        self._metrics.arrow(arrow, result)
        return result == hoped

    def _did(self, report: Report, action: Action, event: str, drop_id: DropId) -> None:
        report.count(action.counter)
        _log.info(event, drop_id=drop_id)
