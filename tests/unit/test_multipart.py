"""Forms: files into one upload, options into options, everything else refused."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncedrop_common.drops import DropMeta
from oncedrop_common.errors import RequestInvalid, UploadIncomplete, UploadUnauthorized
from oncedrop_common.settings import Settings
from oncedrop_ingest.multipart import FORM_OVERHEAD_BYTES, FormUpload, boundary_of
from oncedrop_ingest.options import GivenOptions, Options
from oncedrop_ingest.upload import Checksum, Upload

BOUNDARY = "----boundary"
TOKEN = "the upload token"


@dataclass
class Committed:
    """What a form became."""

    name: str
    content_type: str
    options: Options
    body: bytes


class MemoryUpload:
    """Does with a bytearray what Upload does with a part."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.committed: Committed | None = None
        self.failed = False

    @property
    def size(self) -> int:
        """The body's bytes so far."""
        return len(self.body)

    async def write(self, data: bytes, checksum: Checksum | None = None) -> None:
        """Append."""
        self.body += data
        if checksum is not None:
            checksum.update(data)

    async def flush(self) -> None:
        """All is written at once."""

    async def put_before(self, prefix: bytes, checksum: Checksum) -> None:
        """Put in front."""
        checksum.update(bytes(self.body))
        self.body[:0] = prefix

    async def commit(self, name: str, content_type: str, options: Options) -> DropMeta:
        """Remember what was committed."""
        self.committed = Committed(name, content_type, options, bytes(self.body))
        return cast("DropMeta", self.committed)


class Form:
    """A form being read."""

    def __init__(self, upload_token: str | None = None) -> None:
        self.upload = MemoryUpload()
        self.opened = 0
        self.upload_token = upload_token

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Upload]:
        self.opened += 1
        try:
            yield cast("Upload", self.upload)
        except BaseException:
            self.upload.failed = True
            raise

    def _admit(self, token: str | None) -> None:
        if self.upload_token is not None and token != self.upload_token:
            raise UploadUnauthorized("no")

    async def read(self, body: bytes, chunk_bytes: int = 1 << 16) -> Committed:
        """Read it in chunks of this size."""

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), chunk_bytes):
                yield body[start : start + chunk_bytes]

        options = GivenOptions(Settings(_env_file=None))
        form = FormUpload(BOUNDARY, options, self._open, self._admit, most_bytes=1000)
        await form.read(chunks())
        assert self.upload.committed is not None
        return self.upload.committed


def part(disposition: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *headers])
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + body + b"\r\n"


def file(name: str, body: bytes, *headers: str) -> bytes:
    return part(f'name="file"; filename="{name}"', body, *headers)


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"', value.encode())


END = f"--{BOUNDARY}--\r\n".encode()


async def refused(
    body: bytes, kind: type[Exception] | tuple[type[Exception], ...] = RequestInvalid
) -> Any:
    form = Form()
    with pytest.raises(kind) as error:
        await form.read(body)
    assert form.upload.committed is None
    assert form.upload.failed == bool(form.opened)
    return error.value


@pytest.mark.parametrize("chunk_bytes", [1, 3, 50, 1 << 16])
async def test_one_file_stays_itself(chunk_bytes: int) -> None:
    body = file("report.pdf", b"%PDF\r\n--not the boundary", "Content-Type: application/pdf") + END
    done = await Form().read(body, chunk_bytes)
    assert (done.name, done.content_type) == ("report.pdf", "application/pdf")
    assert done.body == b"%PDF\r\n--not the boundary"


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 16])
async def test_several_files_become_one_zip(chunk_bytes: int) -> None:
    files = [("a.txt", b"first"), ("b/c.bin", b"\r\n" * 99), ("empty", b""), ("d", b"last")]
    form = Form()
    done = await form.read(b"".join(file(n, b) for n, b in files) + END, chunk_bytes)
    assert (done.name, done.content_type, form.opened) == ("files.zip", "application/zip", 1)
    with zipfile.ZipFile(io.BytesIO(done.body)) as archive:
        assert archive.testzip() is None
        assert [(i.filename, archive.read(i)) for i in archive.infolist()] == files


async def test_an_empty_first_file_can_begin_an_archive() -> None:
    done = await Form().read(file("empty", b"") + file("b", b"x") + END)
    with zipfile.ZipFile(io.BytesIO(done.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["empty", "b"]


@pytest.mark.parametrize("after", [False, True])
async def test_options_count_before_and_after_the_file(*, after: bool) -> None:
    options = field("ttl", "2h") + field("max_downloads", "3") + field("password", "pässwörd")
    one = file("x", b"x")
    done = await Form().read((one + options if after else options + one) + END)
    assert (done.options.ttl_seconds, done.options.max_downloads) == (7200, 3)
    assert done.options.password == "pässwörd"


async def test_a_field_called_file_without_a_file_is_told_apart() -> None:
    error = await refused(field("file", "report.pdf") + END)
    assert error.field == "file"
    assert "@NAME" in error.detail


@pytest.mark.parametrize("body", [END, field("ttl", "2h") + END, file("", b"") + END])
async def test_a_form_without_a_file_is_refused(body: bytes) -> None:
    error = await refused(body)
    assert error.field == "file"


async def test_a_browsers_empty_file_field_beside_a_file_is_no_file() -> None:
    done = await Form().read(file("", b"") + file("x", b"x") + file("", b"") + END)
    assert (done.name, done.body) == ("x", b"x")


async def test_a_nameless_file_with_bytes_is_a_file() -> None:
    done = await Form().read(file("", b"x") + END)
    assert (done.name, done.body) == ("file", b"x")


@pytest.mark.parametrize("cut", [3, 4, len(END), len(END) + 1, len(END) + 20])
async def test_a_form_without_its_last_boundary_is_incomplete(cut: int) -> None:
    whole = file("x", b"x" * 100) + END
    await refused(whole[:-cut], UploadIncomplete)


async def test_nothing_at_all_is_incomplete() -> None:
    await refused(b"", UploadIncomplete)


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary anywhere",
        b"x" + file("x", b"x") + END,
        f"--{BOUNDARY}\n\n".encode(),
        f"--{BOUNDARY}\r\nno colon\r\n\r\nx\r\n".encode() + END,
        f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode() + END,
        f"--{BOUNDARY}\r\nContent-Disposition: attachment\r\n\r\nx\r\n".encode() + END,
        file("x", b"x", "Content-Length: 5") + END,
        file("x", b"x", *(f"X-{n}: y" for n in range(20))) + END,
        file("x" * 9000, b"x") + END,
        file("x", b"x", f"X: {'y' * 2_000_000}") + END,
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="'.encode()
        + b'\xff"\r\n\r\nx\r\n'
        + END,
        part('name="password"', b"\xff") + END,
        field("password", "x" * 5000) + file("x", b"x") + END,
        field("ttl", "1h") + file("x", b"x") + field("ttl", "1h") + END,
        field("ttl", "tomorrow") + file("x", b"x") + END,
        file("x", b"x") + field("max_downloads", "0") + END,
        file("x", b"x") + field("pasword", "y") + END,
        part("x=y", b"") + END,
        field("x", "y") * 10_000 + END,
        file("x", b"x") * 1001 + END,
        field("upload_token", TOKEN) * 2 + file("x", b"x") + END,
        file("x", b"x") + END + b"x" * (2 * FORM_OVERHEAD_BYTES),
        b"\r\n" * FORM_OVERHEAD_BYTES + file("x", b"x") + END,
    ],
)
async def test_a_form_that_is_none_is_refused_and_nothing_stays(body: bytes) -> None:
    await refused(body, (RequestInvalid, UploadIncomplete))


async def test_a_thousand_files_are_taken() -> None:
    done = await Form().read(file("x", b"x") * 1000 + END)
    with zipfile.ZipFile(io.BytesIO(done.body)) as archive:
        assert archive.testzip() is None
        assert len(set(archive.namelist())) == 1000


async def test_a_line_break_after_the_last_boundary_may_come_alone() -> None:
    body = file("x", b"x") + END
    assert (await Form().read(body, len(body) - 2)).body == b"x"


async def test_the_upload_token_is_judged_before_the_file_is_stored() -> None:
    form = Form(TOKEN)
    with pytest.raises(UploadUnauthorized):
        await form.read(file("x", b"x") + field("upload_token", TOKEN) + END)
    assert form.opened == 0
    await form.read(field("upload_token", TOKEN) + file("x", b"x") + END)


async def test_who_has_no_token_is_told_so_without_a_file_too() -> None:
    with pytest.raises(UploadUnauthorized):
        await Form(TOKEN).read(field("ttl", "1h") + END)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("../../etc/passwd", "passwd"),
        ("a%22b.txt", "a_b.txt"),
        ("a%0D%0ASet-Cookie: x", "aSet-Cookie_ x"),
        ("nul\0l", "null"),
        ("C:\\Users\\x\\cv.pdf", "cv.pdf"),
        ("é" * 300 + ".txt", "é" * 125 + ".txt"),
        ("📄 émoji.txt", "📄 émoji.txt"),
        ("\u202etxt.exe", "txt.exe"),
        ("..", "file"),
    ],
)
async def test_names_are_made_harmless(raw: str, clean: str) -> None:
    assert (await Form().read(file(raw, b"x") + END)).name == clean


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed",
     "multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; boundary=é",
     "multipart/mixed; boundary=x", "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_another_type_or_no_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(RequestInvalid) as error:
        boundary_of(content_type)
    assert error.value.field == "Content-Type"


def test_a_quoted_boundary_is_understood() -> None:
    assert boundary_of('Multipart/Form-Data; charset=x; boundary="a b"') == "a b"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 64))
async def test_bytes_pass_unchanged_however_they_are_cut(
    bodies: list[bytes], chunk_bytes: int
) -> None:
    bodies = [body.replace(BOUNDARY.encode(), b"") for body in bodies]
    form = b"".join(file(str(n), body) for n, body in enumerate(bodies)) + END
    done = await Form().read(form, chunk_bytes)
    if len(bodies) == 1:
        found = [done.body]
    else:
        with zipfile.ZipFile(io.BytesIO(done.body)) as archive:
            found = [archive.read(info) for info in archive.infolist()]
    assert [hashlib.sha256(b).digest() for b in found] == [
        hashlib.sha256(b).digest() for b in bodies
    ]
