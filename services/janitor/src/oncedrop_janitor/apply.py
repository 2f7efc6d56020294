"""Does what was decided. Redis decides: each script checks again before a file is touched."""

from __future__ import annotations

import asyncio

import structlog

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
        drop_id = look.drop_id
        match action:
            case Rebuild():
                return await self._rebuild(look, action, report)
            case Adopt():
                adopted, _ = await self._store.adopt(
                    drop_id, action.claim_hash, revision=action.revision
                )
                if self._counted("adopt", adopted, scripts.Adopt.ADOPTED):
                    self._did(report, action, "claim_adopted", drop_id)
            case GiveBack():
                await self._give_back(look, action, report)
            case MoveBack():
                if await asyncio.to_thread(self._volume.give_back, drop_id, action.claim_hash):
                    self._did(report, action, "file_given_back", drop_id)
            case Commit():
                committed = await self._store.commit(drop_id, action.meta)
                if self._counted("commit", committed, scripts.Commit.COMMITTED):
                    self._did(report, action, "upload_committed", drop_id)
            case Lapse():
                await self._lapse(drop_id, action, report)
            case Expire():
                expired = await self._store.expire(drop_id)
                if self._counted("expire", expired, scripts.Expire.EXPIRED):
                    self._did(report, action, "drop_expired", drop_id)
                    await self._unlink(drop_id, report)
            case Abandon():
                abandoned = await self._store.abandon(drop_id, given_up=False)
                if self._counted("abandon", abandoned, scripts.Abandon.ABANDONED):
                    self._did(report, action, "upload_abandoned", drop_id)
                    await self._unlink(drop_id, report)
            case UnlinkGone():
                freed = await self._unlink(drop_id, report)
                if freed:
                    self._did(report, action, "gone_file_unlinked", drop_id)
            case UnlinkOrphan():
                await self._unlink_orphan(drop_id, action, report)
            case Lose():
                lost = await self._store.lose(drop_id, revision=action.revision)
                if self._counted("lose", lost, scripts.Lose.LOST):
                    self._did(report, action, "drop_lost", drop_id)
        return True

    async def _rebuild(self, look: Look, action: Rebuild, report: Report) -> bool:
        rebuilt, _ = await self._store.rebuild(look.drop_id, action.meta, action.claim_hash)
        if not self._counted("rebuild", rebuilt, scripts.Rebuild.REBUILT):
            return True
        self._did(report, action, "drop_rebuilt", look.drop_id)
        # A second look at each would double the time that a wiped Redis takes to heal.
        return len(look.files) > 1

    async def _give_back(self, look: Look, action: GiveBack, report: Report) -> None:
        moved = await asyncio.to_thread(self._volume.give_back, look.drop_id, action.claim_hash)
        if not moved and look.blob is None:
            return
        restored = await self._store.restore(
            look.drop_id, action.claim_hash, revision=action.revision
        )
        if self._counted("restore", restored, scripts.Restore.READY):
            self._did(report, action, "drop_restored", look.drop_id)

    async def _lapse(self, drop_id: DropId, action: Lapse, report: Report) -> None:
        lapsed, _ = await self._store.lapse(
            drop_id, action.claim_hash, revision=action.revision, place=action.place
        )
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
        freed = await asyncio.to_thread(self._volume.unlink_found, action.found)
        if freed:
            self._freed(freed, report)
            self._did(report, action, "orphan_file_unlinked", drop_id)

    async def _unlink(self, drop_id: DropId, report: Report) -> int:
        freed = await asyncio.to_thread(self._volume.unlink, drop_id)
        self._freed(freed, report)
        return freed

    def _freed(self, count: int, report: Report) -> None:
        report.bytes_freed += count
        self._store.freed(count)

    def _counted(self, arrow: str, result: str, hoped: str) -> bool:
        self._metrics.arrow(arrow, result)
        return result == hoped

    def _did(self, report: Report, action: Action, event: str, drop_id: DropId) -> None:
        report.count(action.counter)
        _log.info(event, drop_id=drop_id)
