"""The operator's page in a browser: log in, see, sweep, log out; with and without scripts."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from support.stack import ADMIN_TOKEN, Stack
from support.stories import Visit


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_who_knows_the_token_sees_events_sweeps_and_leaves(
    stack: Stack, visit: Visit, *, scripts: bool
) -> None:
    drop = stack.upload(b"x" * 5000)
    operator = visit(java_script_enabled=scripts)
    page = operator.page
    page.goto(f"{stack.janitor.url}/")
    expect(page.get_by_role("button", name="Sweep now")).to_have_count(0)
    page.get_by_label("Admin token").fill("a guess")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("what was given is not it")
    page.get_by_label("Admin token").fill(ADMIN_TOKEN)
    page.get_by_role("button", name="Log in").click()
    events = page.get_by_role("region", name="The last hundred events")
    expect(events).to_contain_text("uploaded, 5 kB")
    expect(events).to_contain_text(drop.id[:8])
    assert ADMIN_TOKEN not in str(operator.context.cookies())
    assert ADMIN_TOKEN not in page.content()

    began = httpx.get(f"{stack.janitor.url}/status").json()["passes"]["sweep"]["last"]["started_ms"]
    page.get_by_role("button", name="Sweep now").click()
    expect(events).to_contain_text("a sweep was done")
    assert re.search(r"/status$", page.url)
    last = httpx.get(f"{stack.janitor.url}/status").json()["passes"]["sweep"]["last"]
    assert last["started_ms"] > began

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Admin token")).to_be_visible()
    expect(events).to_have_count(0)
    assert operator.context.cookies() == []


def test_the_page_looks_again_by_itself(stack: Stack, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.clock.install()
    page.goto(f"{stack.janitor.url}/status")
    tile = page.locator(".tiles dd").nth(1)
    before = int(tile.inner_text())
    stack.upload(b"one more")
    with page.expect_response(re.compile(r"/status$")):
        page.clock.fast_forward(11_000)

    expect(tile).to_have_text(str(before + 1))
