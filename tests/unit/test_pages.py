"""Pages for people: hostile names stay text, nothing is inline, numbers read well."""

import re
from pathlib import Path

import httpx
import pytest
from jinja2 import UndefinedError
from starlette.applications import Starlette
from starlette.requests import Request

from oncedrop_common.pages import Pages, name_element, static_routes

PROBLEM = {
    "slug": "request_invalid",
    "status": 400,
    "title": "The request is not valid",
    "detail": "Bad.",
    "reason": None,
    "gone_ms": 0,
    "limit": None,
    "retry_after_seconds": 0,
}


def request(language: str = "") -> Request:
    headers = [(b"accept-language", language.encode())] if language else []
    return Request({"type": "http", "method": "GET", "headers": headers})


def render(**context: object) -> str:
    page = Pages().render(request(), "problem.html", 400, **{**PROBLEM, **context})
    return bytes(page.body).decode()


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>.txt",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "{{ 7 * 7 }}{% include '/etc/passwd' %}",
        "&lt;b&gt;",
    ],
)
def test_hostile_names_stay_text(hostile: str) -> None:
    page = render(detail=hostile)
    element = str(name_element(hostile))
    for html in (page, element):
        assert hostile not in html or not set(hostile) & set("<>&\"'")
        assert "<script" not in html.replace('<script type="module" src="/static/page.js">', "")
        assert "<img" not in html
        assert "49" not in html


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200b", "\u200f", "\x00", "\r", "\n", "\x1b", "\u2028"]
)
def test_characters_that_deceive_are_shown_as_such(character: str) -> None:
    element = str(name_element(f"invoice{character}fdp.exe"))
    assert character not in element
    assert element == '<bdi class="filename">invoice\ufffdfdp.exe</bdi>'


def test_honest_names_of_all_scripts_stay_whole() -> None:
    for name in ("Überblick.pdf", "日本語 資料.zip", "ملف.txt", "👩\u200d💻 notes.md"):
        assert str(name_element(name)) == f'<bdi class="filename">{name}</bdi>'


def test_pages_have_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = render()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert re.search(r'<script type="module" src="/static/\w+\.js"></script>', page)
    assert 'href="/static/oncedrop.css"' in page


@pytest.mark.parametrize(
    ("wanted", "tag", "heading"),
    [
        ("", "en", "There is no such link"),
        ("de-AT,en;q=0.5", "de", "Diesen Link gibt es nicht"),
        ("fr", "fr", "Ce lien n\N{RIGHT SINGLE QUOTATION MARK}existe pas"),
    ],
)
def test_a_page_is_in_the_language_its_reader_asks_for(wanted: str, tag: str, heading: str) -> None:
    context = {**PROBLEM, "slug": "link_unknown"}
    page = Pages().render(request(wanted), "problem.html", 404, **context)
    html = bytes(page.body).decode()
    assert f'<html lang="{tag}">' in html
    assert heading in html
    assert page.headers["content-language"] == tag
    assert "Accept-Language" in page.headers["vary"]


def test_a_name_the_context_lacks_is_an_error_and_no_empty_space() -> None:
    with pytest.raises(UndefinedError):
        Pages().render(request(), "problem.html", 400, slug="request_invalid")


def test_a_service_template_comes_before_a_shared_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = tmp_path / "pages_of_a_test" / "templates"
    templates.mkdir(parents=True)
    (templates.parent / "__init__.py").touch()
    (templates / "own.html").write_text(
        '{% extends "base.html" %}{% block content %}{{ name|filename }}{% endblock %}'
    )
    monkeypatch.syspath_prepend(tmp_path)
    page = Pages(["pages_of_a_test"]).render(request(), "own.html", name="a<b")
    text = bytes(page.body).decode()
    assert page.status_code == 200
    assert page.media_type == "text/html"
    assert '<bdi class="filename">a&lt;b</bdi>' in text
    assert "/static/oncedrop.css" in text


async def test_static_files_are_served_by_name_only() -> None:
    transport = httpx.ASGITransport(Starlette(routes=static_routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        css = await client.get("/static/oncedrop.css")
        icon = await client.get("/static/oncedrop.svg")
        missing = [
            await client.get(f"/static/{path}")
            for path in ("nothing.css", "..%2Fpages.py", "%2e%2e/pages.py", "")
        ]
    assert css.headers["content-type"].startswith("text/css")
    assert icon.headers["content-type"].startswith("image/svg+xml")
    assert "prefers-color-scheme: dark" in css.text
    assert "url(" not in css.text
    assert {response.status_code for response in missing} == {404}
