"""The receipt in a browser: it changes by itself, and deletes early."""

from __future__ import annotations

import os

import httpx
import pytest
from playwright.sync_api import expect

from support.services import RawClient
from support.stack import Stack
from support.stories import Visit

BODY = os.urandom(2_000_000)
HALF = 820_000


def test_the_receipt_tells_what_happens_while_it_happens(stack: Stack, visit: Visit) -> None:
    drop = stack.upload(BODY)
    owner = visit()
    page = owner.page
    page.goto(drop.owner_url)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("It is waiting")
    expect(page.get_by_text("Live: this page changes by itself")).to_be_visible()
    expect(page.locator("dd").first).to_have_text("report.pdf")

    client = RawClient.get(stack.deliver.port, httpx.URL(drop.url).path, receive_buffer=65536)
    claim_url = client.header("content-location")
    client.read_body(HALF)
    expect(heading).to_have_text("Somebody is downloading it")
    client.close()
    expect(heading).to_contain_text("The download broke off at")
    expect(page.locator(".timeline")).to_contain_text("It broke off")
    owner.screenshot("receipt-paused-light-wide")
    rest = httpx.get(stack.deliver.url + claim_url, headers={"Range": f"bytes={HALF}-"})
    assert rest.content == BODY[HALF:]

    expect(heading).to_have_text("It was downloaded")
    happened = page.locator(".timeline .what").all_text_contents()
    assert [line.split(" (")[0] for line in happened] == [
        "Uploaded",
        "A download began",
        "It broke off",
        "It went on",
        "Downloaded, and the file removed",
    ]
    expect(page.get_by_role("button", name="Delete it now")).to_be_hidden()
    expect(page.get_by_text("Live: this page changes by itself")).to_be_hidden()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_button_deletes_at_once(stack: Stack, visit: Visit, *, scripts: bool) -> None:
    drop = stack.upload(BODY)
    page = visit(java_script_enabled=scripts).page
    page.goto(drop.owner_url)
    page.get_by_text("Delete it early").click()
    page.get_by_role("button", name="Delete it now").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("It was deleted")
    expect(page.locator("main")).to_contain_text("Nobody had taken it.")
    assert httpx.get(drop.url).status_code == 410


def test_a_page_that_cannot_be_live_can_be_looked_at_again(stack: Stack, visit: Visit) -> None:
    drop = stack.upload(BODY)
    visitor = visit()
    visitor.page.route("**/events?page=1", lambda route: route.fulfill(status=429))
    visitor.page.goto(drop.owner_url)
    expect(visitor.page.get_by_text("No longer live: look again")).to_be_visible()
    httpx.delete(drop.owner_url)
    visitor.page.get_by_role("link", name="Look again").click()

    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("It was deleted")
