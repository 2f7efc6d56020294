"""Ingest as a process of its own, with a real Redis: uploads, receipts, and uploads gone wrong."""

import contextlib
import hashlib
import io
import json
import random
import re
import resource
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.volume import Volume
from support.ingest_support import (
    left_behind,
    read_blob,
    records,
    second_database,
    stored_bytes,
    uploading,
    wait_until_clean,
)
from support.services import BROWSER, Service, files_in, running
from support.valkey import admin, running_redis
from support.waiting import wait_until

LIMIT = 3 * 2**20
BLOCK = 2**20
SECRET = "the-upload-token"


@pytest.fixture(scope="module")
def module_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this module's volume."""
    path = tmp_path_factory.mktemp("ingest") / "volume"
    Volume(path).make_root()
    return path


@pytest.fixture(scope="module")
def process(
    module_redis_url: str, module_volume: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The module's ingest; tests want ingest."""
    log = tmp_path_factory.mktemp("logs") / "ingest.log"
    with running("ingest", module_redis_url, module_volume, log, max_file_bytes=LIMIT) as service:
        yield service


@pytest.fixture
def ingest(process: Service, redis_url: str, module_volume: Path) -> Service:
    """A running ingest whose Redis and volume are empty."""
    del redis_url
    for path in files_in(module_volume):
        path.unlink()
    return process


@pytest.fixture
def volume_dir(tmp_path: Path) -> Path:
    """The folder of a volume for a process with settings of its own."""
    path = tmp_path / "volume"
    Volume(path).make_root()
    return path


@pytest.fixture
def own_redis_url(redis_url: str) -> str:
    """An empty store that the module's process has no part in, for a volume of one's own."""
    return second_database(redis_url)


def own_receipt(ingest: Service, document: dict[str, Any]) -> str:
    """The receipt's address at this process, whose port is the one in the link."""
    owner_url: str = document["owner_url"]
    assert owner_url.startswith(f"http://127.0.0.1:{ingest.port}/o/{document['id']}.")
    return owner_url


def put_json(ingest: Service, content: bytes = b"once", **headers: str) -> dict[str, Any]:
    answer = httpx.put(
        f"{ingest.url}/x.bin", content=content, headers={"Accept": "application/json", **headers}
    )
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def logged_of(ingest: Service, drop_id: str) -> dict[str, dict[str, Any]]:
    """What was logged of a drop, by event."""
    lines = [json.loads(line) for line in ingest.logged().splitlines()]
    return {line["event"]: line for line in lines if line.get("drop_id") == drop_id}


# Uploads that go well.


@pytest.mark.parametrize("size", [0, 1, 65_536, BLOCK - 1, BLOCK, 2 * BLOCK + 77])
def test_put_stores_the_body_and_answers_with_the_bare_link(
    ingest: Service, module_volume: Path, redis_url: str, size: int
) -> None:
    content = random.Random(size).randbytes(size)
    answer = httpx.put(f"{ingest.url}/sub/report.pdf", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (
        201,
        "text/plain; charset=utf-8",
    )
    link = answer.text.removesuffix("\n")
    assert link == answer.headers["location"]
    assert link.startswith("http://127.0.0.1:8002/d/")
    drop = drop_id_of(link.rpartition("/")[2])
    header, body = read_blob(module_volume, drop)
    assert body == content
    assert (header.meta.name, header.meta.content_type) == ("report.pdf", "application/pdf")
    assert header.body_offset == 4096
    assert records(redis_url) == {drop: "ready"}
    assert stored_bytes(redis_url) == files_in(module_volume)[0].stat().st_size
    assert answer.headers["cache-control"] == "no-store, no-transform"


def test_put_to_the_root_and_without_a_length_works(ingest: Service, module_volume: Path) -> None:
    content = random.Random(1).randbytes(2 * BLOCK + 5)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    answer = httpx.put(f"{ingest.url}/", content=chunks(), headers={"Accept": "application/json"})
    document = answer.json()
    assert read_blob(module_volume, document["id"])[1] == content
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    assert (document["size"], document["max_downloads"]) == (len(content), 1)
    assert document["expires_at"].endswith("Z")
    assert set(document) == {
        "url", "owner_url", "id", "expires_at", "size", "sha256", "max_downloads",
    }  # fmt: skip


def test_a_form_with_one_file_stores_it_as_it_is(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    content = random.Random(2).randbytes(2 * BLOCK + 5)
    answer = httpx.post(
        f"{ingest.url}/upload",
        files={"file": ("cv.pdf", content, "application/pdf")},
        data={"ttl": "2h", "max_downloads": "3", "if_interrupted": "restore", "password": "pä"},
    )
    assert answer.status_code == 201
    document = answer.json()
    assert answer.headers["location"] == document["url"]
    header, body = read_blob(module_volume, document["id"])
    meta = header.meta
    assert (body, header.body_offset) == (content, 8192)
    assert (meta.name, meta.content_type, meta.max_downloads) == ("cv.pdf", "application/pdf", 3)
    assert meta.expires_ms - meta.created_ms == 7_200_000
    assert meta.if_interrupted == "restore"
    assert meta.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert stored_bytes(redis_url) == files_in(module_volume)[0].stat().st_size


def test_a_form_with_an_empty_file_makes_a_sound_blob(ingest: Service, module_volume: Path) -> None:
    answer = httpx.post(f"{ingest.url}/upload", files={"file": ("empty", b"")})
    assert read_blob(module_volume, answer.json()["id"])[1] == b""
    Volume(module_volume).open_blob(DropId(answer.json()["id"])).close()


def test_several_files_become_one_zip(ingest: Service, module_volume: Path) -> None:
    contents = [random.Random(n).randbytes(n * 400_000 + 3) for n in range(4)]
    files = [("file", (f"photos/{n % 2}.jpg", body)) for n, body in enumerate(contents)]
    answer = httpx.post(f"{ingest.url}/upload", files=files)
    assert answer.status_code == 201
    header, body = read_blob(module_volume, answer.json()["id"])
    assert header.meta.name == "photos.zip"
    assert header.body_offset < 8192
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "photos/0.jpg", "photos/1.jpg", "photos/0 (2).jpg", "photos/1 (2).jpg",
        ]  # fmt: skip
        assert [archive.read(info) for info in archive.infolist()] == contents


def test_the_answer_suits_who_asks(ingest: Service) -> None:
    files = {"file": ("<script>.txt", b"x")}
    page = httpx.post(f"{ingest.url}/upload", files=files, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (201, "text/html; charset=utf-8")
    assert page.headers["location"] in page.text
    assert "/o/" in page.text
    assert "<script>" not in page.text
    text = httpx.post(f"{ingest.url}/upload", files=files, headers={"Accept": "text/plain"})
    assert text.text == text.headers["location"] + "\n"


def test_the_form_page_says_the_limits_and_works_without_scripts(ingest: Service) -> None:
    page = httpx.get(f"{ingest.url}/", headers=BROWSER)
    assert page.status_code == 200
    assert 'action="/upload" enctype="multipart/form-data"' in page.text
    assert "3.1 MB" in page.text
    assert len(re.findall("<script", page.text)) == len(
        re.findall(r'<script type="module" src="/static/\w+\.js"></script>', page.text)
    )
    for name in ("ttl", "max_downloads", "password", "if_interrupted", "resume", "confirm"):
        assert f'name="{name}"' in page.text
    assert "upload_token" not in page.text


def test_options_come_as_headers_and_query_too(ingest: Service, module_volume: Path) -> None:
    answer = httpx.put(
        f"{ingest.url}/x?ttl=90s",
        content=b"x",
        headers={"Accept": "application/json", "Oncedrop-Max-Downloads": "2"},
    )
    meta = read_blob(module_volume, answer.json()["id"])[0].meta
    assert (meta.max_downloads, meta.expires_ms - meta.created_ms) == (2, 90_000)


def test_nothing_but_put_finds_a_page_at_a_files_name(ingest: Service) -> None:
    assert httpx.get(f"{ingest.url}/report.pdf").status_code == 404
    assert httpx.post(f"{ingest.url}/report.pdf").status_code == 404
    assert httpx.get(f"{ingest.url}/upload").status_code == 405
    assert "Disallow: /" in httpx.get(f"{ingest.url}/robots.txt").text


def test_a_path_with_several_routes_allows_what_all_of_them_take(ingest: Service) -> None:
    for path, allowed in (("/", "GET, HEAD, PUT"), ("/o/x", "DELETE, GET, HEAD, POST")):
        answer = httpx.options(f"{ingest.url}{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("o/x.y", 405),
        ("o/x.y/events", 405),
        ("static/oncedrop.css", 405),
        ("d/x", 404),
        ("c/x.y", 404),
    ],
)
def test_a_file_put_to_a_links_path_is_refused_for_its_name_would_be_a_secret(
    ingest: Service, module_volume: Path, path: str, status: int
) -> None:
    assert httpx.put(f"{ingest.url}/{path}", content=b"x").status_code == status
    assert files_in(module_volume) == []


# Names.


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..%2f..%2fetc%2fpasswd", "passwd"),
        ("a%00b.txt", "ab.txt"),
        ("a%0d%0aSet-Cookie:%20x", "aSet-Cookie_ x"),
        ("say%20%22hi%22.txt", "say _hi_.txt"),
        ("%C3%A9" * 300 + ".txt", "é" * 125 + ".txt"),
        ("%F0%9F%93%84.txt", "📄.txt"),
        ("%E2%80%AEtxt.exe", "txt.exe"),
        ("%FF.txt", "\N{REPLACEMENT CHARACTER}.txt"),
        ("", "file"),
        ("..", "file"),
        ("upload", "upload"),
    ],
)
def test_a_name_is_made_harmless_and_never_a_path(
    ingest: Service, module_volume: Path, path: str, name: str
) -> None:
    with uploading(
        ingest.port,
        f"PUT /{path} HTTP/1.1\nHost: localhost\nContent-Length: 1\nAccept: application/json",
    ) as client:
        client.send(b"x")
        status, answer = client.answer()
    assert status == 201, answer
    (blob,) = files_in(module_volume)
    assert read_blob(module_volume, blob.name)[0].meta.name == name


# Bodies that are not as announced.


def test_a_body_shorter_than_announced_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    with uploading(
        ingest.port, f"PUT /x HTTP/1.1\nHost: localhost\nContent-Length: {2 * BLOCK}"
    ) as client:
        client.send(b"x" * (BLOCK + 10))
        wait_until(lambda: files_in(module_volume), 10, what="the part")
    wait_until_clean(module_volume, redis_url)
    assert set(records(redis_url).values()) == {"gone"}


def test_a_body_longer_than_announced_is_cut_there_or_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    def ended() -> int:
        return len(re.findall(r"upload_(?:failed|committed)", ingest.logged()))

    before = ended()
    with uploading(ingest.port, "PUT /x HTTP/1.1\nHost: localhost\nContent-Length: 4") as client:
        client.send(b"oncemore")
        client.answer()
    # The server's own 400 does not wait for what the upload still has to remove.
    wait_until(lambda: ended() > before, 10, what="the upload's end")
    for path in files_in(module_volume):
        assert read_blob(module_volume, path.name)[1] == b"once"
    assert set(records(redis_url).values()) <= {"ready", "gone"}


def test_a_client_that_leaves_while_sending_chunks_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    head = "PUT /x HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
    with uploading(ingest.port, head) as client:
        client.chunk(b"x" * BLOCK)
        wait_until(lambda: files_in(module_volume), 10, what="the part")
    wait_until_clean(module_volume, redis_url)


def test_too_large_a_length_is_refused_before_the_first_byte(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    with uploading(
        ingest.port,
        f"PUT /x HTTP/1.1\nHost: localhost\nContent-Length: {LIMIT + 1}\nExpect: 100-continue",
    ) as client:
        status, answer = client.answer()
    assert status == 413
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer
    assert records(redis_url) == {}
    assert not left_behind(module_volume, redis_url)


def test_exactly_the_limit_is_taken(ingest: Service, module_volume: Path) -> None:
    document = put_json(ingest, b"x" * LIMIT)
    assert read_blob(module_volume, document["id"])[0].meta.size == LIMIT


def test_chunks_over_the_limit_are_refused_while_streaming(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    """The client goes on sending after the answer and still gets to read it."""
    head = "PUT /x HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
    with uploading(ingest.port, head) as client:
        for _ in range(LIMIT // BLOCK + 10):
            client.chunk(b"x" * BLOCK)
        status, answer = client.answer()
    assert status == 413
    assert b"upload_too_large" in answer
    assert not left_behind(module_volume, redis_url)


def test_a_form_over_the_limit_is_refused(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    for size in (LIMIT + 1, LIMIT + 2 * BLOCK):
        answer = httpx.post(f"{ingest.url}/upload", files={"file": ("x", b"x" * size)})
        assert (answer.status_code, answer.json()["limit"]) == (413, LIMIT)
        assert not left_behind(module_volume, redis_url)


# Forms and options that are not as they must be.


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        ("text/plain", b"x", "Content-Type"),
        ("multipart/form-data", b"x", "Content-Type"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "file"),
        ("multipart/form-data; boundary=b", b"nothing of the kind", None),
    ],
)
def test_a_bad_form_is_told_what_is_wrong(
    ingest: Service, content_type: str, body: bytes, field: str | None
) -> None:
    answer = httpx.post(
        f"{ingest.url}/upload", content=body, headers={"Content-Type": content_type}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field


def test_a_form_without_its_last_boundary_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * (
        BLOCK + 5
    )
    answer = httpx.post(
        f"{ingest.url}/upload",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert (answer.status_code, answer.json()["type"]) == (
        400,
        "urn:oncedrop:problem:upload_incomplete",
    )
    assert not left_behind(module_volume, redis_url)


def test_ten_thousand_parts_are_refused_and_leave_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    files = [("file", (f"{n}", b"x")) for n in range(10_000)]
    answer = httpx.post(f"{ingest.url}/upload", files=files, timeout=60)
    assert answer.status_code == 400
    assert not left_behind(module_volume, redis_url)


@pytest.mark.parametrize(
    ("query", "field"),
    [("ttl=tomorrow", "ttl"), ("ttl=1h&ttl=1h", "ttl"), ("max_downloads=0", "max_downloads"),
     ("max_downloads=x", "max_downloads"), ("resume=2", "resume"), ("confirm=no", "confirm"),
     ("if_interrupted=explode", "if_interrupted"), ("pasword=x", "pasword"),
     ("password=", "password")],
)  # fmt: skip
def test_a_bad_option_is_named_before_anything_is_stored(
    ingest: Service, redis_url: str, query: str, field: str
) -> None:
    for answer in (
        httpx.put(f"{ingest.url}/x?{query}", content=b"x"),
        httpx.post(f"{ingest.url}/upload?{query}", files={"file": b"x"}),
    ):
        assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert records(redis_url) == {}


def test_a_bad_option_after_the_file_leaves_nothing(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    # httpx sends fields first; the list of files is in the order given.
    parts: Any = [("file", ("x", b"x")), ("ttl", (None, b"1h")), ("ttl", (None, b"2h"))]
    answer = httpx.post(f"{ingest.url}/upload", files=parts)
    assert (answer.status_code, answer.json()["field"]) == (400, "ttl")
    assert not left_behind(module_volume, redis_url)


def test_a_partial_put_is_refused(ingest: Service) -> None:
    answer = httpx.put(f"{ingest.url}/x", content=b"x", headers={"Content-Range": "bytes 5-5/6"})
    assert (answer.status_code, answer.json()["field"]) == (400, "Content-Range")


@pytest.mark.parametrize("host", ["evil.example/x", "a b", "<script>", "a@b", "", "x:99999999"])
def test_a_hostile_host_never_gets_into_a_link(ingest: Service, host: str) -> None:
    with uploading(ingest.port, f"PUT /x HTTP/1.1\nHost: {host}\nContent-Length: 1") as client:
        client.send(b"x")
        assert client.answer()[0] == 400


# Receipts.


def test_a_receipt_tells_the_state_and_deletes_early(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    document = put_json(ingest)
    receipt = own_receipt(ingest, document)
    told = httpx.get(receipt).json()
    assert (told["state"], told["size"], told["name"]) == ("waiting", 4, "x.bin")
    page = httpx.get(receipt, headers=BROWSER)
    assert "Delete it now" in page.text
    done = httpx.delete(receipt)
    assert done.json() == {
        "state": "gone",
        "reason": "deleted",
        "file_deleted": True,
        "bytes": 4100,
    }
    assert not left_behind(module_volume, redis_url)
    again = httpx.delete(receipt).json()
    assert again == {"state": "gone", "reason": "deleted", "file_deleted": False, "bytes": 0}
    told = httpx.get(receipt).json()
    assert (told["state"], told["reason"]) == ("gone", "deleted")
    assert told["gone_at"]


def test_the_pages_button_deletes(ingest: Service, module_volume: Path) -> None:
    receipt = own_receipt(ingest, put_json(ingest))
    page = httpx.post(receipt, headers=BROWSER)
    assert "It was deleted" in page.text
    assert files_in(module_volume) == []
    assert "It was deleted" in httpx.get(receipt, headers=BROWSER).text


def test_wrong_and_unknown_keys_get_the_same_words(ingest: Service, module_volume: Path) -> None:
    document = put_json(ingest)
    right = own_receipt(ingest, document)
    other = own_receipt(ingest, put_json(ingest))
    key = other.rpartition(".")[2]
    base = f"{ingest.url}/o"
    paths = [
        f"{base}/{document['id']}.{key}",
        f"{base}/{'0' * 32}.{key}",
        f"{base}/{document['id']}.",
        f"{base}/{document['id']}",
        f"{base}/{document['id'].upper()}.{right.rpartition('.')[2]}",
        f"{base}/.{key}",
        right[:-1],
    ]
    answers = [httpx.request(m, p) for p in paths for m in ("GET", "DELETE", "POST")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert len(files_in(module_volume)) == 2


@pytest.mark.parametrize("claimed", [False, True])
def test_delete_works_for_a_drop_that_redis_forgot(
    ingest: Service, module_volume: Path, redis_url: str, *, claimed: bool
) -> None:
    document = put_json(ingest)
    receipt = own_receipt(ingest, document)
    if claimed:
        Volume(module_volume).take(DropId(document["id"]), ClaimHash("a" * 32))
    with admin(redis_url) as client:
        client.flushall()
    other = own_receipt(ingest, put_json(ingest)).rpartition(".")[2]
    wrong = f"{ingest.url}/o/{document['id']}.{other}"
    assert httpx.delete(wrong).status_code == 404
    assert httpx.delete(receipt).json()["file_deleted"] is True
    assert len(files_in(module_volume)) == 1
    assert httpx.get(receipt).json()["reason"] == "deleted"


# What is missing, full or secret.


def test_redis_stopped_in_an_upload_gives_503_and_leaves_no_file(
    volume_dir: Path, tmp_path: Path
) -> None:
    """Invariant 9: nothing half done stays, and once Redis is back all works without a restart."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(contextlib.ExitStack())
        url = redis.enter_context(running_redis(None))
        ingest = stack.enter_context(running("ingest", url, volume_dir, tmp_path / "log"))
        head = f"PUT /x HTTP/1.1\nHost: localhost\nContent-Length: {3 * BLOCK}"
        with uploading(ingest.port, head) as client:
            client.send(b"x" * BLOCK)
            wait_until(lambda: files_in(volume_dir), 10, what="the part")
            redis.close()
            client.send(b"x" * 2 * BLOCK)
            status, answer = client.answer()
        assert status == 503
        assert b"retry-after" in answer
        assert files_in(volume_dir) == []
        answer_now = httpx.put(f"{ingest.url}/x", content=b"x", timeout=30)
        assert answer_now.status_code == 503


def test_over_the_quota_is_507_and_given_back(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    quota = 2 * BLOCK
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", max_stored_bytes=quota
    ) as ingest:
        first = put_json(ingest, b"x" * BLOCK)
        for content in (b"x" * BLOCK, iter([b"x" * BLOCK, b"x" * BLOCK])):
            answer = httpx.put(f"{ingest.url}/x", content=content)
            assert answer.status_code == 507
        many = {"file": ("x", b"x" * (2 * BLOCK))}
        assert httpx.post(f"{ingest.url}/upload", files=many).status_code == 507
        assert stored_bytes(own_redis_url) == BLOCK + 4096
        assert httpx.put(f"{ingest.url}/x", content=iter([b"fits"])).status_code == 201
        httpx.delete(own_receipt(ingest, first))
        assert httpx.put(f"{ingest.url}/x", content=b"x" * BLOCK).status_code == 201


def test_space_that_must_stay_free_stays_free(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", min_free_bytes="1000TiB"
    ) as ingest:
        for content in (b"x", iter([b"x"])):
            assert httpx.put(f"{ingest.url}/x", content=content).status_code == 507
        assert not left_behind(volume_dir, own_redis_url)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_disk_that_fills_up_while_writing_is_507_and_leaves_nothing(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: the write fails just as late."""
    with running("ingest", own_redis_url, volume_dir, tmp_path / "log") as ingest:
        most = BLOCK + BLOCK // 2
        resource.prlimit(ingest.process.pid, resource.RLIMIT_FSIZE, (most, most))
        content = b"x" * (3 * BLOCK)
        for answer in (
            httpx.put(f"{ingest.url}/x", content=content),
            httpx.post(f"{ingest.url}/upload", files={"file": content}),
        ):
            assert answer.status_code == 507
            assert not left_behind(volume_dir, own_redis_url)
        assert httpx.put(f"{ingest.url}/x", content=b"x").status_code == 201


def test_nothing_is_told_as_deleted_on_a_volume_that_is_not_there(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running("ingest", own_redis_url, volume_dir, tmp_path / "log") as ingest:
        receipt = own_receipt(ingest, put_json(ingest))
        away = volume_dir.rename(tmp_path / "away")
        assert httpx.delete(receipt).status_code == 503
        volume_dir.mkdir()
        assert httpx.delete(receipt).status_code == 503
        assert httpx.put(f"{ingest.url}/x", content=b"x").status_code == 503
        volume_dir.rmdir()
        away.rename(volume_dir)
        assert httpx.delete(receipt).json()["file_deleted"] is True


def test_the_upload_token_is_asked_for_in_every_way(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", upload_token=SECRET
    ) as ingest:
        right, wrong = f"Bearer {SECRET}", f"Bearer {SECRET[:-1]}"
        for given, status in (
            (None, 401), (wrong, 401), ("Bearer", 401), (f"Basic {SECRET}", 401), (right, 201),
        ):  # fmt: skip
            headers = {} if given is None else {"Authorization": given}
            put = httpx.put(f"{ingest.url}/x", content=b"x", headers=headers)
            post = httpx.post(f"{ingest.url}/upload", files={"file": b"x"}, headers=headers)
            assert (put.status_code, post.status_code) == (status, status)
            if status == 401:
                assert put.headers["www-authenticate"].startswith("Bearer")
        upload = f"{ingest.url}/upload"
        form = {"files": {"file": ("x", b"x")}}
        assert httpx.post(upload, data={"upload_token": "no"}, **form).status_code == 401  # type: ignore[arg-type]
        assert httpx.post(upload, data={"upload_token": SECRET}, **form).status_code == 201  # type: ignore[arg-type]
        page = httpx.get(ingest.url).text
        assert page.index('name="upload_token"') < page.index('name="file"')
        assert SECRET not in ingest.logged()
        assert len(files_in(volume_dir)) == 3


def test_links_are_made_of_the_public_url(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", public_url="https://drop.example"
    ) as ingest:
        document = put_json(ingest, Host="evil.example")
        assert document["url"].startswith("https://drop.example/d/")
        assert document["owner_url"].startswith("https://drop.example/o/")


def test_a_silent_client_is_given_up(own_redis_url: str, volume_dir: Path, tmp_path: Path) -> None:
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", upload_lease_seconds=1
    ) as ingest:
        head = "PUT /x HTTP/1.1\nHost: localhost\nContent-Length: 10"
        with uploading(ingest.port, head) as client:
            client.send(b"x")
            status, answer = client.answer()
        assert status == 400
        assert b"upload_incomplete" in answer
        assert not left_behind(volume_dir, own_redis_url)


def test_an_upload_in_progress_is_cleaned_up_when_the_server_stops(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running("ingest", own_redis_url, volume_dir, tmp_path / "log") as ingest:
        head = f"PUT /x HTTP/1.1\nHost: localhost\nContent-Length: {3 * BLOCK}"
        with uploading(ingest.port, head) as client:
            client.send(b"x" * BLOCK)
            wait_until(lambda: files_in(volume_dir), 10, what="the part")
            assert ingest.stop() == 0
        assert not left_behind(volume_dir, own_redis_url)


def test_a_slow_upload_outlives_its_lease_while_bytes_flow(
    own_redis_url: str, volume_dir: Path, tmp_path: Path
) -> None:
    with running(
        "ingest", own_redis_url, volume_dir, tmp_path / "log", upload_lease_seconds=3
    ) as ingest:
        head = "PUT /x HTTP/1.1\nHost: localhost\nContent-Length: 10\nAccept: application/json"
        with uploading(ingest.port, head) as client:
            for _ in range(10):
                client.send(b"x")
                time.sleep(0.4)
            assert client.answer()[0] == 201


def test_a_deleted_record_ends_its_upload(
    ingest: Service, module_volume: Path, redis_url: str
) -> None:
    head = "PUT /x HTTP/1.1\nHost: localhost\nContent-Length: 5"
    with uploading(ingest.port, head) as client:
        client.send(b"once")
        wait_until(lambda: records(redis_url), 10, what="the record")
        (drop,) = records(redis_url)
        with admin(redis_url) as client_of_redis:
            client_of_redis.hset(f"oncedrop:drop:{drop}", "state", "gone")
            client_of_redis.hset(f"oncedrop:drop:{drop}", "reason", "abandoned")
        client.send(b"!")
        assert client.answer()[0] == 503
    wait_until_clean(module_volume, redis_url)


def test_many_uploads_at_once_do_not_mix(ingest: Service, module_volume: Path) -> None:
    contents = [random.Random(n).randbytes(BLOCK + n) for n in range(8)]
    ids: list[str] = [""] * len(contents)

    def upload(n: int) -> None:
        ids[n] = put_json(ingest, contents[n])["id"]

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [read_blob(module_volume, drop)[1] for drop in ids] == contents


def test_logs_and_metrics_tell_what_happened_and_no_secret(ingest: Service) -> None:
    document = put_json(ingest, b"once", **{"Oncedrop-Password": "hunter2hunter2"})
    wait_until(
        lambda: "request_finished" in logged_of(ingest, document["id"]),
        5,
        what="the request's line",
    )
    lines = logged_of(ingest, document["id"])
    assert list(lines) == ["upload_opened", "upload_committed", "request_finished"]
    assert lines["upload_committed"]["bytes"] == 4
    logged = ingest.logged()
    secrets = [document["url"].rpartition("/")[2], document["owner_url"].rpartition(".")[2]]
    for secret in [*secrets, "hunter2hunter2", "x.bin"]:
        assert secret not in logged
    metrics = httpx.get(f"{ingest.url}/metrics").text
    for arrow, result in (("open_upload", "opened"), ("commit", "committed")):
        assert f'oncedrop_arrows_total{{arrow="{arrow}",result="{result}"}}' in metrics
    assert "oncedrop_received_bytes_total" in metrics
