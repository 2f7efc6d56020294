"""Asking a server, and believing nothing it answers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from oncedrop_cli.failures import (
    DropGone,
    Failure,
    LinkNotFound,
    Refused,
    Unavailable,
    UsageFailure,
)
from oncedrop_cli.links import origin
from oncedrop_cli.texts import local_text, shown

VERSION = importlib.metadata.version("oncedrop")
_CONNECT_SECONDS = 15
_SILENCE_SECONDS = 60
# The server flushes a large file to its disk, and hashes a password, before it answers.
_ANSWER_SECONDS = 600
# Nothing but a file is larger.
_ANSWER_BYTES = 64 * 1024
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_PROBLEM = "urn:oncedrop:problem:"

REASONS = {
    "claimed": "somebody is downloading it",
    "delivered": "it was downloaded",
    "interrupted": "a download of it broke off",
    "expired": "its time was over",
    "deleted": "its sender deleted it",
    "locked": "there were too many wrong passwords",
    "lost": "the server lost it",
    "abandoned": "its upload was never finished",
}
"""Why a drop cannot be had, by the `reason` of a 410 and of a receipt."""


def connection(*, silence_seconds: float = _SILENCE_SECONDS) -> httpx.Client:
    """A client that follows no redirect, so that no secret goes to a stranger.

    Proxies and certificates are those of the environment (HTTPS_PROXY, SSL_CERT_FILE).

    Args:
        silence_seconds: After how much of it a connection counts as lost.

    Raises:
        UsageFailure: The environment's proxy or certificates cannot be used.
    """
    try:
        return httpx.Client(
            follow_redirects=False,
            timeout=httpx.Timeout(silence_seconds, connect=_CONNECT_SECONDS),
            # Files come as they are, and no small answer can unfold into a large one.
            headers={"User-Agent": f"oncedrop/{VERSION}", "Accept-Encoding": "identity"},
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as exc:
        # Not in its own words: a proxy's address may hold a password.
        raise UsageFailure(
            "A proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) or certificates (SSL_CERT_FILE,"
            " SSL_CERT_DIR) of the environment cannot be used."
        ) from exc


def patient_connection() -> httpx.Client:
    """As connection, for requests whose answer takes as long as a disk takes."""
    return connection(silence_seconds=_ANSWER_SECONDS)


@contextlib.contextmanager
def reaching(url: httpx.URL) -> Iterator[None]:
    """Failures of the line, as a sentence.

    Raises:
        Unavailable: For whatever went wrong on the way.
        UsageFailure: The request cannot be said in HTTP.
    """
    where = origin(url)
    try:
        yield
    except httpx.ConnectError as exc:
        raise Unavailable(f"{where} cannot be reached: {_why(exc)}.") from exc
    except httpx.TimeoutException as exc:
        raise Unavailable(f"{where} does not answer.") from exc
    except httpx.LocalProtocolError as exc:
        # Its text holds what was to be sent.
        raise UsageFailure("Something in the command cannot be said in HTTP.") from exc
    except httpx.TransportError as exc:
        raise Unavailable(f"The connection to {where} broke: {_why(exc)}.") from exc


def _why(exc: Exception) -> str:
    return _ERRNO.sub("", shown(str(exc))).rstrip(".") or type(exc).__name__


def ask(
    client: httpx.Client, method: str, url: httpx.URL, **more: Any
) -> tuple[httpx.Response, bytes]:
    """One request with a small answer: its head and its body, cut at a bound.

    Raises:
        Unavailable: Nobody answers.
    """
    with reaching(url), client.stream(method, url, **more) as response:
        return response, read_small(response)


def read_small(response: httpx.Response) -> bytes:
    """The body of an answer that is no file, at most so much of it."""
    body = b""
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _ANSWER_BYTES:
            return body[:_ANSWER_BYTES]
    return body


def document_of(body: bytes) -> Mapping[str, Any]:
    """The JSON object in an answer; empty when it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def not_oncedrop(url: httpx.URL, what: str) -> Unavailable:
    """The failure for a 2xx that oncedrop would not have given."""
    return Unavailable(f"{origin(url)} does not answer as oncedrop does: {what}.")


def refusal(response: httpx.Response, body: bytes) -> Failure:
    """The failure for an answer that is not the one hoped for, in the server's own words."""
    status = response.status_code
    problem = document_of(body)
    sentence = _sentence(problem) or f"The server answered {status} {response.reason_phrase}."
    if response.is_redirect:
        return Refused(_elsewhere(response))
    if status == httpx.codes.NOT_FOUND:
        return LinkNotFound(sentence)
    if status == httpx.codes.GONE:
        return DropGone(_gone_sentence(problem) or sentence)
    if response.is_client_error or status == httpx.codes.INSUFFICIENT_STORAGE:
        return Refused(sentence, slug_of(problem))
    return Unavailable(sentence, _retry_after(response))


def slug_of(problem: Mapping[str, Any]) -> str:
    """The name of a problem document: `password_wrong`."""
    kind = problem.get("type")
    return kind.removeprefix(_PROBLEM) if isinstance(kind, str) else ""


def _sentence(problem: Mapping[str, Any]) -> str:
    """Title and detail, once where one repeats the other (RFC 9457 section 3.1)."""
    title, detail = (
        shown(text) if isinstance(text := problem.get(name), str) else ""
        for name in ("title", "detail")
    )
    if not title or detail.rstrip(".").casefold() == title.rstrip(".").casefold():
        return detail or title
    return f"{title}: {detail}" if detail else f"{title}."


def _gone_sentence(problem: Mapping[str, Any]) -> str:
    reason = problem.get("reason")
    if not isinstance(reason, str) or reason not in REASONS:
        return ""
    if reason == "claimed":
        return f"The file is taken: {REASONS[reason]}."
    moment = moment_of(problem, "gone_at")
    when = f" ({local_text(moment)})" if moment else ""
    return f"The file is gone: {REASONS[reason]}{when}."


def moment_of(document: Mapping[str, Any], name: str) -> datetime | None:
    """A time in a document; None when there is none that can be read."""
    text = document.get(name)
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        # Shown in local time later: at the calendar's ends that overflows.
        return moment.astimezone(UTC) if moment else None
    except (ValueError, OverflowError, OSError):
        return None


def _elsewhere(response: httpx.Response) -> str:
    try:
        target = response.url.join(response.headers.get("Location", ""))
        where = origin(target) if target.host else "nowhere"
    except (httpx.InvalidURL, ValueError):
        where = "nowhere"
    return (
        f"{origin(response.url)} sends us on to {shown(where)}; that is not followed, for the"
        " link would go with it. If it is right, use that address."
    )


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None  # noqa: PLR2004
