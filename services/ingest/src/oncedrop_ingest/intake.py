"""`PUT /<name>` and `POST /upload`: what is judged before the first byte, and the answer."""

from __future__ import annotations

import mimetypes

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from oncedrop_common.accept import Accept
from oncedrop_common.credentials import credentials
from oncedrop_common.drops import DropMeta
from oncedrop_common.errors import RequestInvalid, UploadTooLarge, UploadUnauthorized
from oncedrop_common.file_names import clean_content_type, clean_name
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.times import iso_utc
from oncedrop_common.tokens import same_secret
from oncedrop_ingest.addresses import Addresses
from oncedrop_ingest.body import announced_length, chunks_of
from oncedrop_ingest.multipart import FIRST_FILE_AT, FORM_OVERHEAD_BYTES, FormUpload, boundary_of
from oncedrop_ingest.options import GivenOptions
from oncedrop_ingest.pages import IngestPages
from oncedrop_ingest.upload import Upload
from oncedrop_ingest.uploads import Uploads


class Intake:
    """The endpoints that take files."""

    def __init__(
        self, settings: Settings, pairing: Pairing, uploads: Uploads, pages: IngestPages
    ) -> None:
        self._settings = settings
        self._pairing = pairing
        self._uploads = uploads
        self._pages = pages

    async def put(self, request: Request) -> Response:
        """The body as it is, named by the path: `curl -T report.pdf host:8001`.

        Answers with the bare link, or with JSON where that is asked for.
        """
        addresses, options, announced = self._admitted(request)
        self._check_token(credentials(request, "bearer"))
        if "content-range" in request.headers:
            # RFC 9110 section 14.5: storing a part as if it were the whole is the worst answer.
            raise RequestInvalid("An upload cannot be continued.", field="Content-Range")
        self._check_length(announced, overhead=0)
        wanted = options.options()
        name = clean_name(request.path_params["name"])
        declared = request.headers.get("content-type") or mimetypes.guess_type(name)[0]
        async with self._uploads.opened(
            request, announced=announced, ttl_seconds=wanted.ttl_seconds
        ) as upload:
            async for chunk in chunks_of(request, self._settings.upload_lease_seconds):
                await upload.write(chunk)
            meta = await upload.commit(name, clean_content_type(declared), wanted)
        if Accept.of(request).names("application/json"):
            return self._json(addresses, upload, meta)
        return self._text(addresses, upload)

    async def post(self, request: Request) -> Response:
        """A form: one file, or several that become a zip; options before or after them.

        Answers with JSON, with the bare link for `Accept: text/plain`, with a page for a browser.
        """
        addresses, options, announced = self._admitted(request)
        boundary = boundary_of(request.headers.get("content-type", ""))
        self._check_length(announced, overhead=FORM_OVERHEAD_BYTES)
        bearer = credentials(request, "bearer")
        if bearer is not None:
            self._check_token(bearer)
        limit = int(self._settings.max_file_bytes)
        form = FormUpload(
            boundary,
            options,
            lambda: self._uploads.opened(
                request,
                announced=announced,
                # The form's own ttl may come after the file; the record may live longer until then.
                ttl_seconds=self._settings.max_ttl_seconds,
                body_offset=FIRST_FILE_AT,
            ),
            lambda field: self._check_token(bearer if bearer is not None else field),
            most_bytes=limit if announced is None else min(announced, limit),
        )
        chunks = chunks_of(request, self._settings.upload_lease_seconds)
        upload, meta = await form.read(chunks)
        accept = Accept.of(request)
        if accept.prefers_page:
            page = self._pages.uploaded(request, addresses, upload, meta)
            page.headers["Location"] = addresses.link(upload.token)
            return page
        if accept.names("text/plain") and not accept.names("application/json"):
            return self._text(addresses, upload)
        return self._json(addresses, upload, meta)

    def _admitted(self, request: Request) -> tuple[Addresses, GivenOptions, int | None]:
        """What every upload needs, judged before its first byte is asked for.

        Raises:
            VolumeUnavailable, StoreUnavailable: Nothing is taken in at the moment.
            RequestInvalid: An option, or the host, is not what it must be.
        """
        self._pairing.require()
        addresses = Addresses.of(request, self._settings)
        options = GivenOptions(self._settings)
        options.add_request(request)
        return addresses, options, announced_length(request)

    def _check_token(self, given: str | None) -> None:
        expected = self._settings.upload_token
        if expected is not None and not same_secret(given or "", expected.get_secret_value()):
            raise UploadUnauthorized("Uploads need this server's upload token.")

    def _check_length(self, announced: int | None, *, overhead: int) -> None:
        limit = int(self._settings.max_file_bytes)
        if announced is not None and announced > limit + overhead:
            raise UploadTooLarge(limit)

    def _json(self, addresses: Addresses, upload: Upload, meta: DropMeta) -> Response:
        link = addresses.link(upload.token)
        document = {
            "url": link,
            "owner_url": addresses.receipt(upload.drop_id, upload.owner_key),
            "id": upload.drop_id,
            "expires_at": iso_utc(meta.expires_ms),
            "size": meta.size,
            "sha256": meta.sha256,
            "max_downloads": meta.max_downloads,
        }
        return JSONResponse(document, 201, {"Location": link})

    def _text(self, addresses: Addresses, upload: Upload) -> Response:
        link = addresses.link(upload.token)
        return PlainTextResponse(f"{link}\n", 201, {"Location": link})
