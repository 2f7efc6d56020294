"""The whole story in a real browser: send, look, take, look again; with and without scripts."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from support.services import BROWSER, CuttingProxy
from support.stack import Stack
from support.stories import Visit, chosen_file, local, uploaded
from support.waiting import wait_until

BODY = os.urandom(300_000)
# Beyond what sockets on the way hold, so that a cut is a cut in the middle.
LARGE = os.urandom(16 * 1024 * 1024)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_file_goes_from_one_person_to_another_once(
    stack: Stack, visit: Visit, tmp_path: Path, *, scripts: bool
) -> None:
    sender = visit(java_script_enabled=scripts)
    sender.page.goto(stack.ingest.url)
    sender.page.set_input_files("#file", chosen_file("Überblick.pdf", BODY))
    sender.page.get_by_role("button", name="Upload and get the link").click()
    expect(sender.page.get_by_role("heading", level=1)).to_have_text("Your link is ready")
    link = local(stack.deliver, sender.page.get_by_label("Link", exact=True).input_value())
    receipt = local(stack.ingest, sender.page.get_by_label("Receipt", exact=True).input_value())
    sender.page.goto(receipt)
    expect(sender.page.get_by_role("heading", level=1)).to_have_text("It is waiting")

    reader = visit(java_script_enabled=scripts)
    reader.page.goto(link)
    expect(reader.page.locator("main")).to_contain_text("Überblick.pdf")
    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name="Download").click()

    target = tmp_path / "got"
    download.value.save_as(target)
    assert target.read_bytes() == BODY
    assert download.value.suggested_filename == "Überblick.pdf"
    drop_id = receipt.rpartition("/")[2].partition(".")[0]
    wait_until(lambda: drop_id not in str(stack.files()), 10, what="the file to be gone")
    other = visit(java_script_enabled=scripts)
    other.page.goto(link)
    expect(other.page.get_by_role("heading", level=1)).to_have_text("This file has been downloaded")
    sender.page.goto(receipt)
    expect(sender.page.get_by_role("heading", level=1)).to_have_text("It was downloaded")


def test_a_connection_cut_twice_finishes_by_itself_over_the_claim_url(
    stack: Stack, visit: Visit, tmp_path: Path
) -> None:
    drop = stack.upload(LARGE)
    reader = visit()
    # The browser asks for other things too; only the file is long enough to be cut.
    cuts = [6_000_000] * 12
    with CuttingProxy(stack.deliver.port, cuts) as proxy:
        reader.page.goto(drop.url.replace(str(stack.deliver.port), str(proxy.port)))
        with reader.page.expect_download() as download:
            reader.page.get_by_role("button", name="Download").click()
        assert download.value.failure() is None
        target = tmp_path / "got"
        download.value.save_as(target)
        reader.context.close()

    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(LARGE).digest()
    assert proxy.cut == 2
    assert re.search(r"/c/[0-9a-f]{32}\.", download.value.url)
    wait_until(
        lambda: httpx.get(drop.owner_url).json().get("reason") == "delivered",
        10,
        what="the delivery",
    )
    assert httpx.get(drop.owner_url).json()["acknowledged_bytes"] == len(LARGE)


def test_who_began_a_download_finds_it_again_at_the_link(
    stack: Stack, visit: Visit, tmp_path: Path
) -> None:
    """The browser crashed, or its list of downloads was cleared: the claim is still theirs."""
    drop = stack.upload(BODY)
    reader = visit()
    reader.page.goto(drop.url)
    # The claim begins; its answer leads to a download that never comes.
    claim = reader.page.locator("input[name=claim]").input_value()
    reader.context.request.post(drop.url, form={"claim": claim}, max_redirects=0)
    reader.page.goto(drop.url)
    expect(reader.page.get_by_role("heading", level=1)).to_have_text("You have begun this download")
    stranger = visit()
    stranger.page.goto(drop.url)
    expect(stranger.page.get_by_role("heading", level=1)).to_have_text(
        "This file is being downloaded"
    )

    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name="Begin it again").click()

    target = tmp_path / "got"
    download.value.save_as(target)
    assert target.read_bytes() == BODY


def test_a_password_is_asked_for_and_a_wrong_one_uses_nothing_up(
    stack: Stack, visit: Visit
) -> None:
    drop = stack.upload(BODY, password="correct horse")
    reader = visit()
    reader.page.goto(drop.url)
    expect(reader.page.locator("main")).not_to_contain_text("report.pdf")
    reader.page.get_by_label("Password").fill("wrong")
    reader.page.get_by_role("button", name="Download").click()
    expect(reader.page.get_by_role("alert")).to_contain_text("The password is wrong")
    reader.page.get_by_label("Password").fill("correct horse")
    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name="Download").click()

    assert Path(download.value.path()).read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("<img src=x onerror=alert(1)>.pdf", "img src=x onerror=alert(1)"),
        ("ملف.txt", "ملف.txt"),
    ],
)
def test_a_name_cannot_pose_as_another_or_as_markup(
    stack: Stack, visit: Visit, name: str, shown: str
) -> None:
    drop = uploaded(stack, name, BODY)
    reader = visit()
    reader.page.goto(drop.url)
    told = reader.page.locator("bdi.filename")
    expect(told).to_contain_text(shown)
    assert told.evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"
    assert "\u202e" not in reader.page.content()
    assert reader.page.locator("main img").count() == 0


def test_the_time_left_is_counted_down(stack: Stack, visit: Visit) -> None:
    drop = stack.upload(BODY, ttl="6s")
    reader = visit()
    reader.page.goto(drop.url)
    left = reader.page.locator("[data-until]")
    expect(left).to_have_text("3 seconds")
    expect(left).to_have_text("2 seconds")
    expect(left).to_have_text("over")
    reader.page.get_by_role("button", name="Download").click()

    expect(reader.page.get_by_role("heading", level=1)).to_have_text("This link has expired")
    expect(reader.page.locator(".next")).to_contain_text("Ask the sender to upload it again")


def test_a_preview_in_a_chat_tells_only_that_a_file_is_waiting(stack: Stack) -> None:
    drop = stack.upload(BODY)
    page = httpx.get(drop.url, headers=BROWSER).text
    tags = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]+)">', page))
    told = {name: text for name, text in tags.items() if name.startswith(("og:", "twitter:"))}
    assert told["og:title"] == "A file is waiting"
    assert tags["robots"] == "noindex, nofollow"
    head = page.partition("</head>")[0]
    assert "report" not in head
    assert "kB" not in head
