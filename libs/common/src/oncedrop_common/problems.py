"""The only place where an error becomes HTTP: a status, headers, and a document or a page.

Programs get `application/problem+json` (RFC 9457), people a page; `Accept` tells them apart.
An answer holds what the error carries on purpose and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oncedrop_common import errors
from oncedrop_common.accept import Accept
from oncedrop_common.errors import OncedropError
from oncedrop_common.pages import Pages
from oncedrop_common.times import iso_utc

TYPE_PREFIX = "urn:oncedrop:problem:"
# Seconds until a client should try again, by how fast the fault usually ends.
_SOON = 5
_AFTER_A_SWEEP = 60
_AFTER_THE_OPERATOR = 600
_BASIC = 'Basic realm="oncedrop", charset="UTF-8"'
_BEARER = 'Bearer realm="oncedrop"'

Headers = Mapping[str, str]
PageMaker = Callable[[Request, Any, int], Awaitable[Response]]
"""Makes a service's own page for an error: (request, error, status) -> response."""


def _nothing(_exc: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of error is answered.

    Attributes:
        title: The same for every occurrence (RFC 9457 section 3.1.3).
        headers: Further headers of this occurrence.
        members: Further members of the document; the page can show them too.
    """

    status: int
    title: str
    headers: Callable[[Any], Headers] = _nothing
    members: Callable[[Any], dict[str, Any]] = _nothing


def _challenge(value: str) -> Callable[[OncedropError], Headers]:
    return lambda _exc: {"WWW-Authenticate": value}


def _wait(seconds: float) -> Headers:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def _wait_always(seconds: int) -> Callable[[OncedropError], Headers]:
    return lambda _exc: _wait(seconds)


def _wait_as_told(exc: errors.RateLimited | errors.ClaimHeld) -> Headers:
    return _wait(exc.retry_after_seconds)


def _told_wait(exc: errors.RateLimited | errors.ClaimHeld) -> dict[str, Any]:
    return {"retry_after": max(1, math.ceil(exc.retry_after_seconds))}


def _field(exc: errors.RequestInvalid) -> dict[str, Any]:
    return {"field": exc.field} if exc.field else {}


def _limit(exc: errors.UploadTooLarge) -> dict[str, Any]:
    return {"limit": exc.limit}


def _gone(exc: errors.DropGone) -> dict[str, Any]:
    members: dict[str, Any] = {"reason": exc.reason or "claimed"}
    if exc.gone_ms:
        members["gone_at"] = iso_utc(exc.gone_ms)
    return members


def _content_range(exc: errors.RangeUnsatisfiable) -> Headers:
    return {"Content-Range": f"bytes */{exc.size}", "Accept-Ranges": "bytes"}


def _allow(exc: errors.MethodUnsupported) -> Headers:
    return {"Allow": ", ".join(exc.allowed)}


ROWS: Mapping[type[OncedropError], Row] = {
    errors.RequestInvalid: Row(400, "The request is not valid", members=_field),
    errors.UploadIncomplete: Row(400, "The upload ended too early"),
    errors.UploadTooLarge: Row(413, "The upload is too large", members=_limit),
    errors.UploadUnauthorized: Row(401, "Uploads need a token", _challenge(_BEARER)),
    errors.AdminUnauthorized: Row(401, "This is for the operator", _challenge(_BEARER)),
    errors.PasswordNeeded: Row(401, "This file has a password", _challenge(_BASIC)),
    errors.PasswordWrong: Row(401, "The password is wrong", _challenge(_BASIC)),
    errors.RateLimited: Row(429, "Too many attempts", _wait_as_told, _told_wait),
    errors.LinkUnknown: Row(404, "There is no such link"),
    errors.DropGone: Row(410, "The file is gone", members=_gone),
    errors.ClaimHeld: Row(409, "Someone is downloading the file", _wait_as_told, _told_wait),
    errors.ConditionFailed: Row(412, "The file is not the one you expect"),
    errors.RangeUnsatisfiable: Row(416, "The range lies outside the file", _content_range),
    errors.MethodUnsupported: Row(405, "The method is not supported here", _allow),
    errors.StoreUnavailable: Row(503, "The store is not available", _wait_always(_SOON)),
    errors.VolumeUnavailable: Row(503, "The volume is not available", _wait_always(_SOON)),
    errors.VolumeFull: Row(507, "No space is left"),
    errors.BlobMissing: Row(503, "The file is not in its place", _wait_always(_AFTER_A_SWEEP)),
    errors.BlobDamaged: Row(503, "The file is damaged", _wait_always(_AFTER_THE_OPERATOR)),
    errors.SweepGuarded: Row(503, "The sweep was stopped", _wait_always(_AFTER_THE_OPERATOR)),
}
"""Every leaf of the tree but ConfigurationError, which ends a process before it serves."""

_CRASH_SLUG = "internal_error"
_CRASH_DETAIL = "Something went wrong on the server; it was written to its log."


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is told.

    Attributes:
        slug: Stable name, in documents, logs and metrics.
        detail: One sentence about this occurrence.
        expected: False when nobody meant this error to happen: it needs a traceback.
    """

    slug: str
    status: int
    title: str
    detail: str
    headers: Headers
    members: dict[str, Any]
    expected: bool = True


def problem_of(exc: Exception) -> Problem:
    """What to tell about this error; of an unexpected one nothing but that it happened."""
    match exc:
        case HTTPException(status_code=404):
            return Problem("not_found", 404, "Not found", "Nothing has this address.", {}, {})
        case HTTPException(status_code=status):
            title = responses.get(status, "Error")
            return Problem(f"http_{status}", status, title, f"{title}.", {}, {})
        case OncedropError() if (row := ROWS.get(type(exc))) is not None:
            return Problem(
                exc.slug, row.status, row.title, exc.detail, row.headers(exc), row.members(exc)
            )
        case _:
            return Problem(_CRASH_SLUG, 500, "Server error", _CRASH_DETAIL, {}, {}, expected=False)


class Problems:
    """Answers errors, for one application.

    Args:
        pages: Where `problem.html` comes from.
        overrides: A service's own pages for people, by error; a parent class stands for all its
            leaves. Programs get the document all the same.
    """

    def __init__(
        self, pages: Pages, overrides: Mapping[type[OncedropError], PageMaker] | None = None
    ) -> None:
        self._pages = pages
        self._overrides = dict(overrides or {})

    async def answer(self, request: Request, exc: Exception) -> Response:
        """The response for an error of an exchange in which nothing has been sent yet."""
        problem = problem_of(exc)
        if not Accept.of(request).prefers_page:
            return _document(problem, exc)
        maker = next((self._overrides[c] for c in type(exc).__mro__ if c in self._overrides), None)
        if maker is None:
            response = self._page(request, problem, exc)
        else:
            try:
                response = await maker(request, exc, problem.status)
            except OncedropError as another:  # the page needed what is not there either
                problem = problem_of(another)
                response = self._page(request, problem, another)
        for name, value in problem.headers.items():
            # Browsers answer a Basic challenge with a dialog in front of the page's own form.
            if value != _BASIC:
                response.headers.setdefault(name, value)
        return response

    def _page(self, request: Request, problem: Problem, exc: Exception) -> Response:
        return self._pages.render(
            request,
            "problem.html",
            problem.status,
            slug=problem.slug,
            status=problem.status,
            title=problem.title,
            detail=problem.detail,
            reason=problem.members.get("reason"),
            gone_ms=exc.gone_ms if isinstance(exc, errors.DropGone) else 0,
            limit=problem.members.get("limit"),
            retry_after_seconds=int(problem.headers.get("Retry-After", "0")),
        )


def problem_document(problem: Problem) -> dict[str, Any]:
    """The members of a problem document (RFC 9457 section 3.1)."""
    return {
        "type": TYPE_PREFIX + problem.slug,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }


def _document(problem: Problem, exc: Exception) -> Response:
    document = problem_document(problem)
    if isinstance(exc, OncedropError) and exc.drop_id is not None:
        document["drop_id"] = exc.drop_id
    return JSONResponse(
        document, problem.status, problem.headers, media_type="application/problem+json"
    )
