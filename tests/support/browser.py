"""Debian's chromium, watched: what a page asks of other hosts, or complains about, fails a test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = (1100, 800)
PHONE = (360, 740)
WAIT_MS = 15_000
# What chromium writes for every document whose status is no success: a gone page is one.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of [45]\d\d")
_SCREENSHOTS = os.environ.get("SCREENSHOTS_DIR")

Scheme = Literal["light", "dark"]


def require_chromium() -> str:
    """Where it is; skips where there is none, but never in CI."""
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed; .ci/run installs it")
        pytest.skip("needs chromium on the PATH (Debian's package has the name)")
    return CHROMIUM


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile.

    While it is there, an event loop of Playwright's runs in this thread: no asynchronous test can.
    """
    path = require_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """One person with one browser window.

    Attributes:
        page: The window.
        hosts: Whom its pages have asked for anything.
        complaints: Errors in the console, a violated Content-Security-Policy among them.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        width, height = options.pop("size", WIDE)
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            timezone_id="Europe/Berlin",
            **{"locale": "en-GB", **options},
        )
        self.context.set_default_timeout(WAIT_MS)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.context.on("request", lambda request: self.hosts.add(_host(request.url)))
        self.context.on("console", self._said)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.page: Page = self.context.new_page()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _REFUSED.match(message.text):
            self.complaints.append(message.text)

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        script = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))

    def screenshot(self, name: str, *, full: bool = True) -> None:
        """Write a picture of the page, or of its window, into $SCREENSHOTS_DIR, if that is set."""
        if _SCREENSHOTS:
            # Written here: Playwright would leave a thread behind that does it.
            Path(_SCREENSHOTS, f"{name}.png").write_bytes(self.page.screenshot(full_page=full))


def _host(url: str) -> str:
    parts = urlsplit(url)
    # What a page makes itself asks nobody.
    return parts.hostname or "" if parts.scheme in ("http", "https", "ws", "wss") else "127.0.0.1"
