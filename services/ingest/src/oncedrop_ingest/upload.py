"""One upload, from the record to the link.

    open_upload -> part -> blocks, hashed and renewed -> header, fsync, rename, fsync -> commit

The record is there before any file is, so that a sweep never meets a file it can't explain. What
fails at any step, a cancelled request included, leaves neither file nor record.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import structlog
from starlette.requests import ClientDisconnect, Request

from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader
from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import DropMeta
from oncedrop_common.errors import OncedropError, StoreUnavailable, UploadTooLarge
from oncedrop_common.http.zero_copy import CONNECTION, Connection, finished
from oncedrop_common.metrics import Metrics
from oncedrop_common.passwords import Passwords
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import Abandon, Commit, OpenUpload, RenewUpload
from oncedrop_common.tokens import drop_id, mint, owner_hash
from oncedrop_common.volume import Part, Volume
from oncedrop_ingest.conveyor import Conveyor
from oncedrop_ingest.early_sync import EarlySync
from oncedrop_ingest.options import Options
from oncedrop_ingest.reservation import Reservation

BLOCK_BYTES = 2 * 1024 * 1024
# A client that sends byte by byte would fill the memory with what each piece costs.
_BLOCK_PIECES = 1024
# Blocks that may wait or be worked on. While the loop waits for a write, the socket collects larger
# pieces; hashing takes longer, and must not stand still meanwhile.
_WRITES_AHEAD = 1
_HASHES_AHEAD = 2
_BUDGET_BYTES = 32 * 1024 * 1024
_RECEIVE_LEAST_BYTES = 64 * 1024
_RENEW_SECONDS = (1.0, 5.0)
_CLEAN_UP_SECONDS = 4.0

log = structlog.get_logger()


class Checksum(Protocol):
    """Something that sees bytes go by, in order: a digest or a CRC."""

    def update(self, data: bytes, /) -> None:
        """See these bytes."""


Block: TypeAlias = list[tuple[bytes, Checksum | None]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every upload needs."""

    settings: Settings
    store: DropStore
    volume: Volume
    metrics: Metrics
    passwords: Passwords


class BlockSize:
    """How much of each upload is collected before it is written.

    Large blocks cost fewer trips to a thread, small ones less memory: all uploads share a budget.
    """

    def __init__(self) -> None:
        self._uploads = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """There is one upload more while the block runs."""
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    @property
    def most(self) -> int:
        """Bytes; one block of each upload fills while the others are worked on."""
        share = _BUDGET_BYTES // ((_HASHES_AHEAD + 1) * max(1, self._uploads))
        return min(BLOCK_BYTES, share)


class Upload:
    """A drop on its way in.

    Attributes:
        token: The secret of the link; nobody has it before the drop is committed.
        owner_key: The uploader's second secret.
        drop_id: What the token leads to.
    """

    def __init__(
        self,
        tools: Tools,
        request: Request,
        ttl_seconds: int,
        body_offset: int,
        block_size: BlockSize,
        early_sync: EarlySync,
    ) -> None:
        self.token = mint()
        self.owner_key = mint()
        self.drop_id = drop_id(self.token)
        self._tools = tools
        self._request = request
        self._store = tools.store
        self._volume = tools.volume
        self._limit = int(tools.settings.max_file_bytes)
        self._ttl_seconds = ttl_seconds
        self._owner_hash = owner_hash(self.owner_key)
        self._reservation = Reservation(tools.settings, tools.store, tools.volume)
        self._part: Part | None = None
        self._body_offset = body_offset
        self._position = body_offset
        self._digest = hashlib.sha256()
        self._block: Block = []
        self._block_bytes = 0
        self._block_size = block_size
        self._early_sync = early_sync
        extensions = request.scope.get("extensions", {})
        self._connection: Connection | None = extensions.get(CONNECTION)
        self._writing = Conveyor(self._write, _WRITES_AHEAD)
        self._hashing = Conveyor(self._hash, _HASHES_AHEAD)
        shortest, longest = _RENEW_SECONDS
        lease = tools.settings.upload_lease_seconds
        self._renew_every = min(longest, max(shortest, lease / 10))
        self._began = self._renewed = time.monotonic()

    @property
    def size(self) -> int:
        """The body's bytes so far."""
        return self._position + self._block_bytes - self._body_offset

    async def open(self, announced: int | None) -> None:
        """Make room, then the record, then the part; see Uploads.opened."""
        # What comes in chunks of unknown number makes room for each block as it comes.
        await self._reservation.grow(self._body_offset + (announced or 0))
        CrashPoint.UPLOAD_BEFORE_OPEN.reached()
        result = await self._store.open_upload(self.drop_id, self._owner_hash, self._ttl_seconds)
        self._tools.metrics.arrow("open_upload", result)
        if result is not OpenUpload.OPENED:
            raise StoreUnavailable("The upload could not be opened.", drop_id=self.drop_id)
        CrashPoint.UPLOAD_AFTER_OPEN.reached()
        # When cancelled, give_up must find the descriptor: it is set in the thread.
        await finished(self._create_part)
        CrashPoint.UPLOAD_AFTER_PART.reached()
        log.info("upload_opened", drop_id=self.drop_id, bytes=announced)

    def _create_part(self) -> None:
        self._part = self._volume.create_part(self.drop_id)

    @property
    def _open_part(self) -> Part:
        if self._part is None:
            raise RuntimeError("the upload is not open")
        return self._part

    async def write(self, data: bytes, checksum: Checksum | None = None) -> None:
        """Append to the body.

        Args:
            data: The next bytes.
            checksum: Sees them too; what it has seen is complete after `flush`.

        Raises:
            UploadTooLarge: More than one upload may have.
            VolumeFull: The disk or the quota is used up.
            StoreUnavailable: Redis does not answer, or the upload was given up meanwhile.
            VolumeUnavailable: The volume fails.
        """
        if self.size + len(data) > self._limit:
            raise UploadTooLarge(self._limit)
        self._block.append((data, checksum))
        self._block_bytes += len(data)
        if self._block_bytes >= self._block_size.most or len(self._block) >= _BLOCK_PIECES:
            await self._write_block()
        self._ask_for_the_rest()
        await self._renew_when_due()

    def _ask_for_the_rest(self) -> None:
        """Let the next piece fill the block, and not be larger."""
        if self._connection is not None:
            rest = self._block_size.most - self._block_bytes
            self._connection.receive_bytes = max(rest, _RECEIVE_LEAST_BYTES)

    async def flush(self) -> None:
        """Wait until all that was appended is in the file; raises as write."""
        await self._write_block()
        await self._writing.join()
        await self._hashing.join()

    async def _write_block(self) -> None:
        if not self._block:
            return
        await self._reservation.grow(self._position + self._block_bytes)
        block, self._block = self._block, []
        offset = self._position
        self._position += self._block_bytes
        self._block_bytes = 0
        await self._writing.put((offset, block))
        await self._hashing.put(block)
        self._early_sync.written(self._open_part, self._position)

    def _write(self, placed: tuple[int, Block]) -> None:
        offset, block = placed
        for data, _ in block:
            self._open_part.write_at(offset, data)
            offset += len(data)
        CrashPoint.UPLOAD_IN_BODY.reached()

    def _hash(self, block: Block) -> None:
        for data, checksum in block:
            self._digest.update(data)
            if checksum is not None:
                checksum.update(data)

    async def put_before(self, prefix: bytes, checksum: Checksum) -> None:
        """Put these bytes directly before the body, in the room that body_offset left.

        The body is read once more, for its digest begins anew with the prefix.

        Args:
            prefix: At most body_offset minus HEADER_BYTES.
            checksum: Sees the body as it was before.

        Raises:
            StoreUnavailable, VolumeFull, VolumeUnavailable: As write.
        """
        await self.flush()
        start = self._body_offset
        self._body_offset -= len(prefix)
        await finished(self._open_part.write_at, self._body_offset, prefix)
        CrashPoint.UPLOAD_AFTER_ZIP_PREFIX.reached()
        self._digest = hashlib.sha256(prefix)
        for offset in range(start, self._position, BLOCK_BYTES):
            count = min(BLOCK_BYTES, self._position - offset)
            await finished(self._read_and_hash, offset, count, checksum)
            await self._renew_when_due()

    def _read_and_hash(self, offset: int, count: int, checksum: Checksum) -> None:
        data = self._open_part.read_at(offset, count)
        self._digest.update(data)
        checksum.update(data)

    async def _renew_when_due(self) -> None:
        if time.monotonic() - self._renewed >= self._renew_every:
            await self._renew()

    async def _renew(self) -> int:
        """A fresh lease; Redis' clock in ms."""
        result, now_ms = await self._store.renew_upload(
            self.drop_id, self._owner_hash, self._ttl_seconds
        )
        self._tools.metrics.arrow("renew_upload", result)
        if result is not RenewUpload.RENEWED:
            raise StoreUnavailable("The upload was given up meanwhile.", drop_id=self.drop_id)
        self._renewed = time.monotonic()
        return now_ms

    async def commit(self, name: str, content_type: str, options: Options) -> DropMeta:
        """Make the part a blob and the drop ready: from here on its link works.

        Args:
            name: As clean_name made it.
            content_type: As clean_content_type made it.
            options: What the uploader asked for.

        Raises:
            StoreUnavailable, VolumeFull, VolumeUnavailable: There is no drop.
            ClientDisconnect: Nobody is left to take the link.
        """
        await self.flush()
        await self._early_sync.ended()
        password_hash = await self._password_hash(options.password)
        if self.size == 0:
            # The file ends with its header page, wherever the body was to begin.
            self._body_offset = self._position = HEADER_BYTES
        now_ms = await self._renew()
        meta = DropMeta(
            name=name,
            content_type=content_type,
            size=self.size,
            sha256=self._digest.hexdigest(),
            created_ms=now_ms,
            expires_ms=now_ms + options.ttl_seconds * 1000,
            owner_hash=self._owner_hash,
            max_downloads=options.max_downloads,
            if_interrupted=options.if_interrupted,
            resume=options.resume,
            confirm=options.confirm,
            password_hash=password_hash,
        )
        header = BlobHeader(self.drop_id, meta, self._body_offset)
        await finished(self._volume.commit_part, self._open_part, header)
        await self._reservation.settle(self._position)
        # Who went away while the disk was busy will never know the link.
        if await self._request.is_disconnected():
            raise ClientDisconnect
        CrashPoint.UPLOAD_BEFORE_COMMIT.reached()
        result = await self._store.commit(self.drop_id, meta)
        CrashPoint.UPLOAD_AFTER_COMMIT.reached()
        self._tools.metrics.arrow("commit", result)
        if result is not Commit.COMMITTED:
            raise StoreUnavailable("The upload was given up meanwhile.", drop_id=self.drop_id)
        seconds = time.monotonic() - self._began
        self._tools.metrics.transferred("in", seconds)
        log.info(
            "upload_committed", drop_id=self.drop_id, bytes=self.size, seconds=round(seconds, 3)
        )
        return meta

    async def _password_hash(self, password: str) -> str:
        return await self._tools.passwords.hash(password) if password else ""

    async def give_up(self) -> None:
        """Remove whatever there is of it: file, record, reservation; each as far as possible."""
        # It must not write into a descriptor that was closed and given to somebody else.
        await self._writing.stop()
        await self._hashing.stop()
        with contextlib.suppress(OncedropError):
            await self._early_sync.ended()
        if self._part is not None:
            self._part.close()
        CrashPoint.UNDO_BEFORE_UNLINK.reached()
        with contextlib.suppress(OncedropError):
            await asyncio.to_thread(self._volume.unlink, self.drop_id)
        CrashPoint.UNDO_AFTER_UNLINK.reached()
        # What Redis does not hear now, the janitor finds: a lapsed lease, a record without a file.
        with contextlib.suppress(OncedropError, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                result = await self._store.abandon(self.drop_id, given_up=True)
                CrashPoint.UNDO_AFTER_ABANDON.reached()
                self._tools.metrics.arrow("abandon", result)
                if result is Abandon.COMMITTED:
                    # The commit arrived and its answer did not: nobody was given the link.
                    await self._store.delete(self.drop_id)
                await self._reservation.give_back()
