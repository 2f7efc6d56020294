"""Serve, and delete: a response that sends a claimed file and then sees to its end.

Nothing is deleted because `send` returned. The socket tells how much of the body the other
side's kernel has acknowledged; only when the union of acknowledged ranges covers the file is the
drop delivered and its file unlinked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Scope, Send

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import ClaimHash, Drop
from oncedrop_common.errors import (
    BlobDamaged,
    BlobMissing,
    OncedropError,
    RateLimited,
    StoreUnavailable,
)
from oncedrop_common.http.zero_copy import CONNECTION, ZERO_COPY, Connection, finished
from oncedrop_common.metrics import Metrics
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import Deliver, Lapse, RenewClaim
from oncedrop_common.volume import Volume
from oncedrop_deliver.claiming import Claiming, claim_over
from oncedrop_deliver.held import Held, boottime
from oncedrop_deliver.ranges import Slice
from oncedrop_deliver.together import Together

_log = structlog.get_logger()

_RENEW_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_MESSAGE_BYTES = 8 * 1024 * 1024
_PLAIN_BYTES = 256 * 1024
_SMALL_BYTES = 1024 * 1024
_POLL_FIRST_SECONDS = 0.0005
_POLL_MOST_SECONDS = 0.05
# After a connection has ended nothing more is acknowledged; what was in flight needs a moment.
_LOST_GRACE_SECONDS = 0.2
_PARALLEL_PER_CLAIM = 8
_LANES = 2


@dataclass(frozen=True, slots=True)
class Head:
    """What a response begins with, and which part of the file follows."""

    status: int
    headers: Mapping[str, str]
    part: Slice


class _Progress:
    """How far one response's body went.

    Attributes:
        handed_over: Bytes given to the kernel (or, without zero copy, to the transport).
    """

    def __init__(self, part: Slice, connection: Connection | None) -> None:
        self.part = part
        self.handed_over = 0
        self._connection = connection
        self._body_at: int | None = None
        self._arrived = -1

    async def begin(self) -> None:
        """The head is written: from here on the stream is the body."""
        if self._connection is not None:
            await self._connection.flushed()
            self._body_at = self._connection.position()

    def hand_over(self, count: int) -> None:
        """The kernel took this many more bytes."""
        self.handed_over += count
        CrashPoint.SERVE_AFTER_STEP.reached()

    @property
    def acknowledged(self) -> int:
        """Bytes of the body that have arrived; never decreases."""
        if self._arrived < self.part.length and self._connection and self._body_at is not None:
            now = self._connection.acknowledged()
            if now is not None:
                # Negative until the head has arrived.
                self._arrived = max(self._arrived, now - self._body_at)
        return min(max(self._arrived, 0), self.handed_over)

    @property
    def complete(self) -> bool:
        """Whether all of the body has arrived, the head before it included."""
        return self.acknowledged == self.part.length and self._arrived >= 0

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """The part of the file that has arrived."""
        count = self.acknowledged
        return [(self.part.start, self.part.start + count)] if count > 0 else []


class Delivery:
    """Sends claimed files; one for the whole service."""

    def __init__(
        self,
        store: DropStore,
        volume: Volume,
        claiming: Claiming,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._volume = volume
        self._claiming = claiming
        self._metrics = metrics
        self._unlink_files = Together(self._unlink_all, _LANES)
        self._running: dict[ClaimHash, int] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give endings that still wait for Redis a moment; the janitor does the rest."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=_RENEW_SECONDS)
        for task in self._endings:
            task.cancel()

    @contextlib.contextmanager
    def _place_for(self, held: Held) -> Iterator[None]:
        """One of the few requests a claimant may run at a time.

        Raises:
            RateLimited: All places are taken; the blob is closed.
        """
        claim_hash = held.claim_hash
        running = self._running.get(claim_hash, 0)
        if running >= _PARALLEL_PER_CLAIM:
            held.blob.close()
            raise RateLimited(
                f"At most {_PARALLEL_PER_CLAIM} ranges at a time.", retry_after_seconds=1
            )
        self._running[claim_hash] = running + 1
        try:
            yield
        finally:
            if running := self._running[claim_hash] - 1:
                self._running[claim_hash] = running
            else:
                del self._running[claim_hash]

    async def send(self, held: Held, head: Head, scope: Scope, send: Send) -> None:
        """Send this part of the file and see to the claim's end; closes the blob.

        Raises:
            ClientDisconnect: The connection ended first.
            BlobDamaged: The file became shorter under our hands; the answer was cut.
            RateLimited: The claimant runs too many requests already.
        """
        connection: Connection | None = scope.get("extensions", {}).get(CONNECTION)
        progress = _Progress(head.part, connection)
        with self._place_for(held), contextlib.ExitStack() as stack:
            try:
                if connection is not None:
                    stack.enter_context(connection.held())
                async with self._watched(held, progress, connection):
                    whole = await self._transfer(held, head, progress, scope, send)
            finally:
                await self._end_for_sure(held, progress)
            if not whole:
                raise ClientDisconnect
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    # Serve.

    async def _transfer(
        self, held: Held, head: Head, progress: _Progress, scope: Scope, send: Send
    ) -> bool:
        """Send head and body, then wait until all of it was acknowledged.

        Returns:
            Whether all of it was.
        """
        extensions = scope.get("extensions", {})
        connection = extensions.get(CONNECTION)
        if connection is not None and connection.lost:
            return False
        if not held.single:
            await self._announce(held, progress)
        raw = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in head.headers.items()
        ]
        CrashPoint.SERVE_BEFORE_HEAD.reached()
        await send({"type": "http.response.start", "status": head.status, "headers": raw})
        await progress.begin()
        CrashPoint.SERVE_AFTER_HEAD.reached()
        began = time.monotonic()
        try:
            if ZERO_COPY in extensions:
                await self._send_in_kernel(held, progress, send)
            else:
                await self._send_plainly(held, progress, send, connection)
        except EOFError as exc:
            raise BlobDamaged("The file became shorter.", drop_id=held.drop_id) from exc
        if progress.handed_over < progress.part.length:
            return False
        CrashPoint.SERVE_AFTER_LAST_BYTE.reached()
        whole = await self._acknowledged(progress, connection)
        CrashPoint.SERVE_AFTER_LAST_ACK.reached()
        self._metrics.transferred("out", time.monotonic() - began)
        return whole

    async def _announce(self, held: Held, progress: _Progress) -> None:
        """Say that this claim is about to send: where the file stays, nothing else tells.

        Raises:
            DropGone: The claim was closed meanwhile.
            BlobMissing: Redis keeps forgetting the drop.
        """
        result, drop = await self._renew(held, progress, progressed=False)
        if result is RenewClaim.RENEWED:
            return
        if drop is None:
            raise BlobMissing("The drop keeps changing.", drop_id=held.drop_id)
        raise claim_over(drop)

    async def _send_in_kernel(self, held: Held, progress: _Progress, send: Send) -> None:
        body_at = held.blob.header.body_offset
        part = progress.part

        while progress.handed_over < part.length:
            count = min(part.length - progress.handed_over, _MESSAGE_BYTES)
            before = progress.handed_over
            message: dict[str, Any] = {
                "type": ZERO_COPY,
                "file": held.blob.fd,
                "offset": body_at + part.start + progress.handed_over,
                "count": count,
                "more_body": True,
                "permit": held.alive,
                "handed_over": progress.hand_over,
            }
            await send(message)
            if progress.handed_over - before < count:
                return

    async def _send_plainly(
        self, held: Held, progress: _Progress, send: Send, connection: Connection | None
    ) -> None:
        body_at = held.blob.header.body_offset
        part = progress.part
        while progress.handed_over < part.length and held.alive():
            offset = part.start + progress.handed_over
            count = min(part.end - offset, _PLAIN_BYTES)
            chunk = await finished(os.pread, held.blob.fd, count, body_at + offset)
            if not chunk:
                raise EOFError
            if not held.alive() or (connection is not None and connection.lost):
                return
            progress.hand_over(len(chunk))
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _acknowledged(self, progress: _Progress, connection: Connection | None) -> bool:
        """Wait until the other side's kernel has the whole body, or never will."""
        if connection is None:
            # Nothing can be known: the lease ends the claim, and the file goes with it.
            return True
        pause = _POLL_FIRST_SECONDS
        lost_at: float | None = None
        while not progress.complete:
            if connection.lost:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _LOST_GRACE_SECONDS:
                    return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _POLL_MOST_SECONDS)
        return True

    @contextlib.asynccontextmanager
    async def _watched(
        self, held: Held, progress: _Progress, connection: Connection | None
    ) -> AsyncIterator[None]:
        """Renew the lease while the block runs; when the claim is over, cut the block.

        Raises:
            ClientDisconnect: It was cut.
        """
        ended = asyncio.Event()
        watching: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(None) as limit:

                def cut() -> None:
                    if connection is not None:
                        connection.reset()
                    limit.reschedule(0)

                def watch() -> None:
                    work = self._watch(held, progress, ended, cut)
                    watching.append(asyncio.create_task(work))

                # Most are over before there is anything to watch.
                timer = asyncio.get_running_loop().call_later(_RENEW_SECONDS, watch)
                try:
                    yield
                finally:
                    timer.cancel()
                    ended.set()
        except TimeoutError:
            if not limit.expired():
                raise
            raise ClientDisconnect from None
        finally:
            # Not in the middle of a renewal: what it says must not come after what the end says.
            for task in watching:
                await task

    async def _watch(
        self, held: Held, progress: _Progress, ended: asyncio.Event, cut: Callable[[], None]
    ) -> None:
        last = 0
        while not ended.is_set():
            acknowledged = progress.acknowledged
            over = not held.alive()
            try:
                result, _ = await self._renew(held, progress, progressed=acknowledged > last)
                CrashPoint.SERVE_AFTER_RENEW.reached()
                over = over or result is not RenewClaim.RENEWED
                last = acknowledged
            except StoreUnavailable:
                # The lease that was granted still holds, so go on until it ends.
                pass
            except OncedropError:
                cut()
                raise
            if over and not ended.is_set():
                _log.info("transfer_cut", drop_id=held.drop_id, acknowledged_bytes=acknowledged)
                cut()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_SECONDS):
                    await ended.wait()

    async def _renew(
        self, held: Held, progress: _Progress, *, progressed: bool
    ) -> tuple[RenewClaim, Drop | None]:
        """Note what arrived; the answer, and the record as it is afterwards."""
        for _ in range(2):
            asked_at = boottime()
            result, drop = await self._store.renew_claim(
                held.drop_id, held.claim_hash, progress.intervals, progressed=progressed
            )
            self._metrics.arrow("renew_claim", result)
            if result is RenewClaim.RENEWED and drop is not None:
                held.extend(drop, asked_at)
            if result is not RenewClaim.UNKNOWN:
                return result, drop
            await self._remember(held)
        return RenewClaim.UNKNOWN, None

    async def _remember(self, held: Held) -> None:
        """Redis forgot the drop; this request holds its file, which proves the claim.

        With several downloads only Redis counts, and it counts anew; unless the last one has ended
        before it forgot, and the file is gone.
        """
        if not held.single and not await asyncio.to_thread(self._volume.find, held.drop_id):
            return
        result, _ = await self._store.rebuild(
            held.drop_id, held.meta, held.claim_hash if held.single else None
        )
        CrashPoint.SERVE_AFTER_REMEMBER.reached()
        self._metrics.arrow("rebuild", result)
        if not held.single:
            await self._store.claim(
                held.drop_id,
                held.claim_hash,
                held.request_id,
                password_verified=True,
                confirmed=True,
            )

    # Delete.

    def _ending(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that outlives its request, and that close waits for."""
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def _end_for_sure(self, held: Held, progress: _Progress) -> None:
        """As _end; where this request is cancelled, begun anew by a task that outlives it."""
        try:
            await self._end(held, progress)
        except asyncio.CancelledError:
            self._ending(self._end(held, progress))
            raise

    async def _end(self, held: Held, progress: _Progress) -> None:
        """See to the claim after a response ended, for whatever reason; closes the blob."""
        try:
            await self._end_claim(held, progress)
        finally:
            await self._close(held)

    async def _close(self, held: Held) -> None:
        """Close the blob; where its name is gone, this is what frees its bytes, and takes time."""
        if held.meta.size > _SMALL_BYTES:
            await asyncio.to_thread(held.blob.close)
        else:
            held.blob.close()

    async def _end_claim(self, held: Held, progress: _Progress) -> None:
        if progress.handed_over == 0 and not progress.complete:
            await self._claiming.undo(held)
            return
        while True:
            try:
                await self._settle(held, progress)
            except StoreUnavailable:
                # What arrived is known only here: keep trying as long as the lease may last.
                if not held.alive():
                    _log.warning("ending_left_to_sweep", drop_id=held.drop_id)
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            except OncedropError as exc:
                _log.warning("ending_left_to_sweep", drop_id=held.drop_id, problem=exc.slug)
                return
            else:
                return

    async def _settle(self, held: Held, progress: _Progress) -> None:
        # Also when this response was cut: others of the claimant may have brought the rest.
        CrashPoint.DELIVER_BEFORE_DELIVER.reached()
        result, drop = await self._deliver(held, progress)
        CrashPoint.DELIVER_AFTER_DELIVER.reached()
        match result:
            case Deliver.DELIVERED:
                await self._unlink(held, "drop_delivered")
            case Deliver.LINGERING if drop is not None:
                self._finish_lingering(held, progress, drop)
            case Deliver.PARTIAL if held.meta.resume:
                if drop is not None and 0 < progress.acknowledged < progress.part.length:
                    self._store.record_event("paused", held.drop_id, bytes=drop.acknowledged_bytes)
                await self._renew(held, progress, progressed=progress.acknowledged > 0)
            case Deliver.PARTIAL:
                lapsed, drop = await self._store.lapse(
                    held.drop_id, held.claim_hash, revision=None, place="claimed", at_once=True
                )
                self._metrics.arrow("lapse", lapsed)
                CrashPoint.DELIVER_AFTER_LAPSE.reached()
                await self._finish_lapse(held, lapsed, drop)
            case _:
                return

    async def _deliver(self, held: Held, progress: _Progress) -> tuple[Deliver, Drop | None]:
        for _ in range(2):
            result, drop = await self._store.deliver(
                held.drop_id, held.claim_hash, progress.intervals
            )
            self._metrics.arrow("deliver", result)
            if result is not Deliver.UNKNOWN:
                return result, drop
            await self._remember(held)
        return result, drop

    async def _finish_lapse(self, held: Held, lapsed: Lapse, drop: Drop | None) -> None:
        if lapsed in (Lapse.INTERRUPTED, Lapse.DELIVERED):
            await self._unlink(held, f"drop_{lapsed.lower()}")
        elif lapsed is Lapse.RESTORE and drop is not None:
            await self._claiming.restore(drop, held.claim_hash)

    def _finish_lingering(self, held: Held, progress: _Progress, drop: Drop) -> None:
        """Come back when the linger time is over; the due pass would, if this process ended."""
        CrashPoint.DELIVER_IN_LINGER.reached()
        claim = drop.claim(held.claim_hash)
        wait_ms = claim.deadline_ms - drop.now_ms if claim else 0
        self._ending(self._after_linger(held, progress, wait_ms / 1000))

    async def _after_linger(self, held: Held, progress: _Progress, seconds: float) -> None:
        await asyncio.sleep(seconds)
        CrashPoint.DELIVER_AFTER_LINGER.reached()
        with contextlib.suppress(OncedropError):
            await self._settle(held, progress)

    async def _unlink(self, held: Held, event: str) -> None:
        CrashPoint.DELIVER_BEFORE_UNLINK.reached()
        freed = await self._unlink_files(held)
        CrashPoint.DELIVER_AFTER_UNLINK.reached()
        self._store.freed(freed)
        _log.info(event, drop_id=held.drop_id, freed_bytes=freed)

    def _unlink_all(self, ended: Sequence[Held]) -> list[int | BaseException]:
        return [self._unlink_one(held) for held in ended]

    def _unlink_one(self, held: Held) -> int | BaseException:
        """Bytes freed: here and not in the loop, for it takes 100 ms for each GiB in memory."""
        try:
            # First, or the file system would have to keep what has no name any more.
            held.blob.close()
            if held.single:
                freed = self._volume.unlink_claimed(held.drop_id, held.claim_hash)
            else:
                freed = self._volume.unlink(held.drop_id)
        except Exception as exc:  # noqa: BLE001  it belongs to one of those who share the trip
            return exc
        return freed
