"""What operators can do, with the admin token: sweep now, list drops, delete one."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from oncedrop_common.accept import Accept
from oncedrop_common.deletion import deletion_document, unlink_ended
from oncedrop_common.drops import Drop, DropId, GoneReason
from oncedrop_common.errors import (
    AdminUnauthorized,
    BlobDamaged,
    LinkUnknown,
    RequestInvalid,
    SweepGuarded,
    VolumeUnavailable,
)
from oncedrop_common.forms import read_form
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.store import scripts
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.times import iso_utc
from oncedrop_common.tokens import is_drop_id
from oncedrop_common.volume import Volume
from oncedrop_janitor.look import Looker
from oncedrop_janitor.passes import Passes
from oncedrop_janitor.plan import Look
from oncedrop_janitor.sessions import Sessions

_PAGE = 100
_MOST = 1000
_FLAGS = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Operators:
    """The endpoints behind the admin token."""

    def __init__(
        self,
        sessions: Sessions,
        store: DropStore,
        volume: Volume,
        pairing: Pairing,
        passes: Passes,
        metrics: Metrics,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._volume = volume
        self._pairing = pairing
        self._passes = passes
        self._metrics = metrics
        self._looker = Looker(store, volume)

    async def sweep(self, request: Request) -> Response:
        """`POST /sweep`: sweep now, and answer with the counts.

        Raises:
            AdminUnauthorized, RequestInvalid: Nothing was done.
            SweepGuarded, StoreUnavailable: The sweep ended early; says why.
        """
        self._sessions.require(request)
        report = await self._passes.sweep(
            dry_run=_flag(request, "dry_run"), force=_flag(request, "force")
        )
        if isinstance(report.failure, VolumeUnavailable):
            raise SweepGuarded(report.failure.detail)
        if report.failure is not None:
            raise report.failure
        if Accept.of(request).prefers_page:
            return RedirectResponse("status", 303)
        return JSONResponse(report.document())

    async def login(self, request: Request) -> Response:
        """`POST /login`, from the status page: a session for who knows the admin token.

        Raises:
            AdminUnauthorized: Another token, or none is configured.
            RequestInvalid: Not the page's form.
        """
        form = await read_form(request)
        if not self._sessions.is_token(form.get("token", "")):
            raise AdminUnauthorized("That is not the admin token.")
        return RedirectResponse("status", 303, {"Set-Cookie": self._sessions.cookie(request)})

    async def logout(self, request: Request) -> Response:
        """`POST /logout`: the browser forgets its session."""
        return RedirectResponse("status", 303, {"Set-Cookie": self._sessions.no_cookie(request)})

    async def drops(self, request: Request) -> Response:
        """`GET /drops`: a page of all records, in the order of their ids; no names.

        Each page reads the names of all keys: ids in order are the only place to go on from that
        outlasts a restart and suits a cluster.

        Raises:
            AdminUnauthorized, RequestInvalid: See their details.
        """
        self._sessions.require(request)
        cursor = request.query_params.get("cursor", "")
        if cursor and not is_drop_id(cursor):
            raise RequestInvalid("The cursor is not one of ours.", field="cursor")
        limit = _limit(request)
        page: list[DropId] = []
        async for ids in self._store.scan():
            later = {drop_id for drop_id in ids if drop_id > cursor}
            page = heapq.nsmallest(limit + 1, later.union(page))
        shown = page[:limit]
        records = await asyncio.gather(*(self._described(drop_id) for drop_id in shown))
        return JSONResponse(
            {
                "drops": [record for record in records if record is not None],
                "next": shown[-1] if len(page) > limit else None,
            }
        )

    async def delete(self, request: Request) -> Response:
        """`DELETE /drops/<id>`: as the owner's: end the drop, then unlink its files.

        Raises:
            AdminUnauthorized: Nothing was done.
            LinkUnknown: No record and no file.
            VolumeUnavailable, StoreUnavailable: It may be gone already; its files may be there.
        """
        self._sessions.require(request)
        text = request.path_params["drop_id"]
        if not is_drop_id(text):
            raise LinkUnknown("There is no such drop.")
        drop_id = DropId(text)
        request.state.drop_id = drop_id
        self._pairing.require()
        result, drop = await self._store.delete(drop_id)
        self._metrics.arrow("delete", result)
        if result is scripts.Delete.UNKNOWN:
            drop = await self._delete_forgotten(drop_id)
        freed = await unlink_ended(self._store, self._volume, drop_id)
        reason = drop.reason if drop is not None and drop.reason else GoneReason.DELETED
        return JSONResponse(deletion_document(reason, freed))

    async def _delete_forgotten(self, drop_id: DropId) -> Drop | None:
        """Make the record again of a drop that only the volume knows, so that it stays deleted."""
        look = (await self._looker.look([drop_id], 0))[drop_id]
        if not isinstance(look, Look):
            raise look
        if not look.files:
            raise LinkUnknown("There is no such drop.", drop_id=drop_id)
        meta = next((f.meta for f in look.bodies if f.meta is not None), None)
        if meta is None:
            return None
        await self._store.rebuild(drop_id, meta, min(look.taken, default=None))
        return (await self._store.delete(drop_id))[1]

    async def _described(self, drop_id: DropId) -> dict[str, Any] | None:
        try:
            drop = await self._store.read(drop_id)
        except BlobDamaged:
            return {"id": drop_id, "state": "damaged"}
        if drop is None:
            return None
        return {
            "id": drop_id,
            "state": drop.state.value,
            "reason": drop.reason.value if drop.reason else None,
            "size": drop.size,
            "downloads_left": drop.downloads_left,
            "claims": len(drop.claims),
            "acknowledged_bytes": drop.acknowledged_bytes,
            "created_at": _time(drop.created_ms),
            "expires_at": _time(drop.expires_ms),
            "claimed_at": _time(drop.claimed_ms),
            "gone_at": _time(drop.gone_ms),
        }


def _flag(request: Request, name: str) -> bool:
    if name not in request.query_params:
        return False
    value = _FLAGS.get(request.query_params[name].lower())
    if value is None:
        raise RequestInvalid(f"{name} is 1 or 0.", field=name)
    return value


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(_PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST))):
        raise RequestInvalid(f"limit is a number from 1 to {_MOST}.", field="limit")
    limit = int(text)
    if not 1 <= limit <= _MOST:
        raise RequestInvalid(f"limit is a number from 1 to {_MOST}.", field="limit")
    return limit


def _time(ms: int) -> str | None:
    return iso_utc(ms) if ms else None
