"""Clients that are not ours: preview agents and scanners take nothing, download programs take all.

User-Agents, ranges and purposes are from the sources beside them or in looking_agents.txt. Where
those do not show what else was sent, it is what comes nearest to a download: `Accept: */*`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oncedrop_common.store import keys
from support.command_line import AT_TERMINAL
from support.programs import needs
from support.services import RawClient
from support.stack import Stack, Uploaded, running_stack
from support.valkey import admin
from support.waiting import wait_until

NAME = "annual report.pdf"
BODY = os.urandom(6_000_000)
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/138.0.0.0 Safari/537.36"
)
CHROME_ACCEPT = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)

SKYPE = (
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5"
    " skype-url-preview@microsoft.com"
)
IMESSAGE = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko)"
    " Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def everything(stack: Stack, drop: Uploaded) -> tuple[Any, ...]:
    """The record and the volume, as exactly as they can be told."""
    with admin(stack.redis.url) as client:
        record = client.hgetall(f"{keys.DROP_PREFIX}{drop.id}")
    assert record
    files = [path for path in stack.files() if drop.id in path.name]
    assert len(files) == 1
    status = files[0].stat()
    return record, files, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# Who only looks.

PREVIEWS = {
    # https://api.slack.com/robots; it asks for the beginning alone.
    "Slack": [
        ("Accept", "*/*"),
        ("User-Agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"),
        ("Range", "bytes=0-32768"),
        ("Accept-Encoding", "gzip,deflate"),
        ("Connection", "close"),
    ],
    "Slack, images": [
        ("User-Agent", "Slack-ImgProxy (+https://api.slack.com/robots)"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate"),
    ],
    # Skype's agent, which serves Teams too.
    "Teams": [
        ("User-Agent", SKYPE),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Connection", "Keep-Alive"),
    ],
    "Teams, new": [
        ("User-Agent", f"{CHROME} Edg/138.0.0.0 MicrosoftPreview/2.0 +https://aka.ms/MicrosoftPreview"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate, br"),
    ],
    # https://github.com/matomo-org/device-detector/issues/5463: answered with 206 where they could.
    "WhatsApp": [
        ("User-Agent", "WhatsApp/2.23.20.0 A"),
        ("Accept", "*/*"),
        ("Accept-Language", "en-US,en;q=0.9"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Range", "bytes=0-524287"),
    ],
    # https://github.com/flyerhq/flutter_link_previewer/pull/43
    "Signal": [("User-Agent", "WhatsApp/2"), ("Accept-Encoding", "identity")],
    "Telegram": [
        ("User-Agent", "TelegramBot (like TwitterBot)"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", "*/*"),
    ],
    # https://github.com/discord/discord-api-docs/issues/1600
    "Discord": [
        ("User-Agent", "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Range", "bytes=0-"),
    ],
    # https://developers.facebook.com/docs/sharing/webmasters/web-crawlers/: gzip and a range.
    "facebookexternalhit": [
        ("Accept", "*/*"),
        ("Accept-Encoding", "deflate, gzip"),
        (
            "User-Agent",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        ),
        ("Range", "bytes=0-524287"),
        ("Connection", "close"),
    ],
    # https://github.com/monperrus/crawler-user-agents
    "LinkedIn": [
        (
            "User-Agent",
            "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
        ),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Connection", "Keep-Alive"),
    ],
    # https://medium.com/@siggi/apples-imessage-impersonates-twitter-facebook-bots-when-scraping
    "iMessage": [
        ("User-Agent", IMESSAGE),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-us"),
        ("Accept-Encoding", "gzip, deflate"),
    ],
    "iMessage, icons": [
        ("User-Agent", "Mozilla/5.0 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"),
        ("Accept", "*/*"),
    ],
    # https://github.com/nextauthjs/next-auth/issues/1840
    "Safe Links in Outlook": [
        ("User-Agent", f"{CHROME} Edg/117.0.2045.47 OneOutlook/1.2023.927.100"),
        ("X-Native-Host", "OneOutlook/1.2023.927.100"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate, br"),
    ],
    # https://github.com/edalzell/laravel-passwordless-login/issues/79: plays a browser.
    "Safe Links, detonating": [
        ("User-Agent", CHROME),
        ("Accept", CHROME_ACCEPT),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Accept-Language", "en-US,en;q=0.9"),
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "none"),
        ("Upgrade-Insecure-Requests", "1"),
    ],
    # https://superuser.com/questions/1359127: Office opens a clicked link before the browser does.
    "Office": [
        ("Accept", "*/*"),
        ("User-Agent", "Mozilla/4.0 (compatible; ms-office; MSOffice 16)"),
        ("UA-CPU", "AMD64"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Connection", "Keep-Alive"),
    ],
    "Barracuda": [("User-Agent", "Barracuda Sentinel (EE)"), ("Accept", "*/*")],
    # https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Purpose
    "Chrome, speculation rules": [
        ("Sec-Purpose", "prefetch"),
        ("Upgrade-Insecure-Requests", "1"),
        ("User-Agent", CHROME),
        ("Accept", CHROME_ACCEPT),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ],
    "Chrome, prerendering": [
        ("Sec-Purpose", "prefetch;prerender"),
        ("Purpose", "prefetch"),
        ("User-Agent", CHROME),
        ("Accept", CHROME_ACCEPT),
    ],
    # <link rel=prefetch> in Chrome has no other name for it, and accepts anything.
    "Chrome, link rel=prefetch": [
        ("Purpose", "prefetch"),
        ("User-Agent", CHROME),
        ("Accept", "*/*"),
        ("Sec-Fetch-Mode", "no-cors"),
        ("Sec-Fetch-Dest", "empty"),
    ],
    "Firefox, link rel=prefetch": [
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "*/*"),
        ("Sec-Purpose", "prefetch"),
        ("Sec-Fetch-Dest", "empty"),
    ],
    "Safari, top hits": [
        ("X-Purpose", "preview"),
        ("User-Agent", "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15"),
        ("Accept", "*/*"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("headers", PREVIEWS.values(), ids=PREVIEWS)
def test_who_previews_changes_neither_record_nor_volume(
    stack: Stack, headers: list[tuple[str, str]]
) -> None:
    drop = stack.upload(BODY[:5000], name=NAME)
    before = everything(stack, drop)

    for method in ("HEAD", "GET", "GET"):
        lines = [f"{method} {httpx.URL(drop.url).path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers if name != "Connection"]
        client = RawClient(stack.deliver.port, "\n".join([*lines, "Connection: close"]))
        head = client.read_head()
        client.drain(5)
        client.close()
        assert head.startswith("HTTP/1.1 200 "), head
        assert "set-cookie" not in head.lower()
        if method == "GET":
            assert "content-type: text/html" in head.lower()
            assert b"<form" in client.received
            assert BODY[:64] not in client.received

    assert everything(stack, drop) == before
    assert receipt(drop)["state"] == "waiting"
    assert httpx.get(drop.url).content == BODY[:5000]


def test_curl_i_changes_neither_record_nor_volume(stack: Stack, tmp_path: Path) -> None:
    needs("curl")
    drop = stack.upload(BODY, name=NAME)
    before = everything(stack, drop)

    head = run(["curl", "-fsI", drop.url], tmp_path).lower()

    assert f"content-length: {len(BODY)}" in head
    assert f'filename="{NAME}"' in head
    assert everything(stack, drop) == before


# Who takes.

_IN_PYTHON = """
import re, sys, {library}
answer = {library}.get(sys.argv[1], timeout=60)
answer.raise_for_status()
name = re.search('filename="([^"/]+)"', answer.headers["Content-Disposition"])[1]
open(name, "wb").write(answer.content)
"""
# Without a terminal it would write the file there.
_HTTPIE = [*AT_TERMINAL, str(Path(sys.executable).with_name("http"))]
TAKERS = {
    "curl": ["curl", "-fsSOJ"],
    "wget": ["wget", "-q", "--content-disposition"],
    "aria2c -x1": ["aria2c", "-q", "-x1"],
    # Pieces as small as they get, so that a file of this size has four, and no faster than that
    # one connection would be done before the others have begun.
    "aria2c -x4": ["aria2c", "-q", "-x4", "-s4", "-k1M", "--max-download-limit=12M"],
    "httpie": [*_HTTPIE, "--ignore-stdin", "--check-status", "--download"],
    "requests": [sys.executable, "-c", _IN_PYTHON.format(library="requests")],
    "httpx": [sys.executable, "-c", _IN_PYTHON.format(library="httpx")],
}


def run(command: list[str], folder: Path) -> str:
    # HTTPie would leave a process behind that looks for a newer one.
    settings = folder.parent / "httpie"
    settings.mkdir(exist_ok=True)
    (settings / "config.json").write_text('{"disable_update_warnings": true}')
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "HTTPIE_CONFIG_DIR": str(settings), "HOME": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("command", TAKERS.values(), ids=TAKERS)
def test_a_download_program_gets_the_file_whole_once_and_with_its_name(
    stack: Stack, tmp_path: Path, command: list[str]
) -> None:
    needs(command[0])
    folder = tmp_path / "here"
    folder.mkdir()
    drop = stack.upload(BODY, name=NAME)

    run([*command, drop.url], folder)

    assert [path.name for path in folder.iterdir()] == [NAME]
    digest = hashlib.sha256((folder / NAME).read_bytes()).digest()
    assert digest == hashlib.sha256(BODY).digest()
    assert httpx.get(drop.url).status_code == 410
    # Several ranges are one delivery within a second of the last one's end.
    wait_until(lambda: receipt(drop)["state"] == "gone", 10, what="the delivery")
    assert receipt(drop)["reason"] == "delivered"
    assert receipt(drop)["acknowledged_bytes"] == len(BODY)
    wait_until(lambda: drop.id not in str(stack.files()), 10, what="the file to go")
    if "-x4" in command:
        wait_until(lambda: ranges_of(stack, drop) > 0, 10, what="a range of it in the log")


def receipt(drop: Uploaded) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(drop.owner_url).json()
    return document


def ranges_of(stack: Stack, drop: Uploaded) -> int:
    lines = [line for line in stack.deliver.logged().splitlines() if drop.id in line]
    return sum('"status": 206' in line for line in lines)
