"""The command line's pure parts: names, addresses, texts, what a receipt says, patience."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncedrop_cli import patience
from oncedrop_cli.display import Display
from oncedrop_cli.failures import (
    ChecksumWrong,
    DropGone,
    Failure,
    LinkNotFound,
    LocalFailure,
    Refused,
    Unavailable,
    UsageFailure,
)
from oncedrop_cli.links import download_link, origin, receipt_link, same_origin, server_address
from oncedrop_cli.main import SERVER
from oncedrop_cli.names import name_in, safe_name, with_suffix
from oncedrop_cli.receipts import lines_of
from oncedrop_cli.resuming import Offer, Taking
from oncedrop_cli.server import refusal
from oncedrop_cli.texts import duration_text, percent_text, shown, until_text
from oncedrop_common.drops import GoneReason
from oncedrop_common.file_names import clean_name
from oncedrop_common.settings import load_settings
from oncedrop_deliver.download_headers import content_disposition

SECRET = "A" * 22
ID = "0" * 32
LINK = f"https://drop.example.org/d/{SECRET}"
RECEIPT = f"https://drop.example.org/o/{ID}.{SECRET}"
CLAIM = f"https://drop.example.org/c/{ID}.{SECRET}/x"


def test_every_failure_has_a_code_of_its_own() -> None:
    leaves: list[type[Failure]] = [
        LocalFailure, UsageFailure, LinkNotFound, DropGone, Refused, Unavailable, ChecksumWrong
    ]  # fmt: skip
    assert [leaf.code for leaf in leaves] == list(range(1, 8))
    assert set(leaves) == set(Failure.__subclasses__())


def test_what_is_set_for_the_client_does_not_keep_a_server_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SERVER, "https://drop.example.org")

    assert load_settings().public_url is None


# Names.


@given(st.text(max_size=400))
def test_a_name_is_one_component_that_can_be_seen_and_saved(raw: str) -> None:
    name = safe_name(raw)

    assert name not in ("", ".", "..")
    assert not {"/", "\\", "\0", ":"} & set(name)
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in name)
    assert len(name.encode()) <= 255
    assert safe_name(name) == name


@given(st.text(max_size=300))
def test_a_part_has_a_name_that_fits_too(raw: str) -> None:
    part = with_suffix(safe_name(raw), ".part")

    assert part.endswith(".part")
    assert len(part.encode()) <= 255


@given(st.text(max_size=100))
def test_what_the_server_sends_as_a_name_arrives(raw: str) -> None:
    assert name_in(content_disposition(raw)) == safe_name(clean_name(raw))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=\"a.txt\"; filename*=UTF-8''%C3%A4.txt", "ä.txt"),
        ("attachment; filename*=utf-8'de'%C3%A4.txt", "ä.txt"),
        ('attachment; filename="a\\"b.txt"', "a_b.txt"),
        ("attachment;filename=plain.txt;x=y", "plain.txt"),
        ("attachment; filename*=UTF-8''%FF%FE", "\ufffd\ufffd"),
        ("attachment; filename*=ISO-8859-1''a; filename=b", "b"),
        ("inline", "file"),
        ("", "file"),
    ],
)  # fmt: skip
def test_a_content_disposition_is_read_as_rfc_6266_has_it(header: str, name: str) -> None:
    assert name_in(header) == name


# Addresses.


def test_links_and_receipts_are_told_apart() -> None:
    assert str(download_link(f" {LINK}#x\n")) == LINK
    assert str(receipt_link(RECEIPT)) == RECEIPT
    assert str(download_link(f"http://[::1]:8002/once/d/{SECRET}")).startswith("http://[::1]:8002/")
    for wrong in (RECEIPT, CLAIM, LINK + "A", "d/" + SECRET, "https:///d/" + SECRET, "a" * 5000):
        with pytest.raises(UsageFailure):
            download_link(wrong)
    for wrong in (LINK, CLAIM, RECEIPT[:-1], ""):
        with pytest.raises(UsageFailure):
            receipt_link(wrong)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://drop.example.org", "https://drop.example.org/"),
        ("http://localhost:8001/", "http://localhost:8001/"),
        ("https://example.org/once", "https://example.org/once/"),
    ],
)
def test_a_server_is_an_address_with_a_path(text: str, address: str) -> None:
    assert str(server_address(text)) == address


@pytest.mark.parametrize("text", ["", "localhost:8001", "ftp://x/", "https://x/?a=b", "http://"])
def test_anything_else_is_no_server(text: str) -> None:
    with pytest.raises(UsageFailure):
        server_address(text)


def test_an_origin_is_scheme_host_and_port_and_shows_no_secret() -> None:
    url = httpx.URL(f"https://user:geheim@drop.example.org:443/d/{SECRET}?x")

    assert origin(url) == "https://drop.example.org"
    assert same_origin(url, httpx.URL("https://drop.example.org/c/x"))
    assert not same_origin(url, httpx.URL("http://drop.example.org:443/"))
    assert not same_origin(url, httpx.URL("https://drop.example.org:8443/"))
    assert not same_origin(url, httpx.URL("https://evil.example.org/"))


# Texts.


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    assert shown("a\x1b[2J\r\n\u202e\u2066\x9bb\ud800") == "a[2Jb"
    assert len(shown("x" * 100_000)) == 300


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (89, "89 seconds"), (90, "2 minutes"), (7199, "2 hours"),
     (86_399, "24 hours"), (7 * 86_400, "7 days"), (-5, "0 seconds")],
)  # fmt: skip
def test_a_duration_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_all_is_only_all() -> None:
    assert percent_text(999_999, 1_000_000) == "99 %"
    assert percent_text(0, 0) == "100 %"


def test_a_time_ahead_is_told_with_its_distance() -> None:
    now = datetime.now(UTC)
    assert until_text(now + timedelta(hours=2)).endswith(", in 2 hours")
    assert ", in" not in until_text(now - timedelta(hours=2))


# Receipts.

RECEIPTS: list[tuple[dict[str, Any], str]] = [
    ({"state": "uploading"}, "Being uploaded."),
    ({"state": "waiting"}, "Waiting: nobody is downloading it."),
    ({"state": "claimed", "size": 100, "acknowledged_bytes": 41},
     "Being downloaded: 41 % has arrived."),
    ({"state": "gone", "reason": "delivered"}, "Delivered."),
    ({"state": "gone", "reason": "interrupted", "size": 100, "acknowledged_bytes": 41},
     "Gone: a download of it broke off at 41 % and did not come back."),
    ({"state": "gone", "reason": "expired"},
     "Gone: its time was over, and nobody had fetched it."),
    ({"state": "gone", "reason": "expired", "size": 1, "acknowledged_bytes": 1},
     "Gone: its time was over."),
    ({"state": "gone", "reason": "invented"}, "Gone: the server does not say why."),
]  # fmt: skip


@pytest.mark.parametrize(("document", "line"), RECEIPTS)
def test_a_receipt_is_a_sentence(document: dict[str, Any], line: str) -> None:
    assert lines_of(document) == [line]


@pytest.mark.parametrize("reason", GoneReason)
def test_every_reason_has_words_here(reason: GoneReason) -> None:
    document = {"state": "gone", "reason": str(reason), "gone_at": "2026-03-01T12:00:00Z"}
    body = json.dumps(document).encode()

    assert "does not say" not in lines_of(document)[0]
    assert "(20" in lines_of(document)[0]
    assert str(refusal(httpx.Response(410), body)).startswith("The file is gone: ")


def test_downloads_that_are_left_are_told_where_there_are_several() -> None:
    document = {"state": "waiting", "max_downloads": 3, "downloads_left": 2}
    assert lines_of(document)[1] == "2 of 3 downloads are left."


# Resuming.


def test_what_was_noted_is_read_again_for_its_own_server_only() -> None:
    offer = {"name": "a.pdf", "size": 5, "sha256": "0" * 64}
    noted = {"version": 1, "claim": SECRET, "claim_url": CLAIM, "etag": '"x"', "offer": offer}
    content = json.dumps(noted).encode()

    taking = Taking.parse(content, httpx.URL(LINK))

    assert taking == Taking(SECRET, CLAIM, '"x"', Offer("a.pdf", 5, "0" * 64))
    assert Taking.parse(content, httpx.URL(LINK.replace("drop", "other"))) is None
    for cut in range(len(content)):
        assert Taking.parse(content[:cut], httpx.URL(LINK)) is None


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_what_is_no_note_is_none(value: object) -> None:
    for document in (value, {"version": 1, "claim": value}, {"version": 1, "offer": [value]}):
        content = json.dumps(document).encode()
        assert Taking.parse(content, httpx.URL(LINK)) is None


# Patience.


class Clock:
    """Stands where time does: sleeping is what lets it pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """As time's."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As time's, at once."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def failing(times: int, retry_after: float | None = None) -> Any:
    left = [Unavailable("Away.", retry_after)] * times

    def once() -> str:
        if left:
            raise left.pop()
        return "done"

    return once


def test_pauses_grow_to_a_bound_and_end_with_the_patience(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        patience.patiently(failing(1000), 600, Display(quiet=True))

    assert clock.slept[0] <= 0.5
    assert all(15 <= pause <= 30 for pause in clock.slept[6:])
    assert 550 < sum(clock.slept) <= 600


def test_the_server_says_how_soon_is_too_soon(clock: Clock) -> None:
    assert patience.patiently(failing(2, 5), 600, Display(quiet=True)) == "done"
    assert clock.slept == [5, 5]


def test_a_server_that_asks_for_too_long_a_wait_gets_none(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        patience.patiently(failing(1, 1e9), 600, Display(quiet=True))
    assert clock.slept == []


def test_progress_starts_the_clock_anew(clock: Clock) -> None:
    received = 0

    def once() -> None:
        nonlocal received
        received += 1
        if received < 5000:
            raise Unavailable("Cut.")

    patience.patiently(once, 2, Display(quiet=True), progress=lambda: received)

    assert sum(clock.slept) > 600
    assert max(clock.slept) <= 0.5
