"""The addresses people paste: the server's, a link, a receipt. Told apart before anything is asked.

A GET of a download link takes the file, so a link in the wrong command must never be tried out.
"""

from __future__ import annotations

import re
import sys

import httpx

from oncedrop_cli.failures import UsageFailure

_SECRET = "[A-Za-z0-9_-]{22}"  # noqa: S105 - a pattern
_LINK = re.compile(rf"(?:/[^?#]*)?/d/{_SECRET}")
_RECEIPT = re.compile(rf"(?:/[^?#]*)?/o/[0-9a-f]{{32}}\.{_SECRET}")
_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = 4096


def server_address(text: str) -> httpx.URL:
    """The server's address, its path ending with a slash.

    Raises:
        UsageFailure: Not an http or https address.
    """
    url = _http_url(text.strip(), "The server's address")
    if url.query or url.fragment:
        raise UsageFailure("The server's address has neither a query nor a fragment.")
    return url.copy_with(raw_path=url.raw_path.rstrip(b"/") + b"/")


def download_link(argument: str) -> httpx.URL:
    """The link to a file; `-` reads it from standard input.

    Raises:
        UsageFailure: It is none; a receipt, say.
    """
    url = _http_url(_given(argument), "The link")
    if _RECEIPT.fullmatch(url.path):
        raise UsageFailure("This is a receipt; what `get` needs is the link with /d/ in it.")
    if not _LINK.fullmatch(url.path):
        raise UsageFailure("This is not a link of oncedrop: https://…/d/ and 22 characters.")
    return url.copy_with(fragment=None)


def receipt_link(argument: str) -> httpx.URL:
    """The link to a receipt; `-` reads it from standard input.

    Raises:
        UsageFailure: It is none; the link to the file, say.
    """
    url = _http_url(_given(argument), "The receipt's link")
    if _LINK.fullmatch(url.path):
        raise UsageFailure(
            "This is the link to the file, left alone so that it stays unused; needed is the"
            " receipt's, with /o/ in it."
        )
    if not _RECEIPT.fullmatch(url.path):
        raise UsageFailure("This is not a receipt of oncedrop: https://…/o/ and two codes.")
    return url.copy_with(fragment=None)


def _given(argument: str) -> str:
    text = sys.stdin.readline(_URL_CHARACTERS + 2) if argument == "-" else argument
    return text.strip()


def _http_url(text: str, what: str) -> httpx.URL:
    try:
        url = httpx.URL(text if len(text) <= _URL_CHARACTERS else "")
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL("")
    if url.scheme not in _PORTS or not url.host:
        raise UsageFailure(f"{what} must begin with http:// or https:// and a host.")
    return url


def origin(url: httpx.URL) -> str:
    """Scheme, host and port: what of an address may be shown, for it holds no secret."""
    # An IPv6 address is in brackets there; names and passwords of users are not in it.
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether both lead to the same server (RFC 6454 section 5)."""

    def triple(url: httpx.URL) -> tuple[str, str, int | None]:
        return url.scheme, url.host, url.port or _PORTS.get(url.scheme)

    return triple(one) == triple(other)
