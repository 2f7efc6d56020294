"""`/o/<drop id>.<owner key>`: what became of a drop, and its early end, for its uploader."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from oncedrop_common.accept import Accept
from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.deletion import deletion_document, unlink_ended
from oncedrop_common.drops import Drop, DropId, DropState, GoneReason
from oncedrop_common.errors import BlobDamaged, BlobMissing, LinkUnknown, StoreUnavailable
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.events import Event
from oncedrop_common.times import iso_utc
from oncedrop_common.tokens import is_drop_id, is_secret, owner_key_matches
from oncedrop_common.volume import FoundFile, OpenBlob, Volume
from oncedrop_ingest.live import Listener, Newsroom
from oncedrop_ingest.pages import IngestPages, Told
from oncedrop_ingest.timeline import timeline

_NOBODY = "0" * 64
# Events are written without waiting, so the last may come after the record has changed.
_STRAGGLERS_MS = 5000
_EVENT_STREAM = "text/event-stream"
_TICK_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 5.0
_HEARTBEAT_SECONDS = 15.0
# After an hour a page asks anew, perhaps another process.
_TICKS_MOST = 3600


class Receipts:
    """The endpoints behind an owner's link."""

    def __init__(
        self,
        store: DropStore,
        volume: Volume,
        pairing: Pairing,
        pages: IngestPages,
        metrics: Metrics,
        newsroom: Newsroom,
    ) -> None:
        self._store = store
        self._volume = volume
        self._pairing = pairing
        self._pages = pages
        self._metrics = metrics
        self._newsroom = newsroom

    async def show(self, request: Request) -> Response:
        """The receipt; works after the drop is gone, until its tombstone is forgotten.

        Raises:
            LinkUnknown: No such drop, or not its key: the same words for both.
        """
        self._pairing.require()
        drop, _ = await self._owned(request)
        if Accept.of(request).prefers_page:
            return self._pages.receipt(request, await self._told(drop))
        return JSONResponse(receipt_of(drop))

    async def follow(self, request: Request) -> Response:
        """The receipt as server-sent events (WHATWG HTML, section 9.2), until the drop is gone.

        Each `receipt` event holds the document; with `?page=1` a `page` event follows it, with
        what the receipt's page shows. The last is `end`.

        Raises:
            LinkUnknown: As show.
            RateLimited: Too many are followed already.
        """
        self._pairing.require()
        drop, _ = await self._owned(request)
        if request.method == "HEAD":
            return Response(media_type=_EVENT_STREAM)
        async with contextlib.AsyncExitStack() as stack:
            listener = await stack.enter_async_context(self._newsroom.listening(drop.drop_id))
            # From here on it is the response's: it may never be begun, but it is always closed.
            return _EventStream(self._receipts(request, drop, listener), stack.pop_all())

    async def _receipts(
        self, request: Request, drop: Drop, listener: Listener
    ) -> AsyncIterator[bytes]:
        with_page = request.query_params.get("page") == "1"
        # Set by the server: an answer without an end of its own must not hold its stop up.
        stopping: Callable[[], bool] = getattr(request.state, "stopping", bool)
        # Again, for the listener only knows what came after it.
        drop = await self._store.read(drop.drop_id) or drop
        before = await self._past(drop)
        shown: object = None
        quiet = 0.0
        yield b"retry: 2000\n\n"
        for _ in range(_TICKS_MOST):
            since = {event.entry_id: event for event in (*before, *listener.events)}
            document = receipt_of(drop)
            told = Told(drop, document, timeline(drop, since.values()))
            if (document, told.timeline) != shown:
                shown, quiet = (document, told.timeline), 0.0
                yield _event("receipt", document)
                if with_page:
                    yield _event("page", {"html": self._pages.receipt_content(request, told)})
            if document["state"] == "gone":
                yield _event("end", {})
                return
            happened = await listener.news(_TICK_SECONDS)
            if stopping():
                return
            quiet += _TICK_SECONDS
            # Progress is no event; and an event may be missing: it is written without waiting.
            if happened or document["state"] == "claimed" or quiet % _LOOK_AGAIN_SECONDS == 0:
                with contextlib.suppress(StoreUnavailable):
                    drop = await self._store.read(drop.drop_id) or drop
            if quiet >= _HEARTBEAT_SECONDS:
                quiet = 0.0
                yield b": still here\n\n"

    async def _told(self, drop: Drop) -> Told:
        return Told(drop, receipt_of(drop), timeline(drop, await self._past(drop)))

    async def _past(self, drop: Drop) -> list[Event]:
        """Events of this drop, if it was ever claimed: before that its record tells all."""
        if not drop.claimed_ms:
            return []
        began = drop.created_ms or drop.claimed_ms
        ended = (drop.gone_ms or drop.now_ms) + _STRAGGLERS_MS
        return await self._store.events_of(drop.drop_id, began, ended)

    async def delete(self, request: Request) -> Response:
        """End the drop now and answer with what was done; harmless to repeat.

        Raises:
            LinkUnknown: As show.
            VolumeUnavailable: Another volume is mounted, or the file could not be removed: try
                again, the link is dead already.
        """
        # Not the last check's word: on a volume that was just unmounted nothing is found, and
        # nothing found would be told as deleted.
        await self._pairing.check()
        drop, expired = await self._owned(request)
        if not expired:
            CrashPoint.DELETE_BEFORE_DELETE.reached()
            result, after = await self._store.delete(drop.drop_id)
            self._metrics.arrow("delete", result)
            if after is None:
                raise LinkUnknown("There is no such receipt.")
            drop = after
        freed = await unlink_ended(self._store, self._volume, drop.drop_id)
        if Accept.of(request).prefers_page:
            return self._pages.receipt(request, await self._told(drop))
        return JSONResponse(deletion_document(drop.reason or GoneReason.EXPIRED, freed))

    async def _owned(self, request: Request) -> tuple[Drop, bool]:
        """The drop, if the key in the path is its owner's.

        Returns:
            Its record, and whether Redis would not take it back, for its time is over.

        Raises:
            LinkUnknown: No such drop, or another key.
        """
        text, _, owner_key = request.path_params["receipt"].partition(".")
        if not is_drop_id(text) or not is_secret(owner_key):
            raise LinkUnknown("There is no such receipt.")
        drop_id = DropId(text)
        drop = await self._store.read(drop_id)
        matches = owner_key_matches(owner_key, drop.owner_hash if drop else _NOBODY)
        expired = False
        if drop is None:
            drop, expired = await self._remembered(drop_id, owner_key)
        elif not matches:
            drop = None
        if drop is None:
            raise LinkUnknown("There is no such receipt.")
        request.state.drop_id = drop_id
        return drop, expired

    async def _remembered(self, drop_id: DropId, owner_key: str) -> tuple[Drop | None, bool]:
        """A drop that Redis forgot and the volume did not: its record is made again."""
        found = await asyncio.to_thread(self._volume.find, drop_id)
        # The last in the order in which files move is the furthest.
        for file in reversed(found):
            blob = await asyncio.to_thread(_open, self._volume, file)
            if blob is None:
                continue
            meta = blob.header.meta
            blob.close()
            if not owner_key_matches(owner_key, meta.owner_hash):
                continue
            result, drop = await self._store.rebuild(drop_id, meta, file.claim_hash)
            self._metrics.arrow("rebuild", result)
            if drop is not None:
                return drop, False
            now_ms = await self._store.now_ms()
            return (
                Drop(
                    drop_id,
                    DropState.GONE,
                    revision=0,
                    now_ms=now_ms,
                    owner_hash=meta.owner_hash,
                    reason=GoneReason.EXPIRED,
                    created_ms=meta.created_ms,
                    expires_ms=meta.expires_ms,
                    gone_ms=meta.expires_ms,
                    size=meta.size,
                ),
                True,
            )
        return None, False


class _EventStream(StreamingResponse):
    """Server-sent events, and what has to be closed when they end, however they end."""

    def __init__(self, content: AsyncIterator[bytes], stack: contextlib.AsyncExitStack) -> None:
        # As for files: a proxy must not keep back what has come.
        super().__init__(content, headers={"X-Accel-Buffering": "no"}, media_type=_EVENT_STREAM)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        async with self._stack:
            await super().__call__(scope, receive, send)


def _event(name: str, document: Mapping[str, object]) -> bytes:
    # JSON has no line break outside of strings, and none inside.
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


def _open(volume: Volume, file: FoundFile) -> OpenBlob | None:
    try:
        return volume.open_found(file)
    except (BlobDamaged, BlobMissing):
        return None


def receipt_of(drop: Drop) -> dict[str, str | int]:
    """What the owner is told: state, reason and times; sizes in bytes.

    The state is `uploading`, `waiting`, `claimed` (somebody is downloading) or `gone`, then with
    its reason. A drop whose time is over is told as expired, though the janitor may come for its
    file a few seconds later.
    """
    live = [claim for claim in drop.claims if not claim.closed]
    document: dict[str, str | int] = {"id": drop.drop_id}
    gone_ms = drop.gone_ms
    if drop.state is DropState.GONE:
        document |= {"state": "gone", "reason": drop.reason or ""}
    elif drop.expired and not live:
        document |= {"state": "gone", "reason": GoneReason.EXPIRED}
        gone_ms = drop.expires_ms
    elif live:
        document["state"] = "claimed"
    elif drop.state is DropState.UPLOADING:
        document["state"] = "uploading"
    else:
        document["state"] = "waiting"
    furthest = max((claim.acknowledged_bytes for claim in live), default=0)
    document |= {
        "size": drop.size,
        "acknowledged_bytes": max(drop.acknowledged_bytes, furthest),
    }
    if drop.meta is not None:
        document |= {
            "name": drop.meta.name,
            "max_downloads": drop.meta.max_downloads,
            "downloads_left": drop.downloads_left,
        }
    times = {
        "created_at": drop.created_ms,
        "expires_at": drop.expires_ms,
        "claimed_at": max([drop.claimed_ms, *(claim.started_ms for claim in live)]),
        "gone_at": gone_ms,
    }
    return document | {name: iso_utc(ms) for name, ms in times.items() if ms}
