"""The page for who looks: what it is, how long it stays, and a button that takes it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from oncedrop_common.drops import Drop, DropMeta
from oncedrop_common.errors import RateLimited, RequestError, RequestInvalid
from oncedrop_common.forms import read_form
from oncedrop_common.pages import Pages
from oncedrop_common.tokens import claim_hash, is_secret, mint


class Landing:
    """Makes landing pages.

    Args:
        claim_lease_seconds: How long a download that broke off may be taken up again.
    """

    def __init__(self, pages: Pages, claim_lease_seconds: int) -> None:
        self._pages = pages
        self._claim_lease_seconds = claim_lease_seconds

    def page(
        self,
        request: Request,
        drop: Drop,
        meta: DropMeta,
        status: int = 200,
        problem: RequestError | None = None,
    ) -> Response:
        """The landing page of a drop that can be had.

        Of a drop with a password it does not tell the name: that is for who knows the password.
        The form carries a claim id, so that a double click or a repeated POST is one claim.
        """
        return self._render(
            request,
            status,
            name="" if meta.password_hash else meta.name,
            meta=meta,
            until_ms=meta.expires_ms,
            now_ms=drop.now_ms,
            downloads_left=drop.downloads_left,
            password=bool(meta.password_hash),
            claim_id=mint(),
            begun=False,
            problem=problem,
        )

    def own(self, request: Request, drop: Drop, meta: DropMeta, claim_id: str) -> Response:
        """The page for the claimant who comes back to the link itself: it begins again."""
        claim = drop.claim(claim_hash(claim_id))
        return self._render(
            request,
            200,
            name=meta.name,
            meta=meta,
            until_ms=claim.deadline_ms if claim else drop.now_ms,
            now_ms=drop.now_ms,
            downloads_left=1,
            password=False,
            claim_id=claim_id,
            begun=True,
            problem=None,
        )

    def _render(
        self,
        request: Request,
        status: int,
        *,
        meta: DropMeta,
        problem: RequestError | None,
        **context: object,
    ) -> Response:
        return self._pages.render(
            request,
            "landing.html",
            status,
            size=meta.size,
            resumable=meta.resume,
            claim_lease=self._claim_lease_seconds,
            problem=problem.slug if problem else "",
            retry_after=problem.retry_after_seconds if isinstance(problem, RateLimited) else 0,
            **context,
        )


class LandingForm:
    """What the landing page's form sends, or a program's POST.

    Attributes:
        claim_id: The one the page was made with, or a fresh one.
        password: None when the form has none.
    """

    def __init__(self, claim_id: str, password: str | None) -> None:
        self.claim_id = claim_id
        self.password = password

    @classmethod
    async def read(cls, request: Request) -> LandingForm:
        """Read the body of a POST.

        Raises:
            RequestInvalid: Another type, too long, or not a form.
        """
        fields = await read_form(request)
        claim_id = fields.get("claim", "")
        if claim_id and not is_secret(claim_id):
            raise RequestInvalid("The claim id is not well-formed.", field="claim")
        return cls(claim_id or mint(), fields.get("password"))
