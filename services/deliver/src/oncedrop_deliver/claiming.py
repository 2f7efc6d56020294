"""Claim, then let the volume confirm; and the ways back when that fails before the first byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TypeAlias

import structlog

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import (
    ClaimHash,
    Drop,
    DropId,
    DropMeta,
    DropState,
    GoneReason,
    IfInterrupted,
)
from oncedrop_common.errors import (
    BlobDamaged,
    BlobMissing,
    ClaimHeld,
    DropGone,
    LinkUnknown,
    OncedropError,
    PasswordNeeded,
)
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import Adopt, ClaimResult, Rebuild, Release
from oncedrop_common.tokens import claim_hash
from oncedrop_common.volume import FoundFile, OpenBlob, Place, Volume
from oncedrop_deliver.held import Held, boottime
from oncedrop_deliver.together import Together

_log = structlog.get_logger()

# A drop can change under each look at it; this often is more than any real race needs.
_TRIES = 4
_HELD_RETRY_SECONDS = 30
# One takes while the other waits for the disk.
_LANES = 2


Take: TypeAlias = tuple[DropId, ClaimHash]
# Whether this request moved the file, and the file.
Taken: TypeAlias = tuple[bool, OpenBlob]


class ConfirmNeeded(Exception):
    """The drop is only given to who presses the button."""


class Claiming:
    """Takes drops for claimants."""

    def __init__(
        self,
        store: DropStore,
        volume: Volume,
        pairing: Pairing,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._volume = volume
        self._pairing = pairing
        self._metrics = metrics
        self._take = Together(self._take_all, _LANES)

    async def look(self, drop_id: DropId) -> tuple[Drop, DropMeta]:
        """The drop as it stands, if it can be had; as judge."""
        return await self.judge(drop_id, await self._store.read(drop_id))

    async def judge(self, drop_id: DropId, drop: Drop | None) -> tuple[Drop, DropMeta]:
        """The drop and its metadata, if it can be had; changes nothing, also where Redis forgot it.

        Args:
            drop_id: Which drop.
            drop: Its record as it was just read.

        Raises:
            LinkUnknown: Neither record nor blob, or one still being uploaded.
            DropGone: Used up, being taken, expired, deleted or locked.
            ClaimHeld: Someone is downloading it and may give it back.
        """
        if drop is None or drop.state is DropState.UPLOADING:
            drop = await self._look_at_volume(drop_id)
        if drop.state is not DropState.READY or drop.expired or drop.meta is None:
            raise refusal(drop)
        return drop, drop.meta

    async def begin(
        self, drop_id: DropId, claim_id: str, request_id: str, *, verified: bool, confirmed: bool
    ) -> Drop:
        """Begin (or find begun) this claimant's claim; the record is rebuilt if Redis forgot it.

        Raises:
            PasswordNeeded, ConfirmNeeded: It takes more than the link.
            LinkUnknown, DropGone, ClaimHeld: As look.
        """
        return await self._claim(
            drop_id,
            claim_id,
            request_id,
            resume_only=False,
            verified=verified,
            confirmed=confirmed,
        )

    async def take(
        self, drop_id: DropId, claim_id: str, request_id: str, *, verified: bool, confirmed: bool
    ) -> Held:
        """Begin a claim and take its file.

        Raises:
            BlobMissing, BlobDamaged: The claim was released again.
            OncedropError: As begin.
        """
        began = asyncio.get_running_loop().time()
        asked_at = boottime()
        drop = await self.begin(
            drop_id, claim_id, request_id, verified=verified, confirmed=confirmed
        )
        held = await self._hold(drop, claim_id, request_id, asked_at)
        self._metrics.claimed(asyncio.get_running_loop().time() - began)
        return held

    async def resume(self, drop_id: DropId, claim_id: str, request_id: str) -> Held:
        """Take the file of a claim that has begun.

        Raises:
            LinkUnknown: No such claim, and nobody has the drop: a drop id alone is no link.
            OncedropError: As take.
        """
        asked_at = boottime()
        drop = await self._claim(drop_id, claim_id, request_id, resume_only=True)
        claim = drop.claim(claim_hash(claim_id))
        if claim is not None and claim.acknowledged:
            self._store.record_event("resumed", drop_id, bytes=drop.acknowledged_bytes)
        return await self._hold(drop, claim_id, request_id, asked_at)

    async def claimant_of(self, drop: Drop | None, drop_id: DropId, ids: list[str]) -> str | None:
        """Which of these claim ids, given back by a client, has this drop now.

        Args:
            drop: The record, or None where Redis knows none.
            drop_id: Which drop.
            ids: Well-formed claim ids, in the order of trust.
        """
        if drop is None:
            files = await asyncio.to_thread(self._volume.find, drop_id) if ids else []
            hashes = {found.claim_hash for found in files}
        else:
            hashes = {c.claim_hash for c in drop.claims if not c.closed}
        return next((claim_id for claim_id in ids if claim_hash(claim_id) in hashes), None)

    async def undo(self, held: Held) -> None:
        """Release a claim that sent nothing: the drop is ready for the next visitor.

        Where another request of the claimant may be sending, or Redis is away, the lease ends it.
        """
        await self._give_up(held.drop_id, held.claim_hash, held.request_id)

    async def _claim(
        self,
        drop_id: DropId,
        claim_id: str,
        request_id: str,
        *,
        resume_only: bool,
        verified: bool = False,
        confirmed: bool = False,
    ) -> Drop:
        mine = claim_hash(claim_id)
        for _ in range(_TRIES):
            CrashPoint.CLAIM_BEFORE_CLAIM.reached()
            result, drop = await self._store.claim(
                drop_id,
                mine,
                request_id,
                resume_only=resume_only,
                password_verified=verified,
                confirmed=confirmed,
            )
            self._metrics.arrow("claim", result)
            match result:
                case ClaimResult.UNKNOWN:
                    await self.rebuild(drop_id, mine)
                case ClaimResult.UPLOADING:
                    await self._commit(drop_id)
                case _ if drop is None:
                    break
                case ClaimResult.CLAIMED | ClaimResult.YOURS:
                    CrashPoint.CLAIM_AFTER_CLAIM.reached()
                    return drop
                case ClaimResult.PASSWORD:
                    raise PasswordNeeded("The file has a password.", drop_id=drop_id)
                case ClaimResult.CONFIRM:
                    raise ConfirmNeeded
                case ClaimResult.TAKEN if resume_only and drop.state is DropState.READY:
                    raise LinkUnknown("There is no such link.", drop_id=drop_id)
                case ClaimResult.CLOSED:
                    raise claim_over(drop)
                case _:
                    raise refusal(drop)
        raise BlobMissing("The drop keeps changing.", drop_id=drop_id)

    # The volume confirms.

    async def _hold(self, drop: Drop, claim_id: str, request_id: str, asked_at: float) -> Held:
        """Take and open the file; when cancelled, see it through and undo it."""
        mine = claim_hash(claim_id)
        drop_id = drop.drop_id
        if drop.meta is None:
            raise refusal(drop)
        opening = self._open(drop_id, mine, single=drop.meta.max_downloads == 1)
        try:
            # Not a task for all of this: most of the time this is all there is to wait for.
            moved, blob = await asyncio.shield(opening)
            if drop.meta.max_downloads == 1:
                CrashPoint.CLAIM_AFTER_FSYNC.reached()
        except asyncio.CancelledError:
            with contextlib.suppress(OncedropError):
                _, blob = await opening
                blob.close()
            await self._give_up(drop_id, mine, request_id)
            raise
        except BlobMissing:
            raise await asyncio.shield(self._not_confirmed(drop, mine, request_id)) from None
        except OncedropError:
            await asyncio.shield(self._give_up(drop_id, mine, request_id))
            raise
        held = Held(drop_id, claim_id, request_id, drop.meta, blob, deadline=0)
        held.extend(drop, asked_at)
        try:
            if blob.header.meta != drop.meta:
                raise BlobDamaged("Record and file do not agree.", drop_id=drop_id)
            if not held.alive():
                if moved:
                    await asyncio.to_thread(self._volume.give_back, drop_id, mine)
                raise refusal(drop)
        except BaseException:
            blob.close()
            await asyncio.shield(self._give_up(drop_id, mine, request_id))
            raise
        return held

    def _open(self, drop_id: DropId, mine: ClaimHash, *, single: bool) -> asyncio.Future[Taken]:
        if single:
            return self._take((drop_id, mine))
        return asyncio.ensure_future(asyncio.to_thread(self._open_in_place, drop_id))

    def _open_in_place(self, drop_id: DropId) -> Taken:
        return False, self._volume.open_blob(drop_id)

    def _take_all(self, takes: Sequence[Take]) -> list[Taken | BaseException]:
        """Take and open each file, then see that no power cut undoes it: one fsync for all."""
        results = [self._take_and_open(*take) for take in takes]
        opened = [result for result in results if not isinstance(result, BaseException)]
        try:
            if opened:
                self._volume.sync_claimed()
                self._metrics.claims_synced()
        except OncedropError as exc:
            for _, blob in opened:
                blob.close()
            return [r if isinstance(r, BaseException) else exc for r in results]
        return results

    def _take_and_open(self, drop_id: DropId, mine: ClaimHash) -> Taken | BaseException:
        try:
            CrashPoint.CLAIM_BEFORE_RENAME.reached()
            moved = self._volume.take(drop_id, mine)
            CrashPoint.CLAIM_AFTER_RENAME.reached()
            blob = self._volume.open_claimed(drop_id, mine)
        except Exception as exc:  # noqa: BLE001  it belongs to one of those who share the trip
            return exc
        CrashPoint.CLAIM_AFTER_OPEN.reached()
        return moved, blob

    async def _not_confirmed(self, drop: Drop, mine: ClaimHash, request_id: str) -> OncedropError:
        """No file for a claim that Redis granted: the volume knows better, or is not ours."""
        drop_id = drop.drop_id
        try:
            await self._pairing.check()
            files = await asyncio.to_thread(self._volume.find, drop_id)
        except OncedropError:
            await self._give_up(drop_id, mine, request_id)
            raise
        for found in files:
            if found.claim_hash is None or found.claim_hash == mine:
                continue
            CrashPoint.CLAIM_BEFORE_ADOPT.reached()
            result, adopted = await self._store.adopt(
                drop_id, found.claim_hash, revision=drop.revision
            )
            CrashPoint.CLAIM_AFTER_ADOPT.reached()
            self._metrics.arrow("adopt", result)
            if result in (Adopt.ADOPTED, Adopt.YOURS) and adopted is not None:
                return refusal(adopted)
        await self._give_up(drop_id, mine, request_id)
        ended = await self._store.read(drop_id)
        if ended is not None and ended.state is DropState.GONE:
            # Delivered by another request of this claimant, or deleted, since the claim.
            return refusal(ended)
        return BlobMissing("The file is not in its place.", drop_id=drop_id)

    # Ways back.

    async def restore(self, drop: Drop, mine: ClaimHash) -> None:
        """Rename a closed claim's file back, then make the drop ready again.

        Args:
            drop: The record as the script that closed the claim left it.
            mine: The closed claim.

        Raises:
            StoreUnavailable, VolumeUnavailable: The janitor will finish it.
        """
        await asyncio.to_thread(self._volume.give_back, drop.drop_id, mine)
        CrashPoint.RESTORE_AFTER_RENAME_BACK.reached()
        restored = await self._store.restore(drop.drop_id, mine, revision=drop.revision)
        CrashPoint.RESTORE_AFTER_RESTORE.reached()
        self._metrics.arrow("restore", restored)

    async def _give_up(self, drop_id: DropId, mine: ClaimHash, request_id: str) -> None:
        """As _release, where another failure is already on its way to the client."""
        with contextlib.suppress(OncedropError):
            await self._release(drop_id, mine, request_id)

    async def _release(self, drop_id: DropId, mine: ClaimHash, request_id: str) -> None:
        CrashPoint.RELEASE_BEFORE_RELEASE.reached()
        result, drop = await self._store.release(drop_id, mine, request_id)
        CrashPoint.RELEASE_AFTER_RELEASE.reached()
        self._metrics.arrow("release", result)
        if result is not Release.RELEASED or drop is None or drop.claim(mine) is None:
            return
        # Closed first, so that no other request of this claim can begin; then the file; then
        # the record. A crash in between is finished by the janitor.
        await self.restore(drop, mine)
        _log.info("claim_released", drop_id=drop_id)

    # What Redis forgot.

    async def _look_at_volume(self, drop_id: DropId) -> Drop:
        self._pairing.require()
        found, blob = await asyncio.to_thread(self._ready_blob, drop_id)
        now_ms = await self._store.now_ms()
        if blob is None:
            if any(f.place is Place.CLAIMED for f in found):
                raise _being_taken(drop_id)
            raise LinkUnknown("There is no such link.", drop_id=drop_id)
        with blob:
            meta = blob.header.meta
        return Drop(
            drop_id=drop_id,
            state=DropState.READY,
            revision=0,
            now_ms=now_ms,
            owner_hash=meta.owner_hash,
            meta=meta,
            downloads_left=meta.max_downloads,
            created_ms=meta.created_ms,
            expires_ms=meta.expires_ms,
            size=meta.size,
        )

    def _ready_blob(self, drop_id: DropId) -> tuple[list[FoundFile], OpenBlob | None]:
        found = self._volume.find(drop_id)
        if any(f.place is Place.BLOBS for f in found):
            with contextlib.suppress(BlobMissing):
                return found, self._volume.open_blob(drop_id)
        return found, None

    async def rebuild(self, drop_id: DropId, mine: ClaimHash | None = None) -> None:
        """Make the record again from what lies in the volume.

        Args:
            drop_id: Whose record Redis does not know.
            mine: The claimant who asks; its file goes before another's.

        Raises:
            LinkUnknown: Nothing of this drop is there.
            DropGone: It has expired.
        """
        self._pairing.require()
        files = await asyncio.to_thread(self._volume.find, drop_id)
        claimed = [f for f in files if f.place is Place.CLAIMED]
        ready = [f for f in files if f.place is Place.BLOBS]
        claimed.sort(key=lambda f: f.claim_hash != mine)
        for found in claimed + ready:
            with contextlib.suppress(BlobMissing):
                with await asyncio.to_thread(self._volume.open_found, found) as blob:
                    meta = blob.header.meta
                CrashPoint.CLAIM_BEFORE_REBUILD.reached()
                result, _ = await self._store.rebuild(drop_id, meta, found.claim_hash)
                CrashPoint.CLAIM_AFTER_REBUILD.reached()
                self._metrics.arrow("rebuild", result)
                if result is Rebuild.EXPIRED:
                    raise DropGone(
                        "The file has expired.",
                        drop_id=drop_id,
                        reason=GoneReason.EXPIRED,
                        gone_ms=meta.expires_ms,
                    )
                _log.info("record_rebuilt", drop_id=drop_id, claimed=found.claim_hash is not None)
                return
        raise LinkUnknown("There is no such link.", drop_id=drop_id)

    async def _commit(self, drop_id: DropId) -> None:
        """The record says uploading: its commit was lost if the blob is in place.

        Raises:
            LinkUnknown: It really is being uploaded; nobody has the link yet.
        """
        _, blob = await asyncio.to_thread(self._ready_blob, drop_id)
        if blob is None:
            raise LinkUnknown("There is no such link.", drop_id=drop_id)
        with blob:
            CrashPoint.CLAIM_BEFORE_COMMIT.reached()
            result = await self._store.commit(drop_id, blob.header.meta)
            CrashPoint.CLAIM_AFTER_COMMIT.reached()
        self._metrics.arrow("commit", result)


def refusal(drop: Drop) -> OncedropError:
    """Why this drop cannot be had, as the error that says so."""
    drop_id = drop.drop_id
    if drop.state is DropState.GONE:
        return DropGone(
            "The file is gone.", drop_id=drop_id, reason=drop.reason, gone_ms=drop.gone_ms
        )
    if drop.expired and drop.state is DropState.READY:
        return DropGone(
            "The file has expired.",
            drop_id=drop_id,
            reason=GoneReason.EXPIRED,
            gone_ms=drop.expires_ms,
        )
    if drop.meta is not None and drop.meta.if_interrupted is IfInterrupted.RESTORE:
        return ClaimHeld(
            "Someone is downloading the file; if that fails, it can be had again.",
            drop_id=drop_id,
            retry_after_seconds=_HELD_RETRY_SECONDS,
        )
    return _being_taken(drop_id, drop.claimed_ms)


def claim_over(drop: Drop) -> OncedropError:
    """Why a claim that was closed cannot be used, whatever others may have of this drop."""
    if drop.state is DropState.GONE:
        return refusal(drop)
    return DropGone(
        "The time of this download is over.",
        drop_id=drop.drop_id,
        reason=GoneReason.INTERRUPTED,
        gone_ms=drop.now_ms,
    )


def _being_taken(drop_id: DropId, claimed_ms: int = 0) -> DropGone:
    return DropGone("Someone has taken the file.", drop_id=drop_id, reason=None, gone_ms=claimed_ms)
