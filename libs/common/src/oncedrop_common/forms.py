"""Small forms without files, as pages and programs send them."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from starlette.requests import Request

from oncedrop_common.errors import RequestInvalid, UploadIncomplete

_FORM_BYTES = 8 * 1024
_FORM_FIELDS = 10
_FORM_SECONDS = 30.0
_FORM_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; of one given twice the last, and none of a request without a body.

    Raises:
        RequestInvalid: Another type, too long, or not a form.
        UploadIncomplete: It was not whole in time.
    """
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            body = await _body(request)
    except TimeoutError:
        raise UploadIncomplete(f"The form was not whole in {_FORM_SECONDS:g} seconds.") from None
    media_type = request.headers.get("content-type", _FORM_TYPE).partition(";")[0].strip()
    if body and media_type.lower() != _FORM_TYPE:
        raise RequestInvalid(f"The form must be {_FORM_TYPE}.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_FORM_FIELDS,
            errors="strict",
        )
    except ValueError as exc:
        raise RequestInvalid("The form cannot be read.") from exc
    return dict(pairs)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise RequestInvalid("The form is too long.")
    return bytes(body)
