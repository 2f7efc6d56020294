"""The records' public API: one typed method an arrow of the state machine."""

from __future__ import annotations

from collections.abc import Sequence

from oncedrop_common.drops import ClaimHash, Drop, DropId, DropMeta
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.connection import StoreConnection
from oncedrop_common.store.records import intervals_text, meta_fields

PASSWORD_ATTEMPTS_PER_PAUSE = 5
PASSWORD_PAUSE_SECONDS = 900
PASSWORD_ATTEMPTS_IN_ALL = 25

Intervals = Sequence[tuple[int, int]]


class Arrows(StoreConnection):
    """Each method runs the script of its name; see store/lua for what the words mean."""

    async def read(self, drop_id: DropId) -> Drop | None:
        """The record, or None when there is none."""
        return (await self.run(scripts.READ, drop_id))[1]

    async def open_upload(
        self, drop_id: DropId, owner_hash: str, ttl_seconds: int
    ) -> scripts.OpenUpload:
        """Make the record of an upload, before any file."""
        result, drop = await self.run(
            scripts.OPEN_UPLOAD,
            drop_id,
            owner_hash,
            self.leases.upload,
            ttl_seconds,
            self.leases.tombstone,
        )
        self.note_due(drop)
        return result

    async def renew_upload(
        self, drop_id: DropId, owner_hash: str, ttl_seconds: int
    ) -> tuple[scripts.RenewUpload, int]:
        """Give an upload that makes progress a fresh lease.

        Returns:
            The word, and Redis' clock in ms: what the header's times are made from.
        """
        result, drop = await self.run(
            scripts.RENEW_UPLOAD,
            drop_id,
            owner_hash,
            self.leases.upload,
            ttl_seconds,
            self.leases.tombstone,
        )
        return result, drop.now_ms if drop else 0

    async def abandon(self, drop_id: DropId, *, given_up: bool) -> scripts.Abandon:
        """End an upload whose lease lapsed or that its uploader gave up."""
        result, drop = await self.run(scripts.ABANDON, drop_id, int(given_up))
        self.note_due(drop)
        return result

    async def commit(self, drop_id: DropId, meta: DropMeta) -> scripts.Commit:
        """Make a drop ready whose blob is in place."""
        result, drop = await self.run(
            scripts.COMMIT,
            drop_id,
            self.leases.tombstone,
            meta.expires_ms,
            meta.max_downloads,
            *meta_fields(meta),
        )
        self.note_due(drop)
        if result is scripts.Commit.COMMITTED:
            self.record_event("created", drop_id, size=meta.size)
            self.cast("HINCRBY", keys.USAGE, "files", 1)
        return result

    async def claim(
        self,
        drop_id: DropId,
        claim_hash: ClaimHash,
        request_id: str,
        *,
        resume_only: bool = False,
        password_verified: bool = False,
        confirmed: bool = False,
    ) -> tuple[scripts.ClaimResult, Drop | None]:
        """Take one of the drop's downloads for this claimant, or see that it is theirs.

        Safe to repeat with the same claim. A claim without progress lapses.

        Args:
            drop_id: Which drop.
            claim_hash: Digest of the claim id.
            request_id: Tells this request from others of the same claimant; see release.
            resume_only: Never begin a claim; a drop id alone is no link.
            password_verified: The drop's password was given.
            confirmed: A person pressed the button.
        """
        result, drop = await self.run(
            scripts.CLAIM,
            drop_id,
            claim_hash,
            request_id,
            self.leases.claim,
            int(resume_only),
            int(password_verified),
            int(confirmed),
        )
        if result is scripts.ClaimResult.CLAIMED:
            self.note_due(drop)
            self.record_event("claimed", drop_id)
        return result, drop

    async def release(
        self, drop_id: DropId, claim_hash: ClaimHash, request_id: str
    ) -> tuple[scripts.Release, Drop | None]:
        """Close a claim that sent nothing; then rename its file back, then restore."""
        result, drop = await self.run(scripts.RELEASE, drop_id, claim_hash, request_id)
        self.note_due(drop)
        return result, drop

    async def renew_claim(
        self, drop_id: DropId, claim_hash: ClaimHash, acknowledged: Intervals, *, progressed: bool
    ) -> tuple[scripts.RenewClaim, Drop | None]:
        """Note what was acknowledged; with progress the lease begins anew."""
        return await self.run(
            scripts.RENEW_CLAIM,
            drop_id,
            claim_hash,
            self.leases.claim,
            self.leases.claim_max,
            self.leases.linger,
            int(progressed),
            intervals_text(acknowledged),
        )

    async def deliver(
        self, drop_id: DropId, claim_hash: ClaimHash, acknowledged: Intervals
    ) -> tuple[scripts.Deliver, Drop | None]:
        """End a claim whose every byte was acknowledged; unlink the file when DELIVERED."""
        result, drop = await self.run(
            scripts.DELIVER,
            drop_id,
            claim_hash,
            self.leases.linger,
            intervals_text(acknowledged),
        )
        if result in (scripts.Deliver.DELIVERED, scripts.Deliver.COUNTED):
            self.note_due(drop)
            self.record_event("delivered", drop_id)
        elif result is scripts.Deliver.LINGERING:
            self.note_due(drop)
        return result, drop

    async def lapse(
        self,
        drop_id: DropId,
        claim_hash: ClaimHash,
        *,
        revision: int | None,
        place: str,
        at_once: bool = False,
    ) -> tuple[scripts.Lapse, Drop | None]:
        """Close a claim whose lease is over.

        Args:
            drop_id: Which drop.
            claim_hash: Which claim.
            revision: The record's, read before looking at the volume; None for who holds the file.
            place: Where the file was: `blobs` (nothing was sent), `claimed`, `none`.
            at_once: The drop gives no second chance (`resume=0`).
        """
        result, drop = await self.run(
            scripts.LAPSE,
            drop_id,
            claim_hash,
            "" if revision is None else revision,
            place,
            int(at_once),
        )
        self.note_due(drop)
        if result in (scripts.Lapse.INTERRUPTED, scripts.Lapse.RESTORE):
            self.record_event("interrupted", drop_id)
        elif result is scripts.Lapse.DELIVERED:
            self.record_event("delivered", drop_id)
        return result, drop

    async def restore(
        self, drop_id: DropId, claim_hash: ClaimHash, *, revision: int
    ) -> scripts.Restore:
        """Make a drop ready again whose closed claim's file was renamed back."""
        result, drop = await self.run(scripts.RESTORE, drop_id, claim_hash, revision)
        self.note_due(drop)
        return result

    async def adopt(
        self, drop_id: DropId, claim_hash: ClaimHash, *, revision: int
    ) -> tuple[scripts.Adopt, Drop | None]:
        """Make the record agree with a file in claimed/ that it does not know of."""
        result, drop = await self.run(
            scripts.ADOPT, drop_id, claim_hash, revision, self.leases.claim
        )
        self.note_due(drop)
        if result is scripts.Adopt.ADOPTED:
            self.record_event("rebuilt", drop_id)
        return result, drop

    async def expire(self, drop_id: DropId) -> scripts.Expire:
        """End a drop whose time is over."""
        result, drop = await self.run(scripts.EXPIRE, drop_id)
        self.note_due(drop)
        if result is scripts.Expire.EXPIRED:
            self.record_event("expired", drop_id)
        return result

    async def delete(self, drop_id: DropId) -> tuple[scripts.Delete, Drop | None]:
        """End a drop in any living state; unlink its files afterwards."""
        result, drop = await self.run(scripts.DELETE, drop_id)
        self.note_due(drop)
        if result is scripts.Delete.DELETED:
            self.record_event("deleted", drop_id)
        return result, drop

    async def count_password_attempt(
        self, drop_id: DropId, attempt_id: str
    ) -> tuple[scripts.TryPassword, Drop | None]:
        """Count an attempt before it is verified: TRY, WAIT (a pause is on), LOCKED or GONE."""
        return await self._try_password(drop_id, "try", attempt_id)

    async def settle_password_attempt(
        self, drop_id: DropId, attempt_id: str, *, right: bool
    ) -> tuple[scripts.TryPassword, Drop | None]:
        """Say how a counted attempt ended; a right one is given back, one too many locks."""
        return await self._try_password(drop_id, "right" if right else "wrong", attempt_id)

    async def _try_password(
        self, drop_id: DropId, step: str, attempt_id: str
    ) -> tuple[scripts.TryPassword, Drop | None]:
        result, drop = await self.run(
            scripts.TRY_PASSWORD,
            drop_id,
            step,
            attempt_id,
            PASSWORD_ATTEMPTS_PER_PAUSE,
            PASSWORD_PAUSE_SECONDS,
            PASSWORD_ATTEMPTS_IN_ALL,
        )
        if result is scripts.TryPassword.LOCKED:
            self.note_due(drop)
            self.record_event("locked", drop_id)
        return result, drop

    async def lose(self, drop_id: DropId, *, revision: int) -> scripts.Lose:
        """End a drop whose file is nowhere."""
        result, drop = await self.run(scripts.LOSE, drop_id, revision)
        self.note_due(drop)
        if result is scripts.Lose.LOST:
            self.record_event("lost", drop_id)
        return result

    async def rebuild(
        self, drop_id: DropId, meta: DropMeta, claim_hash: ClaimHash | None
    ) -> tuple[scripts.Rebuild, Drop | None]:
        """Make a record from a blob's header where Redis knows none.

        Args:
            drop_id: Which drop.
            meta: From the header.
            claim_hash: The claim whose file it is; None for a blob in blobs/.
        """
        result, drop = await self.run(
            scripts.REBUILD,
            drop_id,
            claim_hash or "",
            self.leases.claim,
            self.leases.tombstone,
            meta.expires_ms,
            meta.max_downloads,
            *meta_fields(meta),
        )
        if result is scripts.Rebuild.REBUILT:
            self.note_due(drop)
            self.record_event("rebuilt", drop_id)
        return result, drop
