"""The pictures in docs/screenshots, taken from the running product (`make screenshots`)."""

from __future__ import annotations

import os

import httpx
from playwright.sync_api import Page, expect

from support.browser import PHONE, Visitor
from support.services import RawClient
from support.stack import ADMIN_TOKEN, Stack
from support.stories import Visit, a_busy_week, chosen_file, uploaded

TABLET = (820, 760)
FILM = os.urandom(3_100_000)


def test_each_page_can_be_shown(stack: Stack, visit: Visit) -> None:
    wide, phone = visit(size=TABLET), visit(size=PHONE, color_scheme="dark")

    wide.page.goto(stack.ingest.url)
    wide.page.set_input_files(
        "#file",
        [chosen_file("Holiday 2026.mp4", FILM), chosen_file("Packing list.pdf", FILM[:182_000])],
    )
    wide.screenshot("send")
    wide.page.get_by_role("button", name="Upload and get the link").click()
    expect(wide.page.get_by_role("heading", level=1)).to_have_text("Your link is ready")
    wide.screenshot("link")

    drop = uploaded(stack, "Holiday 2026.mp4", FILM)
    phone.page.goto(drop.url)
    phone.screenshot("landing")
    _break_off(stack, drop.url)
    wide.page.goto(drop.owner_url)
    expect(wide.page.get_by_role("heading", level=1)).to_contain_text("The download broke off at")
    expect(wide.page.get_by_text("Live: this page changes by itself")).to_be_visible()
    wide.screenshot("receipt")

    _as_operator(stack, wide.page)
    _no_names_on(wide)
    wide.screenshot("status", full=False)


def _break_off(stack: Stack, url: str) -> None:
    client = RawClient.get(stack.deliver.port, httpx.URL(url).path, receive_buffer=65536)
    client.read_body(1_000_000)
    client.close()


def _as_operator(stack: Stack, page: Page) -> None:
    a_busy_week(stack)
    page.goto(f"{stack.janitor.url}/status")
    page.get_by_label("Admin token").fill(ADMIN_TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="The last hundred events").wait_for()


def _no_names_on(visitor: Visitor) -> None:
    expect(visitor.page.locator("main")).not_to_contain_text("Holiday")
