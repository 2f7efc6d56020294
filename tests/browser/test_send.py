"""The send page: every way to choose files, limits before the upload, progress, cancel, retry."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from support.services import Service, running
from support.stack import Stack
from support.stories import Visit, chosen_file, local

BODY = os.urandom(50_000)


def upload(page: Page) -> None:
    page.get_by_role("button", name="Upload and get the link").click()


def fetched(stack: Stack, page: Page) -> httpx.Response:
    """What the link on the page leads to, taken as a program does."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Your link is ready")
    link = page.get_by_label("Link", exact=True).input_value()
    return httpx.get(local(stack.deliver, link))


def entries(answer: httpx.Response) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_several_files_become_one_zip_and_one_can_be_taken_off_the_list(
    stack: Stack, visit: Visit
) -> None:
    page = visit().page
    page.goto(stack.ingest.url)
    page.set_input_files("#file", [chosen_file(name, name.encode()) for name in ("a", "b", "c")])
    # What is chosen later is added.
    page.set_input_files("#file", [chosen_file("d", b"d")])
    expect(page.locator("#total")).to_have_text("4 files, 4 bytes in all, sent as one zip")
    page.get_by_role("button", name="Take b off the list").click()
    upload(page)

    assert entries(fetched(stack, page)) == {"a": b"a", "c": b"c", "d": b"d"}


def test_a_folder_keeps_its_paths(stack: Stack, visit: Visit, tmp_path: Path) -> None:
    inner = tmp_path / "photos" / "2026"
    inner.mkdir(parents=True)
    (inner / "one.jpg").write_bytes(b"1")
    (tmp_path / "photos" / "two.jpg").write_bytes(b"2")
    page = visit().page
    page.goto(stack.ingest.url)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "photos")
    upload(page)

    assert entries(fetched(stack, page)) == {"photos/2026/one.jpg": b"1", "photos/two.jpg": b"2"}


def test_a_folder_can_be_dropped_with_all_that_is_in_it(
    stack: Stack, visit: Visit, tmp_path: Path
) -> None:
    """Dragged as from a desktop: the browser itself reads the folder."""
    inner = tmp_path / "photos" / "2026"
    inner.mkdir(parents=True)
    for n in range(120):  # more than a browser hands out at once
        (inner / f"{n}.jpg").write_bytes(b"%d" % n)
    (tmp_path / "photos" / "two.jpg").write_bytes(b"2")
    visitor = visit()
    page = visitor.page
    page.goto(stack.ingest.url)
    desktop = visitor.context.new_cdp_session(page)
    files = [str(tmp_path / "photos")]
    for step in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        where = {"type": step, "x": 300, "y": 300}
        desktop.send("Input.dispatchDragEvent", {**where, "data": data})
    expect(page.locator("#files li")).to_have_count(121)
    upload(page)

    got = entries(fetched(stack, page))
    assert len(got) == 121
    assert got["photos/2026/119.jpg"] == b"119"
    assert got["photos/two.jpg"] == b"2"


# What a browser makes of files that are dragged from a desktop, or copied there.
_HAND_OVER = """([type, on]) => {
  const data = new DataTransfer();
  data.items.add(new File(["dropped"], "dropped.txt"));
  const event = type === "paste"
    ? new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector(on).dispatchEvent(event);
}"""


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_files_can_be_dropped_anywhere_and_pasted(stack: Stack, visit: Visit, event: str) -> None:
    page = visit().page
    page.goto(stack.ingest.url)
    if event == "drop":
        page.evaluate(_HAND_OVER, ["dragover", "h1"])
        expect(page.locator("#dropzone")).to_have_class("dropzone over")
    page.evaluate(_HAND_OVER, [event, "h1"])
    expect(page.locator("#files")).to_contain_text("dropped.txt")
    upload(page)

    assert fetched(stack, page).content == b"dropped"


def test_what_the_server_would_refuse_is_said_before_a_byte_is_sent(
    stack: Stack, visit: Visit
) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(stack.ingest.url)
    expect(page.locator(".next")).to_contain_text("Up to 21 MB in all")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    upload(page)
    expect(page.get_by_role("alert")).to_have_text("Choose a file first.")
    page.set_input_files("#file", chosen_file("large", bytes(21 * 1024 * 1024)))
    expect(page.get_by_role("alert")).to_contain_text("this server takes 21 MB")
    upload(page)
    expect(page.get_by_role("alert")).to_be_focused()
    assert "POST" not in sent

    page.get_by_role("button", name="Take large off the list").click()
    page.set_input_files("#file", chosen_file("small", BODY))
    expect(page.get_by_role("alert")).to_be_hidden()
    upload(page)
    assert fetched(stack, page).content == BODY


def test_an_upload_shows_its_progress_can_be_cancelled_and_tried_again(
    stack: Stack, visit: Visit
) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(stack.ingest.url)
    slow = visitor.context.new_cdp_session(page)
    slow.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    slow.send("Network.emulateNetworkConditions", {**conditions, "uploadThroughput": 2_000_000})
    body = os.urandom(18 * 1024 * 1024)
    page.set_input_files("#file", chosen_file("film.mkv", body))
    upload(page)
    expect(page.locator("#progress_text")).to_contain_text("MB of 18.9 MB")
    expect(page.locator("#progress_text")).to_contain_text("a second")
    expect(page.locator("#progress_text")).to_contain_text("left")
    assert (
        0
        < float(
            page.locator("#progress").get_attribute("value")
            or page.evaluate("document.getElementById('progress').value")
        )
        < 1
    )
    visitor.screenshot("upload")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("Cancelled. Nothing was kept.")

    slow.send("Network.emulateNetworkConditions", {**conditions, "uploadThroughput": -1})
    page.get_by_role("button", name="Try again").click()
    assert fetched(stack, page).content == body


def test_a_broken_connection_loses_no_choice(stack: Stack, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(stack.ingest.url)
    page.set_input_files("#file", chosen_file("report.pdf", BODY))
    visitor.context.set_offline(offline=True)
    upload(page)
    expect(page.get_by_role("alert")).to_contain_text("your files are still chosen")
    visitor.context.set_offline(offline=False)
    visitor.complaints.clear()  # that there was no connection
    page.get_by_role("button", name="Change something").click()
    page.get_by_label("Password (optional)").fill("correct horse")
    upload(page)

    assert fetched(stack, page).status_code == 401


def test_the_servers_own_words_say_why_it_refuses(stack: Stack, visit: Visit) -> None:
    """Here: an option that only somebody else's page would send."""
    visitor = visit()
    page = visitor.page
    page.goto(stack.ingest.url)
    page.set_input_files("#file", chosen_file("report.pdf", BODY))
    page.evaluate("document.getElementById('ttl').selectedOptions[0].value = '999d'")
    upload(page)

    expect(page.get_by_role("alert")).to_contain_text("The server did not understand that.")
    expect(page.get_by_role("alert")).to_contain_text("ttl must be a time")


def metrics(service: Service) -> str:
    return httpx.get(f"{service.url}/metrics").text


def test_a_wrong_upload_token_is_told_before_the_upload(
    stack: Stack, visit: Visit, tmp_path: Path
) -> None:
    token = {"upload_token": "for friends"}
    log = tmp_path / "log"
    with running("ingest", stack.redis.url, stack.volume_dir, log, **token) as ingest:
        page = visit().page
        page.goto(ingest.url)
        page.set_input_files("#file", chosen_file("report.pdf", BODY))
        page.get_by_label("Upload token").fill("wrong")
        upload(page)
        expect(page.get_by_role("alert")).to_contain_text("Uploads need a token")
        taken_in = re.search(r"oncedrop_received_bytes_total ([\d.e+]+)", metrics(ingest))
        assert taken_in
        assert 0 < float(taken_in[1]) < len(BODY)

        page.get_by_role("button", name="Change something").click()
        page.get_by_label("Upload token").fill("for friends")
        upload(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("Your link is ready")


def test_options_reach_the_drop_by_keyboard_alone(stack: Stack, visit: Visit) -> None:
    page = visit().page
    page.goto(stack.ingest.url)
    page.set_input_files("#file", chosen_file("report.pdf", BODY))
    page.get_by_label("Keep it for").focus()
    page.keyboard.press("Home")  # the shortest: an hour
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens more options
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")  # no second chance
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # ask before each download
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.locator(".lead")).to_have_text("Pass it on. It works 3 times.")
    expect(page.locator("dd").nth(2)).to_contain_text("60 minutes")
    link = local(stack.deliver, page.get_by_label("Link", exact=True).input_value())

    assert httpx.get(link).headers["content-type"].startswith("text/html"), "asks first"


@pytest.mark.parametrize("secure", [True, False], ids=["secure context", "plain http"])
def test_the_link_is_copied_by_its_button(stack: Stack, visit: Visit, *, secure: bool) -> None:
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page
    if not secure:
        # As at http://host, which is no secure context: this machine's own address is one.
        page.add_init_script("navigator.clipboard.writeText = undefined")
    page.goto(stack.ingest.url)
    page.set_input_files("#file", chosen_file("report.pdf", BODY))
    upload(page)
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()

    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.get_by_label("Link", exact=True).input_value()
    assert page.locator(".qr svg title").text_content() == "QR code"
