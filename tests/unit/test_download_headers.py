"""Headers of a file response are safe for every name, and the claim comes back by each of them."""

from __future__ import annotations

import base64
import hashlib
import re
from email.message import EmailMessage
from http.cookies import SimpleCookie
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncedrop_common import tokens
from oncedrop_common.drops import DropMeta
from oncedrop_common.errors import LinkUnknown
from oncedrop_common.file_names import clean_name
from oncedrop_deliver.download_headers import (
    CLAIM_COOKIE,
    claim_cookie,
    claim_headers,
    claim_path,
    content_disposition,
    file_headers,
    parse_claim,
)
from oncedrop_deliver.ranges import Slice, Whole

BODY = b"once"
TOKEN = tokens.mint()
DROP_ID = tokens.drop_id(TOKEN)
CLAIM = tokens.mint()

# RFC 6266 section 4.1 with RFC 8187's attr-char; no escapes in our quoted strings.
_GRAMMAR = re.compile(
    r'attachment; filename="([ !#-\[\]-~]+)"; '
    r"filename\*=UTF-8''((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+)"
)
any_text = st.text(st.characters(exclude_categories=()), max_size=300)


def meta(name: str = "report.pdf", content_type: str = "application/pdf") -> DropMeta:
    return DropMeta(
        name=name,
        content_type=content_type,
        size=len(BODY),
        sha256=hashlib.sha256(BODY).hexdigest(),
        created_ms=0,
        expires_ms=1,
        owner_hash="",
    )


def both_names(name: str) -> tuple[str, str]:
    """The fallback and the decoded full name."""
    found = _GRAMMAR.fullmatch(content_disposition(name))
    assert found is not None, content_disposition(name)
    return found[1], unquote(found[2], errors="strict")


@pytest.mark.parametrize(
    ("name", "fallback", "full"),
    [
        ("report.pdf", "report.pdf", "report.pdf"),
        ("café menü.txt", "cafe menu.txt", "café menü.txt"),
        ("отчёт.pdf", "_.pdf", "отчёт.pdf"),
        ("🎉party🎉.gif", "_party_.gif", "🎉party🎉.gif"),
        ('say "hi".txt', "say _hi_.txt", "say _hi_.txt"),
        ("a\\b.txt", "b.txt", "b.txt"),
        ("../../etc/passwd", "passwd", "passwd"),
        ("a\r\nSet-Cookie: x=1\0.txt", "aSet-Cookie_ x=1.txt", "aSet-Cookie_ x=1.txt"),
        ("\u202egnp.exe", "gnp.exe", "gnp.exe"),
        ("100%.txt", "100%.txt", "100%.txt"),
        ("%41%0d%0a.txt", "_41_0d_0a.txt", "%41%0d%0a.txt"),
        ("semi;colon=1, x.txt", "semi;colon=1, x.txt", "semi;colon=1, x.txt"),
        ("it's.txt", "it's.txt", "it's.txt"),
        ("\udc80bad.txt", "_bad.txt", "\ufffdbad.txt"),
        ("\u226ec.txt", "_c.txt", "\u226ec.txt"),
        ("", "file", "file"),
        ("...", "file", "file"),
    ],
)
def test_content_disposition_carries_both_names(name: str, fallback: str, full: str) -> None:
    assert both_names(name) == (fallback, full)


@given(any_text)
@example("x" * 400 + ".tar.gz")
@example("\uff02\uff0f\uff3c.txt")
def test_content_disposition_is_safe_for_every_name(name: str) -> None:
    fallback, full = both_names(name)
    assert full == clean_name(name)
    assert fallback == clean_name(fallback)
    assert not re.search(r'["\\/]|%[0-9A-Fa-f]{2}', fallback)


@given(any_text)
def test_a_standard_parser_reads_the_full_name(name: str) -> None:
    message = EmailMessage()
    message["Content-Disposition"] = content_disposition(name)
    assert message.get_content_disposition() == "attachment"
    _, full = both_names(name)
    value = content_disposition(name).partition("filename*=")[2]
    charset, language, encoded = value.split("'", 2)
    assert (charset, language, unquote(encoded)) == ("UTF-8", "", full)


def test_a_whole_file_has_its_length_and_digest() -> None:
    got = file_headers(meta(), Whole())
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    assert got == {
        "Content-Disposition": content_disposition("report.pdf"),
        "Content-Type": "application/pdf",
        "Content-Length": "4",
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "X-Accel-Buffering": "no",
    }


def test_a_part_has_its_own_length_and_the_digest_of_the_whole() -> None:
    whole, part = file_headers(meta(), Whole()), file_headers(meta(), Slice(1, 3))
    assert part["Content-Range"] == "bytes 1-2/4"
    assert part["Content-Length"] == "2"
    assert part["Repr-Digest"] == whole["Repr-Digest"]
    assert "Content-Range" not in whole


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("text/html", "text/html"),
        ("text/plain; charset=UTF-8", "text/plain; charset=utf-8"),
        ("", "application/octet-stream"),
        ("text/html\r\nX-Evil: 1", "application/octet-stream"),
        ("multipart/byteranges; boundary=x", "application/octet-stream"),
    ],
)
def test_a_stored_content_type_is_checked_again(stored: str, sent: str) -> None:
    assert file_headers(meta(content_type=stored), Whole())["Content-Type"] == sent


@given(name=any_text, content_type=any_text)
def test_no_stored_text_gets_out_of_its_header(name: str, content_type: str) -> None:
    for value in file_headers(meta(name, content_type), Whole()).values():
        assert re.fullmatch(r"[ -~]+", value)


def test_the_claim_is_named_in_etag_and_content_location() -> None:
    url = "https://drops.example" + claim_path(DROP_ID, CLAIM, "a b.txt")
    assert claim_headers(CLAIM, url) == {"ETag": f'"{CLAIM}"', "Content-Location": url}


def test_the_cookie_goes_back_to_its_link_only() -> None:
    value = claim_cookie(CLAIM, token=TOKEN, lease_seconds=600, secure=False)
    assert value == (
        f"oncedrop_claim={CLAIM}; Max-Age=600; Path=/d/{TOKEN}; HttpOnly; SameSite=Strict"
    )
    assert claim_cookie(CLAIM, token=TOKEN, lease_seconds=600, secure=True) == value + "; Secure"


def test_the_cookie_is_read_back_by_its_name() -> None:
    jar = SimpleCookie(claim_cookie(CLAIM, token=TOKEN, lease_seconds=1, secure=True))
    assert jar[CLAIM_COOKIE].value == CLAIM
    assert jar[CLAIM_COOKIE]["path"] == f"/d/{TOKEN}"


def test_a_lapsed_lease_makes_a_cookie_that_is_dropped_at_once() -> None:
    assert "Max-Age=0;" in claim_cookie(CLAIM, token=TOKEN, lease_seconds=-5, secure=False)


@given(any_text)
@example("..")
@example("%2e%2e")
@example("a/b?c#d")
def test_the_claim_url_is_one_plain_path_and_comes_back(name: str) -> None:
    empty, c, segment, shown = claim_path(DROP_ID, CLAIM, name).split("/")
    assert (empty, c) == ("", "c")
    assert parse_claim(segment) == (DROP_ID, CLAIM)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+", shown)
    assert unquote(shown) == clean_name(name)
    assert shown not in (".", "..")


@pytest.mark.parametrize(
    "segment",
    [
        "",
        ".",
        DROP_ID,
        CLAIM,
        f"{DROP_ID}.",
        f".{CLAIM}",
        f"{DROP_ID}{CLAIM}",
        f"{DROP_ID}.{CLAIM}.",
        f"{DROP_ID}.{CLAIM}\n",
        f"{DROP_ID}.{CLAIM[:-1]}",
        f"{DROP_ID.upper()}G.{CLAIM}",
        f"{DROP_ID[:-1]}.{CLAIM}",
        f"{CLAIM}.{DROP_ID}",
    ],
)
def test_another_form_of_claim_is_an_unknown_link(segment: str) -> None:
    with pytest.raises(LinkUnknown) as caught:
        parse_claim(segment)
    assert CLAIM not in str(caught.value)
