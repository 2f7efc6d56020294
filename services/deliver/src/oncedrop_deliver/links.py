"""`/d/<token>` and `/c/<drop id>.<claim id>/<name>`: who looks, who takes, who comes back."""

from __future__ import annotations

import asyncio
import uuid

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import DropId, DropState
from oncedrop_common.errors import LinkUnknown, PasswordNeeded
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import claim_hash, drop_id, is_secret, mint
from oncedrop_deliver.claiming import Claiming, ConfirmNeeded, refusal
from oncedrop_deliver.delivery import Delivery, Head
from oncedrop_deliver.download_headers import (
    CLAIM_COOKIE,
    claim_cookie,
    claim_headers,
    claim_path,
    file_headers,
    parse_claim,
)
from oncedrop_deliver.guarding import PasswordGuard, basic_password
from oncedrop_deliver.held import Held, boottime
from oncedrop_deliver.landing import Landing, LandingForm
from oncedrop_deliver.looking import Look, why_looking
from oncedrop_deliver.ranges import (
    NotModified,
    Slice,
    Whole,
    claim_etag,
    claim_ids_in_conditions,
    conditional,
    select,
)


class FileResponse(Response):
    """Sends what a claimant holds; the body is Delivery's work."""

    def __init__(self, delivery: Delivery, held: Held, head: Head) -> None:
        super().__init__()
        self._delivery = delivery
        self._held = held
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and file."""
        del receive  # a GET's body is of no interest
        await self._delivery.send(self._held, self._head, scope, send)


class Links:
    """The endpoints of both kinds of link."""

    def __init__(
        self,
        *,
        store: DropStore,
        claiming: Claiming,
        delivery: Delivery,
        guard: PasswordGuard,
        pairing: Pairing,
        landing: Landing,
        metrics: Metrics,
        secure: bool,
    ) -> None:
        self._store = store
        self._claiming = claiming
        self._delivery = delivery
        self._guard = guard
        self._pairing = pairing
        self._landing = landing
        self._metrics = metrics
        self._secure = secure

    # /d/<token>

    async def link(self, request: Request) -> Response:
        """HEAD and looking GETs change nothing; other GETs take and serve; POST takes."""
        token = request.path_params["token"]
        if not is_secret(token):
            raise LinkUnknown("There is no such link.")
        wanted = drop_id(token)
        request.state.drop_id = wanted
        self._pairing.require()
        if request.method == "POST":
            return await self._take_by_form(request, token, wanted)
        if request.method == "HEAD":
            return await self._head(wanted)
        why = why_looking(request.headers)
        if why is not None:
            self._metrics.looked(why)
            return await self._look(request, wanted)
        return await self._take(request, token, wanted)

    async def _look(self, request: Request, wanted: DropId) -> Response:
        record = await self._store.read(wanted)
        given_back = _cookie_claim_ids(request)
        claimant = await self._claiming.claimant_of(record, wanted, given_back)
        if claimant is not None and record is not None and record.meta is not None:
            return self._landing.own(request, record, record.meta, claimant)
        drop, meta = await self._claiming.judge(wanted, record)
        return self._landing.page(request, drop, meta)

    async def _head(self, wanted: DropId) -> Response:
        _, meta = await self._claiming.look(wanted)
        if meta.password_hash:
            raise PasswordNeeded("The file has a password.", drop_id=wanted)
        return Response(headers=file_headers(meta, Whole()))

    async def _take(self, request: Request, token: str, wanted: DropId) -> Response:
        request_id = uuid.uuid4().hex
        password = basic_password(request)
        given_back = _claim_ids(request)
        verified = False
        if given_back or password is not None or conditional(request.headers):
            record = await self._store.read(wanted)
            claimant = await self._claiming.claimant_of(record, wanted, given_back)
            if claimant is not None:
                return await self._resume(request, wanted, claimant, token=token)
            drop, meta = await self._claiming.judge(wanted, record)
            # Answers that need no file are given before anything is claimed.
            chosen = select(request.method, request.headers, size=meta.size, etag=None)
            if meta.password_hash:
                await self._guard.verify(drop, meta.password_hash, password)
                verified = True
            if isinstance(chosen, NotModified):
                return Response(status_code=304)
        try:
            held = await self._claiming.take(
                wanted, mint(), request_id, verified=verified, confirmed=False
            )
        except ConfirmNeeded:
            self._metrics.looked(Look.CONFIRM)
            return await self._look(request, wanted)
        return await self._answer(request, held, token=token)

    async def _take_by_form(self, request: Request, token: str, wanted: DropId) -> Response:
        form = await LandingForm.read(request)
        password = form.password if form.password is not None else basic_password(request)
        verified = False
        record = await self._store.read(wanted)
        if record is None or record.state in (DropState.READY, DropState.UPLOADING):
            drop, meta = await self._claiming.judge(wanted, record)
            if meta.password_hash:
                await self._guard.verify(drop, meta.password_hash, password)
                verified = True
            if claim_hash(form.claim_id) in drop.lapsed:
                # The page is older than a try that came to nothing; its claim id is used up.
                form.claim_id = mint()
        # A POST serves nothing: the request that follows it opens the claim.
        drop = await self._claiming.begin(
            wanted, form.claim_id, request_id="", verified=verified, confirmed=True
        )
        name = drop.meta.name if drop.meta else ""
        claim = drop.claim(claim_hash(form.claim_id))
        lease_ms = claim.deadline_ms - drop.now_ms if claim else 0
        # Who comes back to the link itself is known again, and can begin again.
        cookie = self._cookie(request, token, form.claim_id, lease_ms // 1000)
        path = claim_path(wanted, form.claim_id, name)
        CrashPoint.CLAIM_BEFORE_REDIRECT.reached()
        return RedirectResponse(path, 303, {"Set-Cookie": cookie})

    def _cookie(self, request: Request, token: str, claim_id: str, lease_seconds: int) -> str:
        return claim_cookie(
            claim_id,
            token=token,
            lease_seconds=lease_seconds,
            secure=self._secure or request.scope["scheme"] == "https",
        )

    # /c/<drop id>.<claim id>/<name>

    async def claim(self, request: Request) -> Response:
        """Serve or resume for the claimant, whatever Accept says; HEAD changes nothing."""
        wanted, claim_id = parse_claim(request.path_params["claim"])
        request.state.drop_id = wanted
        self._pairing.require()
        if request.method == "HEAD":
            return await self._claim_head(wanted, claim_id)
        return await self._resume(request, wanted, claim_id, token=None)

    async def _claim_head(self, wanted: DropId, claim_id: str) -> Response:
        drop = await self._store.read(wanted)
        if drop is None:
            raise LinkUnknown("There is no such link.", drop_id=wanted)
        claim = drop.claim(claim_hash(claim_id))
        if drop.meta is None or claim is None or claim.closed:
            raise refusal(drop)
        headers = file_headers(drop.meta, Whole())
        url = claim_path(wanted, claim_id, drop.meta.name)
        return Response(headers=headers | claim_headers(claim_id, url))

    async def _resume(
        self, request: Request, wanted: DropId, claim_id: str, *, token: str | None
    ) -> Response:
        held = await self._claiming.resume(wanted, claim_id, uuid.uuid4().hex)
        return await self._answer(request, held, token=token)

    async def _answer(self, request: Request, held: Held, *, token: str | None) -> Response:
        """The response for who holds the file: all of it, or the part that was asked for.

        Raises:
            ConditionFailed, RangeUnsatisfiable: Nothing was sent, and nothing is used up.
        """
        etag = claim_etag(held.claim_id)
        url = claim_path(held.drop_id, held.claim_id, held.meta.name)
        known = claim_headers(held.claim_id, url)
        try:
            chosen = select(request.method, request.headers, size=held.meta.size, etag=etag)
            if isinstance(chosen, NotModified):
                held.blob.close()
                return Response(status_code=304, headers=known)
            headers = file_headers(held.meta, chosen) | known
            if token is not None:
                lease_seconds = int(held.deadline - boottime())
                headers["Set-Cookie"] = self._cookie(request, token, held.claim_id, lease_seconds)
            if isinstance(chosen, Slice):
                head = Head(206, headers, chosen)
            else:
                head = Head(200, headers, Slice(0, held.meta.size))
            return FileResponse(self._delivery, held, head)
        except BaseException:
            held.blob.close()
            await asyncio.shield(self._claiming.undo(held))
            raise


def _claim_ids(request: Request) -> list[str]:
    """Claim ids a client gives back with the link: cookie, If-Range, If-Match."""
    return _cookie_claim_ids(request) + claim_ids_in_conditions(request.headers)


def _cookie_claim_ids(request: Request) -> list[str]:
    cookie = request.cookies.get(CLAIM_COOKIE, "")
    return [cookie] if is_secret(cookie) else []
