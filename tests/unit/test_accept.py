"""Who is a person and who is a program, by the Accept headers real clients send."""

import pytest
from starlette.requests import Request

from oncedrop_common.accept import Accept

CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("header", [CHROMIUM, FIREFOX, "text/html", "Text/HTML;Q=0.3"])
def test_browsers_get_a_page(header: str) -> None:
    assert Accept(header).prefers_page


@pytest.mark.parametrize(
    "header",
    [
        "*/*",  # curl, wget, requests, httpx
        "",
        "application/json, */*;q=0.5",  # httpie
        "text/*",
        "text/html;q=0",
        "text/html;q=0.5, application/json",
        "text/html;q=0.5, */*",
        "text/html;q=0.5, application/problem+json;q=0.6",
        "text/html;q=high",
        "text/html;q=1.5",
        ",;,",
    ],
)
def test_programs_get_a_document(header: str) -> None:
    assert not Accept(header).prefers_page


def test_several_accept_lines_count_as_one() -> None:
    lines = [(b"accept", b"application/json;q=0.1"), (b"accept", b"text/html")]
    assert Accept.of(Request({"type": "http", "headers": lines})).prefers_page


def test_the_most_specific_range_decides() -> None:
    accept = Accept("text/*;q=0.3, text/plain;q=0.7, */*;q=0.1")
    assert accept.quality("text/plain") == 0.7
    assert accept.quality("text/html") == 0.3
    assert accept.quality("application/json") == 0.1


def test_without_a_header_everything_is_wanted_and_nothing_is_named() -> None:
    accept = Accept("")
    assert accept.quality("text/html") == 1.0
    assert not accept.names("text/html")
