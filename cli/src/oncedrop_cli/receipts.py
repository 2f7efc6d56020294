"""`oncedrop status` and `oncedrop delete`: what the receipt tells, and what it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from oncedrop_cli.display import Display
from oncedrop_cli.server import (
    REASONS,
    ask,
    connection,
    document_of,
    moment_of,
    not_oncedrop,
    refusal,
)
from oncedrop_cli.texts import local_text, percent_text, shown, size_text, until_text

_ACCEPT = {"Accept": "application/json"}
_STATES = ("uploading", "waiting", "claimed", "gone")
_TEXTS = ("id", "state", "reason", "name", "created_at", "expires_at", "claimed_at", "gone_at")
_NUMBERS = ("size", "acknowledged_bytes", "max_downloads", "downloads_left")


def status(receipt: httpx.URL, display: Display, *, as_json: bool) -> None:
    """Tell what became of the drop.

    Raises:
        Failure: The server does not tell.
    """
    with connection() as client:
        response, body = ask(client, "GET", receipt, headers=_ACCEPT)
    if not response.is_success:
        raise refusal(response, body)
    document = _known(document_of(body))
    if document.get("state") not in _STATES:
        raise not_oncedrop(receipt, "this is no receipt")
    display.result(json.dumps(document) if as_json else "\n".join(lines_of(document)))


def delete(receipt: httpx.URL, display: Display, *, as_json: bool) -> None:
    """End the drop now, and tell what was done.

    Raises:
        Failure: It was not; the server does not tell, or could not remove the file.
    """
    with connection() as client:
        response, body = ask(client, "DELETE", receipt, headers=_ACCEPT)
    if not response.is_success:
        raise refusal(response, body)
    document = document_of(body)
    reason, deleted, count = (document.get(name) for name in ("reason", "file_deleted", "bytes"))
    if reason not in REASONS or not isinstance(deleted, bool) or type(count) is not int:
        raise not_oncedrop(receipt, "it does not say what was deleted")
    if as_json:
        told = {"state": "gone", "reason": reason, "file_deleted": deleted, "bytes": count}
        display.result(json.dumps(told))
        return
    if deleted:
        display.result(f"Deleted: the link is dead, the file removed, {size_text(count)} freed.")
    elif reason == "deleted":
        display.result("It was deleted before; there is no file.")
    else:
        display.result(f"There is no file any more: {REASONS[reason]}.")


def _known(document: Mapping[str, Any]) -> dict[str, str | int]:
    """The members of a receipt that are what they should be; the rest is left out."""
    texts = {n: shown(document[n]) for n in _TEXTS if isinstance(document.get(n), str)}
    numbers = {n: document[n] for n in _NUMBERS if _is_count(document.get(n))}
    return {**texts, **numbers}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def lines_of(document: Mapping[str, Any]) -> list[str]:
    """A receipt in words.

    Args:
        document: As the server gave it, checked; `state` is one of the four.
    """
    size, acknowledged = document.get("size", 0), document.get("acknowledged_bytes", 0)
    lines = []
    if name := document.get("name"):
        lines.append(f"{name}, {size_text(size)}")
    lines.append(_state_line(document, percent_text(acknowledged, size)))
    most, left = document.get("max_downloads", 1), document.get("downloads_left", 0)
    if most > 1 and document["state"] != "gone":
        lines.append(f"{left} of {most} downloads are left.")
    expires = moment_of(document, "expires_at")
    if expires and document["state"] in ("waiting", "claimed"):
        lines.append(f"The link works until {until_text(expires)}.")
    return lines


def _state_line(document: Mapping[str, Any], how_far: str) -> str:
    match document["state"]:
        case "uploading":
            return "Being uploaded."
        case "waiting":
            return "Waiting: nobody is downloading it."
        case "claimed":
            since = moment_of(document, "claimed_at")
            when = f" since {local_text(since)}" if since else ""
            return f"Being downloaded{when}: {how_far} has arrived."
        case _:
            return _end_line(document, how_far)


def _end_line(document: Mapping[str, Any], how_far: str) -> str:
    reason, gone_at = document.get("reason"), moment_of(document, "gone_at")
    when = f" ({local_text(gone_at)})" if gone_at else ""
    why = REASONS.get(reason or "", "the server does not say why")
    match reason:
        case "delivered":
            return f"Delivered{when}."
        case "interrupted":
            return f"Gone{when}: {why} at {how_far} and did not come back."
        case "expired" if not document.get("acknowledged_bytes"):
            return f"Gone{when}: {why}, and nobody had fetched it."
        case _:
            return f"Gone{when}: {why}."
