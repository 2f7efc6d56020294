"""The command line against servers that lie: nothing they say is obeyed, and failures are words."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.command_line import CommandLine

BODY = b"not what you think" * 1000
DIGEST = f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"
CLAIM = "/c/" + "0" * 32 + "." + "A" * 22 + "/x"
LINK = "/d/" + "A" * 22
RECEIPT = "/o/" + "0" * 32 + "." + "A" * 22
Answer = tuple[int, dict[str, str], bytes]
ESCAPES = "\x1b]0;title\x07\x1b[2J\u202egpj.exe"


class Liar:
    """A server that answers what the test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {
            f"HEAD {LINK}": (200, self.file_headers(), b""),
            f"POST {LINK}": (303, {"Location": CLAIM}, b""),
            f"HEAD {CLAIM}": (200, self.file_headers(), b""),
            f"GET {CLAIM}": (200, self.file_headers(), BODY),
        }
        self.asked: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = f"{self.command} {self.path}"
                liar.asked.append(asked)
                status, headers, body = liar.answers.get(asked, (404, {}, b""))
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - its names

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @staticmethod
    def file_headers(**more: str) -> dict[str, str]:
        """Those of BODY, with some that differ."""
        headers = {
            "Content-Disposition": 'attachment; filename="report.pdf"',
            "Content-Length": str(len(BODY)),
            "Repr-Digest": DIGEST,
        }
        return headers | {name.replace("_", "-"): value for name, value in more.items()}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def liar() -> Iterator[Liar]:
    server = Liar()
    yield server
    server.close()


@pytest.fixture
def oncedrop(liar: Liar, tmp_path: Path) -> CommandLine:
    folder = tmp_path / "here"
    folder.mkdir()
    return CommandLine(folder, liar.url)


def all_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="report.pdf"', "report.pdf"),
        ("attachment; filename*=UTF-8''..%2F..%2Fevil", "evil"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\evil.exe"', "evil.exe"),
        ('attachment; filename=".bashrc"', "bashrc"),
        ("attachment; filename*=UTF-8''a%00%0A%1B%5B2Jb.txt", "a[2Jb.txt"),
        ("attachment; filename*=UTF-8''report%E2%80%AEfdp.exe", "reportfdp.exe"),
        ('attachment; filename="-rf"', "-rf"),
        ('attachment; filename=".."', "file"),
        ('attachment; filename="con.txt"', "_con.txt"),
        ("attachment; filename*=UTF-8''" + "a" * 500 + ".pdf", "a" * 251 + ".pdf"),
        ("attachment", "file"),
    ],
    ids=lambda text: text[:40],
)
def test_no_name_leaves_the_folder_or_hides(
    liar: Liar, oncedrop: CommandLine, tmp_path: Path, disposition: str, name: str
) -> None:
    for asked in (f"HEAD {LINK}", f"HEAD {CLAIM}", f"GET {CLAIM}"):
        status, headers, body = liar.answers[asked]
        liar.answers[asked] = (status, headers | {"Content-Disposition": disposition}, body)

    got = oncedrop("get", liar.url + LINK)

    assert got.code == 0, got.err
    assert got.line == name
    assert all_files(tmp_path) == [f"here/{name}"]
    assert (oncedrop.folder / name).read_bytes() == BODY


@pytest.mark.parametrize(
    "location",
    ["{other}" + CLAIM, "//{other_host}" + CLAIM, "https://{host}" + CLAIM, "ftp://{host}/c/x"],
)
def test_no_redirect_leads_to_another_server(
    liar: Liar, oncedrop: CommandLine, location: str
) -> None:
    other = Liar()
    try:
        target = location.format(
            other=other.url,
            other_host=other.url.removeprefix("http://"),
            host=liar.url.removeprefix("http://"),
        )
        liar.answers[f"POST {LINK}"] = (303, {"Location": target}, b"")
        got = oncedrop("get", liar.url + LINK)
    finally:
        other.close()

    assert got.code == 5
    assert "that is not followed" in got.err
    assert "A" * 22 not in got.err
    assert other.asked == []
    assert all_files(oncedrop.folder) == []


def test_a_redirect_of_an_upload_is_not_followed(liar: Liar, oncedrop: CommandLine) -> None:
    other = Liar()
    try:
        liar.answers["PUT /hostname"] = (307, {"Location": other.url + "/hostname"}, b"")
        sent = oncedrop("send", "/etc/hostname", env={"ONCEDROP_UPLOAD_TOKEN": "secret"})
    finally:
        other.close()

    assert sent.code == 5
    assert other.url in sent.err
    assert other.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Repr-Digest": ""},
        {"Repr-Digest": "sha-256=:short:"},
        {"Repr-Digest": "md5=:" + "A" * 22 + "==:"},
        {"Content-Length": "1e9"},
        {"Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_what_cannot_be_checked_is_not_taken(
    liar: Liar, oncedrop: CommandLine, headers: dict[str, str]
) -> None:
    liar.answers[f"HEAD {LINK}"] = (200, liar.file_headers() | headers, b"")

    got = oncedrop("get", liar.url + LINK)

    assert got.code == 6
    assert "does not answer as oncedrop does" in got.err or "broke" in got.err
    assert liar.asked == [f"HEAD {LINK}"]


def test_what_does_not_fit_on_the_disk_is_not_taken(liar: Liar, oncedrop: CommandLine) -> None:
    headers = liar.file_headers(Content_Length=str(1 << 62))
    liar.answers[f"HEAD {LINK}"] = (200, headers, b"")

    got = oncedrop("get", liar.url + LINK)

    assert (got.code, got.err) == (1, "oncedrop: .: there is no room for the file.\n")
    assert liar.asked == [f"HEAD {LINK}"]


def test_another_file_than_was_promised_is_not_kept(liar: Liar, oncedrop: CommandLine) -> None:
    liar.answers[f"GET {CLAIM}"] = (200, liar.file_headers(Content_Length="5"), b"other")

    got = oncedrop("get", liar.url + LINK, "--give-up-after", "0")

    assert got.code == 6
    assert "it sends another file" in got.err
    assert not (oncedrop.folder / "report.pdf").exists()


def test_other_bytes_under_the_right_headers_are_noticed(liar: Liar, oncedrop: CommandLine) -> None:
    liar.answers[f"GET {CLAIM}"] = (200, liar.file_headers(), b"x" * len(BODY))

    assert oncedrop("get", liar.url + LINK).code == 7
    assert not (oncedrop.folder / "report.pdf").exists()


def test_a_range_that_was_not_asked_for_is_refused(liar: Liar, oncedrop: CommandLine) -> None:
    headers = liar.file_headers(
        Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}", Content_Length=str(len(BODY) - 5)
    )
    liar.answers[f"GET {CLAIM}"] = (206, headers, BODY[5:])

    got = oncedrop("get", liar.url + LINK, "--give-up-after", "0")

    assert got.code == 6
    assert "another range" in got.err


def test_what_is_sent_all_over_again_is_not_written_twice(
    liar: Liar, oncedrop: CommandLine
) -> None:
    liar.answers[f"GET {CLAIM}"] = (500, {}, b"")
    oncedrop("get", liar.url + LINK, "--give-up-after", "0")
    (oncedrop.folder / "report.pdf.part").write_bytes(BODY[:100])
    liar.answers[f"GET {CLAIM}"] = (200, liar.file_headers(), BODY)

    got = oncedrop("get", "--json", liar.url + LINK)

    assert got.document["resumed_at"] == 100
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY


def test_a_claim_that_never_has_anything_comes_to_an_end(liar: Liar, oncedrop: CommandLine) -> None:
    liar.answers[f"GET {CLAIM}"] = (410, {}, b"")

    got = oncedrop("get", liar.url + LINK, "--give-up-after", "2")

    assert got.code == 6
    assert 1 < liar.asked.count(f"POST {LINK}") < 10


@pytest.mark.parametrize(
    ("status", "code"), [(400, 5), (403, 5), (404, 3), (409, 5), (410, 4), (413, 5), (429, 5)]
)
def test_a_refusal_is_one_line_without_what_terminals_obey(
    liar: Liar, oncedrop: CommandLine, status: int, code: int
) -> None:
    problem = {"title": f"No {ESCAPES}", "detail": f"Never.{ESCAPES}\n" + "x" * 10_000}
    liar.answers[f"HEAD {LINK}"] = (status, {}, b"")
    liar.answers[f"POST {LINK}"] = (status, {}, json.dumps(problem).encode())

    got = oncedrop("get", liar.url + LINK)

    assert got.code == code
    assert got.err.startswith("oncedrop: No ")
    assert got.err.count("\n") == 1
    assert len(got.err) < 800
    assert not {"\x1b", "\x07", "\u202e"} & set(got.err)
    assert all_files(oncedrop.folder) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"title": 1, "detail": []}',
        b"[" * 50_000,
        b"\xff",
        b" " * 99_999 + b'{"title": "too late"}',
    ],
    ids=lambda body: repr(body[:9]),
)
def test_an_answer_that_is_no_problem_is_told_by_its_status(
    liar: Liar, oncedrop: CommandLine, body: bytes
) -> None:
    liar.answers[f"GET {RECEIPT}"] = (502, {}, body)

    told = oncedrop("status", liar.url + RECEIPT)

    assert (told.code, told.err) == (6, "oncedrop: The server answered 502 Bad Gateway.\n")


UPLOADED: dict[str, Any] = {
    "url": "http://localhost/d/" + "A" * 22,
    "owner_url": "http://localhost" + RECEIPT,
    "id": "0" * 32,
    "expires_at": "2999-01-01T00:00:00Z",
    "size": len(BODY),
    "sha256": hashlib.sha256(BODY).hexdigest(),
    "max_downloads": 1,
}


@pytest.mark.parametrize(
    "lie",
    [
        {"url": "javascript:alert(1)"},
        {"url": "http://localhost/d/\x1b[2J"},
        {"url": None},
        {"owner_url": ["http://localhost"]},
        {"expires_at": "soon"},
        {"size": "1"},
        {"max_downloads": True},
        {"id": "../x"},
    ],
    ids=str,
)
def test_an_upload_without_a_usable_answer_is_a_failure(
    liar: Liar, oncedrop: CommandLine, lie: dict[str, Any]
) -> None:
    liar.answers["PUT /stdin"] = (201, {}, json.dumps(UPLOADED | lie).encode())

    sent = oncedrop("send", "-", stdin=BODY)

    assert (sent.code, sent.out) == (6, b"")
    assert "\x1b" not in sent.err


def test_an_upload_that_arrived_altered_is_deleted_again(liar: Liar, oncedrop: CommandLine) -> None:
    answer = UPLOADED | {"sha256": "0" * 64, "owner_url": liar.url + RECEIPT}
    liar.answers["PUT /stdin"] = (201, {}, json.dumps(answer).encode())
    liar.answers[f"DELETE {RECEIPT}"] = (200, {}, b"{}")

    sent = oncedrop("send", "-", stdin=BODY)

    assert (sent.code, sent.out) == (7, b"")
    assert "the drop was deleted" in sent.err
    assert liar.asked == ["PUT /stdin", f"DELETE {RECEIPT}"]


def test_no_other_server_is_asked_to_delete(liar: Liar, oncedrop: CommandLine) -> None:
    other = Liar()
    try:
        answer = UPLOADED | {"sha256": "0" * 64, "owner_url": other.url + RECEIPT}
        liar.answers["PUT /stdin"] = (201, {}, json.dumps(answer).encode())
        sent = oncedrop("send", "-", stdin=BODY)
    finally:
        other.close()

    assert sent.code == 7
    assert other.asked == []


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "now", 5, None])
def test_a_receipt_with_a_strange_time_is_told_all_the_same(
    liar: Liar, oncedrop: CommandLine, moment: object
) -> None:
    document = {
        "state": "waiting", "name": f"a{ESCAPES}", "size": -1, "expires_at": moment,
        "max_downloads": "many",
    }  # fmt: skip
    liar.answers[f"GET {RECEIPT}"] = (200, {}, json.dumps(document).encode())

    told = oncedrop("status", liar.url + RECEIPT)

    assert told.code == 0
    assert b"\x1b" not in told.out
    assert "Waiting" in told.out.decode()


@pytest.mark.parametrize("document", [[], {}, {"state": "asleep"}, {"state": ["gone"]}])
def test_what_is_no_receipt_is_said_so(liar: Liar, oncedrop: CommandLine, document: object) -> None:
    liar.answers[f"GET {RECEIPT}"] = (200, {}, json.dumps(document).encode())

    told = oncedrop("status", liar.url + RECEIPT)

    assert (told.code, told.out) == (6, b"")


def test_a_planted_resume_file_leads_nowhere_else(
    liar: Liar, oncedrop: CommandLine, tmp_path: Path
) -> None:
    """Whoever can write to the folder cannot send the client, or its bytes, elsewhere."""
    liar.answers[f"GET {CLAIM}"] = (500, {}, b"")
    assert oncedrop("get", liar.url + LINK, "--give-up-after", "0").code == 6
    [noted] = oncedrop.folder.glob(".oncedrop-*")
    document = json.loads(noted.read_text())
    other = Liar()
    try:
        for lie in (
            {"claim_url": other.url + CLAIM},
            {"offer": {"name": "../../evil", "size": len(BODY), "sha256": "0" * 64}},
            {"offer": {"name": "a", "size": -1, "sha256": "0" * 64}},
            {"more": 1},
            {"version": 2},
        ):
            noted.write_text(json.dumps(document | lie))
            liar.answers[f"GET {CLAIM}"] = (200, liar.file_headers(), BODY)
            got = oncedrop("get", liar.url + LINK, "--force")
            assert got.code == 0, got.err
            assert (oncedrop.folder / "report.pdf").read_bytes() == BODY
    finally:
        other.close()

    assert other.asked == []
    assert all_files(tmp_path) == ["here/report.pdf"]
