"""A form with files (RFC 7578), straight from the socket into the part.

The first file goes to FIRST_FILE_AT. If no other follows it stays there, a file of its own. If a
second one comes, a zip's local header is put directly before the first, and the rest of the
archive behind it: nothing is moved, nothing is kept elsewhere meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from oncedrop_common.drops import DropMeta
from oncedrop_common.errors import RequestInvalid, UploadIncomplete
from oncedrop_common.file_names import clean_content_type, clean_name
from oncedrop_ingest.archive import CONTENT_TYPE, ENTRIES_MOST, Archive, Crc32
from oncedrop_ingest.options import GivenOptions
from oncedrop_ingest.upload import Upload

FILE_FIELD = "file"
TOKEN_FIELD = "upload_token"  # noqa: S105 - a field's name
FIRST_FILE_AT = 8192
# What boundaries, part headers, options, and text around the form may add to its files.
FORM_OVERHEAD_BYTES = 1024 * 1024
_FORM_TYPE = "multipart/form-data"
_FIELD_BYTES = 4096
_BOUNDARY_CHARACTERS = 200
_SHOWN_CHARACTERS = 40

Opener = Callable[[], contextlib.AbstractAsyncContextManager[Upload]]


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type header names.

    Raises:
        RequestInvalid: Another type, or no usable boundary; names the header.
    """
    media_type, parameters = parse_options_header(content_type)
    boundary: str = parameters.get("boundary", "")
    if media_type != _FORM_TYPE:
        raise RequestInvalid(
            f"An upload here is {_FORM_TYPE}; a bare file goes to PUT /<name>.",
            field="Content-Type",
        )
    if not boundary or len(boundary) > _BOUNDARY_CHARACTERS or not boundary.isascii():
        raise RequestInvalid("The form's boundary is missing or unusable.", field="Content-Type")
    return boundary


class FormUpload:
    """Reads one form: options into `options`, files into one upload.

    Args:
        boundary: What stands between the parts.
        options: Where fields go.
        open_upload: Called for the first file; must leave room up to FIRST_FILE_AT.
        admit: Called with the upload token before anything is stored; raises if it is not right.
        most_bytes: What all files can have together.
    """

    def __init__(
        self,
        boundary: str,
        options: GivenOptions,
        open_upload: Opener,
        admit: Callable[[str | None], None],
        most_bytes: int,
    ) -> None:
        # Not strict: that would refuse a line break after the last boundary when it comes alone.
        self._parser = PushMultipartParser(boundary, max_segment_count=ENTRIES_MOST)
        self._options = options
        self._open_upload = open_upload
        self._admit = admit
        self._most_bytes = most_bytes
        self._stack = contextlib.AsyncExitStack()
        self._around = 0
        self._token: str | None = None
        self._upload: Upload | None = None
        self._archive: Archive | None = None
        self._first: MultipartSegment | None = None
        self._entry_began = 0
        self._crc = Crc32()

    async def read(self, chunks: AsyncIterator[bytes]) -> tuple[Upload, DropMeta]:
        """Take in the whole form and commit the drop.

        Raises:
            RequestInvalid: Not a form as it must be, or an option is not; names the field.
            UploadIncomplete: It ended before its closing boundary.
            OncedropError: As admit, open_upload and Upload.write.
        """
        async with self._stack:
            await self._parse(chunks)
            try:
                self._parser.close()
            except MultipartError as exc:
                raise UploadIncomplete("The form ended before its last boundary.") from exc
            if self._upload is None or self._first is None:
                self._admit(self._token)
                raise RequestInvalid(
                    f"The form has no file in a field `{FILE_FIELD}`.", field=FILE_FIELD
                )
            if self._archive is None:
                name = clean_name(self._first.filename or "")
                content_type = clean_content_type(self._first.header("Content-Type"))
            else:
                await self._upload.write(self._archive.directory(self._upload.size))
                name, content_type = self._archive.name, CONTENT_TYPE
            meta = await self._upload.commit(name, content_type, self._options.options())
            return self._upload, meta

    async def _parse(self, chunks: AsyncIterator[bytes]) -> None:
        take: Callable[[bytes | None], Awaitable[None]] | None = None
        async for chunk in chunks:
            self._around += len(chunk)
            events = self._parser.parse(chunk)
            while (event := _next(events)) is not _NO_MORE:
                if isinstance(event, MultipartSegment):
                    take = self._begin(event)
                elif take is not None:
                    await take(event)
            if self._around > FORM_OVERHEAD_BYTES:
                raise RequestInvalid("The form has too much around its files.")

    def _begin(self, segment: MultipartSegment) -> Callable[[bytes | None], Awaitable[None]]:
        """What takes this part's chunks, and None at its end."""
        if segment.name == FILE_FIELD:
            if segment.filename is None:
                raise RequestInvalid(
                    f"`{FILE_FIELD}` holds a text, not a file; curl wants -F {FILE_FIELD}=@NAME.",
                    field=FILE_FIELD,
                )
            return _FilePart(self, segment).take
        return _FieldPart(self, segment.name or "").take

    async def begin_file(self, segment: MultipartSegment) -> None:
        """A file's first byte has come, or its end."""
        if self._upload is None:
            self._admit(self._token)
            self._upload = await self._stack.enter_async_context(self._open_upload())
            self._first = segment
            return
        if self._archive is None and self._first is not None:
            self._archive = Archive(self._most_bytes, datetime.now(UTC))
            size, crc = self._upload.size, Crc32()
            header = self._archive.begin(self._first.filename or "", 0)
            await self._upload.put_before(header, crc)
            await self._upload.write(self._archive.end(size, crc.value))
        if self._archive is not None:
            self._crc = Crc32()
            offset = self._upload.size
            await self._upload.write(self._archive.begin(segment.filename or "", offset))
            self._entry_began = self._upload.size

    async def write(self, data: bytes) -> None:
        """Bytes of the file that has begun."""
        self._around -= len(data)
        if self._upload is not None:
            checksum = self._crc if self._archive is not None else None
            await self._upload.write(data, checksum)

    async def end_file(self) -> None:
        """The file is whole."""
        if self._archive is not None and self._upload is not None:
            size = self._upload.size - self._entry_began
            await self._upload.flush()
            await self._upload.write(self._archive.end(size, self._crc.value))

    def set_field(self, name: str, value: bytes) -> None:
        """A field other than a file is whole."""
        if name != TOKEN_FIELD:
            self._options.add_field(name, value)
        elif self._token is not None:
            raise RequestInvalid(f"{TOKEN_FIELD} is given more than once.", field=TOKEN_FIELD)
        else:
            self._token = value.decode(errors="replace")


_NO_MORE = object()


class _FilePart:
    """A part with a file. A browser sends an empty one, without a name, where none was chosen."""

    def __init__(self, form: FormUpload, segment: MultipartSegment) -> None:
        self._form = form
        self._segment = segment
        self._began = False

    async def take(self, data: bytes | None) -> None:
        """Bytes of it, or its end."""
        if not self._began and (data or self._segment.filename):
            self._began = True
            await self._form.begin_file(self._segment)
        if data:
            await self._form.write(data)
        elif self._began:
            await self._form.end_file()


class _FieldPart:
    """A part with an option: small, kept in memory."""

    def __init__(self, form: FormUpload, name: str) -> None:
        self._form = form
        self._name = name
        self._value = bytearray()

    async def take(self, data: bytes | None) -> None:
        """Bytes of it, or its end."""
        if data is None:
            self._form.set_field(self._name, bytes(self._value))
            return
        self._value += data
        if len(self._value) > _FIELD_BYTES:
            shown = self._name[:_SHOWN_CHARACTERS]
            raise RequestInvalid(f"A field has at most {_FIELD_BYTES} bytes.", field=shown)


def _next(events: Iterator[Any]) -> Any:
    """The parser's next event, _NO_MORE when it wants another chunk; its errors become ours."""
    try:
        return next(events, _NO_MORE)
    except ParserLimitReached as exc:
        raise RequestInvalid(f"The form has too many parts or headers ({exc}).") from exc
    except MultipartError as exc:
        raise RequestInvalid(f"The form cannot be read ({exc}).") from exc
