"""WCAG 2.2 AA on every page, in light and dark, on a wide screen and on a phone's; and its size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from oncedrop_common.drops import GoneReason
from support.browser import PHONE, WIDE, Scheme, Visitor
from support.stack import ADMIN_TOKEN, Stack
from support.stories import Visit, a_busy_week, chosen_file, gone, local

RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
}
PAGE_BYTES = 50_000
NOBODY = "A" * 22


def shown(stack: Stack, page: Page) -> Iterator[str]:
    """Every page there is, one after the other, by name."""
    yield from _sending(stack, page)
    yield from _receiving(stack, page)
    yield from _gone(stack, page)
    yield from _operating(stack, page)


def _sending(stack: Stack, page: Page) -> Iterator[str]:
    page.goto(stack.ingest.url)
    yield "send"
    page.set_input_files("#file", [chosen_file(n, b"x" * 5000) for n in ("Überblick.pdf", "b.zip")])
    page.get_by_text("More options").click()
    yield "send-chosen"
    page.get_by_role("button", name="Upload and get the link").click()
    page.wait_for_selector("#link")
    page.get_by_text("Checksum").click()
    yield "link"
    page.goto(stack.upload(b"x").owner_url)
    yield "receipt-waiting"
    page.goto(f"{stack.ingest.url}/upload")
    yield "another-method"


def _receiving(stack: Stack, page: Page) -> Iterator[str]:
    page.goto(stack.upload(b"x" * 1_400_000).url)
    yield "landing"
    with page.expect_download():
        page.get_by_role("button", name="Download").click()
    page.wait_for_selector("#taken:not([hidden])")
    yield "landing-taken"
    page.goto(stack.upload(b"x", password="correct horse").url)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Download").click()
    page.wait_for_selector("[role=alert]")
    yield "landing-password"
    drop = stack.upload(b"x" * 1_400_000)
    page.goto(drop.url)
    claim = page.locator("input[name=claim]").input_value()
    page.context.request.post(drop.url, form={"claim": claim}, max_redirects=0)
    page.goto(drop.url)
    yield "landing-begun"
    page.context.clear_cookies()
    page.goto(drop.url)
    yield "gone-claimed"
    page.goto(drop.owner_url)
    yield "receipt-claimed"


def _gone(stack: Stack, page: Page) -> Iterator[str]:
    for reason in GoneReason:
        drop = gone(stack, reason)
        page.goto(drop.url)
        yield f"gone-{reason}"
        page.goto(drop.owner_url)
        yield f"receipt-{reason}"
    page.goto(f"{stack.deliver.url}/d/{NOBODY}")
    yield "unknown"
    page.goto(f"{stack.deliver.url}/nowhere")
    yield "nowhere"


def _operating(stack: Stack, page: Page) -> Iterator[str]:
    page.goto(f"{stack.janitor.url}/status")
    yield "status"
    page.get_by_label("Admin token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("[role=alert]")
    yield "status-refused"
    a_busy_week(stack)
    page.get_by_label("Admin token").fill(ADMIN_TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="The last hundred events").wait_for()
    yield "operator"


@pytest.mark.parametrize(("locale", "tag"), [("de-AT", "de"), ("fr-CH", "fr"), ("nl-NL", "en")])
def test_the_long_words_of_other_languages_fit_on_a_phone(
    stack: Stack, visit: Visit, locale: str, tag: str
) -> None:
    visitor = visit(locale=locale, size=PHONE, color_scheme="dark")
    page = visitor.page

    def fits(name: str) -> None:
        visitor.screenshot(f"{name}-{tag}-phone")
        assert visitor.fits(), name
        assert page.locator("html").get_attribute("lang") == tag
        assert violations(page) == []

    page.goto(stack.ingest.url)
    page.set_input_files("#file", [chosen_file(n, b"x" * 5000) for n in ("Überblick.pdf", "b.zip")])
    page.locator("summary").click()
    fits("send")
    page.locator("button.big").click()
    page.wait_for_selector("#link")
    receipt = page.input_value("#receipt")
    fits("link")
    page.goto(local(stack.deliver, page.input_value("#link")))
    fits("landing")
    page.goto(local(stack.ingest, receipt))
    page.locator("summary").click()
    page.wait_for_selector(".live:not([hidden])")
    fits("receipt")
    page.goto(gone(stack, GoneReason.LOCKED).url)
    fits("gone")
    page.goto(f"{stack.janitor.url}/status")
    page.fill("#token", ADMIN_TOKEN)
    page.locator("form button").click()
    page.wait_for_selector(".scroll")
    fits("operator")


def violations(page: Page) -> list[str]:
    """What axe objects to: the rule and the elements."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_used_by_everybody(
    stack: Stack, visit: Visit, scheme: Scheme, size: tuple[int, int]
) -> None:
    visitor = visit(color_scheme=scheme, size=size)
    problems: dict[str, list[str]] = {}
    label = f"{scheme}-{'phone' if size == PHONE else 'wide'}"
    for name in shown(stack, visitor.page):
        visitor.screenshot(f"{name}-{label}")
        found = violations(visitor.page)
        if not visitor.fits():
            found.append("wider than the window")
        if found:
            problems[name] = found

    assert problems == {}


@pytest.mark.timeout(300)
def test_every_page_with_all_it_needs_stays_below_50_kb(stack: Stack, visit: Visit) -> None:
    visitor = visit()
    too_large: dict[str, int] = {}
    for name in shown(stack, visitor.page):
        loaded = _loaded_bytes(visitor)
        assert loaded > 5000, name
        if loaded > PAGE_BYTES:
            too_large[name] = loaded

    assert too_large == {}


def _loaded_bytes(visitor: Visitor) -> int:
    """Bytes of the document and of all it loaded, uncompressed."""
    size: int = visitor.page.evaluate(
        """() => performance.getEntriesByType("navigation")
          .concat(performance.getEntriesByType("resource"))
          .filter((entry) => entry.initiatorType !== "xmlhttprequest")
          .reduce((sum, entry) => sum + entry.decodedBodySize, 0)"""
    )
    return size
