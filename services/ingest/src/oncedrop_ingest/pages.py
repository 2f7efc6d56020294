"""What ingest shows to people: the form, the link, the receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import segno
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from oncedrop_common.drops import Drop, DropMeta
from oncedrop_common.pages import Pages
from oncedrop_common.passwords import PASSWORD_MAX_BYTES
from oncedrop_common.settings import Settings
from oncedrop_ingest.addresses import Addresses
from oncedrop_ingest.archive import ENTRIES_MOST
from oncedrop_ingest.timeline import Entry
from oncedrop_ingest.upload import Upload

_TTL_CHOICES = (3_600, 86_400, 7 * 86_400, 30 * 86_400)
_QR_SCALE = 4
# A form's options and its token are parts too; more of them than there are.
_FIELDS_MOST = 10


@dataclass(frozen=True, slots=True)
class Told:
    """All that a receipt tells.

    Attributes:
        drop: The record.
        document: As programs get it.
        timeline: Its life, the oldest first.
    """

    drop: Drop
    document: Mapping[str, str | int]
    timeline: Sequence[Entry]


class IngestPages:
    """Pages from templates; all of them work without JavaScript."""

    def __init__(self, pages: Pages, settings: Settings) -> None:
        self._pages = pages
        self._settings = settings

    async def form(self, request: Request) -> Response:
        """The upload form, with the limits."""
        settings = self._settings
        default = settings.default_ttl_seconds
        choices = sorted({s for s in _TTL_CHOICES if s <= settings.max_ttl_seconds} | {default})
        return self._pages.render(
            request,
            "form.html",
            max_file_bytes=int(settings.max_file_bytes),
            max_downloads=settings.max_max_downloads,
            default_ttl=default,
            ttl_choices=choices,
            max_ttl=settings.max_ttl_seconds,
            max_files=ENTRIES_MOST - _FIELDS_MOST,
            claim_lease=settings.claim_lease_seconds,
            password_max=PASSWORD_MAX_BYTES,
            needs_token=settings.upload_token is not None,
        )

    def uploaded(
        self, request: Request, addresses: Addresses, upload: Upload, meta: DropMeta
    ) -> Response:
        """The link, once, as text and as a QR code; and the owner's link."""
        link = addresses.link(upload.token)
        return self._pages.render(
            request,
            "uploaded.html",
            201,
            link=link,
            qr=_qr_code(link),
            receipt=addresses.receipt(upload.drop_id, upload.owner_key),
            meta=meta,
        )

    def receipt(self, request: Request, told: Told) -> Response:
        """What became of the drop, with a button that deletes it while there is one."""
        return self._pages.render(request, "receipt.html", **self._receipt(told))

    def receipt_content(self, request: Request, told: Told) -> str:
        """What of the receipt's page changes as time goes by."""
        return self._pages.text(request, "_receipt.html", **self._receipt(told))

    def _receipt(self, told: Told) -> dict[str, object]:
        return {
            "drop": told.drop,
            "receipt": told.document,
            "timeline": told.timeline,
            "claim_lease": self._settings.claim_lease_seconds,
        }


def _qr_code(link: str) -> Markup:
    """The link as a QR code: dark on light, with its quiet zone, whatever the page's colours."""
    code = segno.make(link, micro=False)
    # Nothing in it but what segno draws.
    return Markup(  # noqa: S704
        code.svg_inline(scale=_QR_SCALE, light="#fff", omitsize=True, title="QR code")
    )
