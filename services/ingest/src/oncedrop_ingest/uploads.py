"""The life of an upload as seen by an endpoint: opened, and committed or undone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog
from starlette.requests import Request

from oncedrop_common.blob_header import HEADER_BYTES
from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.errors import OncedropError
from oncedrop_ingest.early_sync import EarlySync, SyncPlaces
from oncedrop_ingest.upload import BlockSize, Tools, Upload

log = structlog.get_logger()


class Uploads:
    """Opens uploads, and cleans up behind those that fail."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._block_size = BlockSize()
        self._sync_places = SyncPlaces()

    @contextlib.asynccontextmanager
    async def opened(
        self,
        request: Request,
        *,
        announced: int | None,
        ttl_seconds: int,
        body_offset: int = HEADER_BYTES,
    ) -> AsyncIterator[Upload]:
        """An upload that the block must commit; left in any other way, it leaves nothing behind.

        Args:
            request: Whose client must still be there when the drop is committed.
            announced: Bytes the body will have, at most; None: not known.
            ttl_seconds: The drop's life, as far as it is known yet.
            body_offset: Where in the file the body begins (bytes).

        Raises:
            VolumeFull: No room for that many bytes.
            StoreUnavailable, VolumeUnavailable: One of them does not answer.
        """
        early_sync = EarlySync(self._sync_places)
        upload = Upload(
            self._tools, request, ttl_seconds, body_offset, self._block_size, early_sync
        )
        request.state.drop_id = upload.drop_id
        try:
            with self._block_size.shared():
                await upload.open(announced)
                yield upload
            CrashPoint.UPLOAD_BEFORE_ANSWER.reached()
        except BaseException as exc:
            await _to_the_end(upload.give_up())
            why = exc.slug if isinstance(exc, OncedropError) else type(exc).__name__
            log.info("upload_failed", drop_id=upload.drop_id, bytes=upload.size, problem=why)
            raise


async def _to_the_end(clean_up: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, whoever cancels the request meanwhile."""
    task = asyncio.create_task(clean_up, name="clean up")
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
