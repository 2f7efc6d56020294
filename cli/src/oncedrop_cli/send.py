"""`oncedrop send`: bytes in, a link out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from oncedrop_cli.display import Display
from oncedrop_cli.failures import ChecksumWrong, Failure, UsageFailure
from oncedrop_cli.links import receipt_link, same_origin
from oncedrop_cli.server import (
    ask,
    document_of,
    moment_of,
    not_oncedrop,
    patient_connection,
    refusal,
)
from oncedrop_cli.sources import STDIN, Entry, Found, PartFile, Stream, find
from oncedrop_cli.texts import size_text, until_text

_FIELD = "file"
_LINK = re.compile(r"https?://[!-~]{1,2000}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Sending:
    """What the command was told.

    Attributes:
        name: The drop's, where another than the file's is wanted.
        options: As Oncedrop-* headers; a password is among them.
    """

    server: httpx.URL
    paths: list[str]
    name: str | None
    options: Mapping[str, str]
    token: str | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """What the server answered, checked."""

    url: str
    owner_url: str
    id: str
    expires_at: datetime
    size: int
    sha256: str
    max_downloads: int

    @classmethod
    def of(cls, server: httpx.URL, document: Mapping[str, Any]) -> Sent:
        """The server's answer to an upload.

        Raises:
            Unavailable: It is not what oncedrop answers.
        """
        expires_at = moment_of(document, "expires_at")
        fits = (
            _fits(document, _LINK, "url", "owner_url")
            and _fits(document, _SHA256, "sha256")
            and _fits(document, _ID, "id")
            and all(type(document.get(name)) is int for name in ("size", "max_downloads"))
        )
        if not fits or expires_at is None:
            raise not_oncedrop(server, "the upload's answer has no usable link")
        return cls(
            url=document["url"],
            owner_url=document["owner_url"],
            id=document["id"],
            expires_at=expires_at,
            size=document["size"],
            sha256=document["sha256"],
            max_downloads=document["max_downloads"],
        )

    def as_json(self) -> str:
        """One line with all of it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["expires_at"] = self.expires_at.isoformat().replace("+00:00", "Z")
        return json.dumps(fields)


def _fits(document: Mapping[str, Any], pattern: re.Pattern[str], *names: str) -> bool:
    values = [document.get(name) for name in names]
    return all(isinstance(value, str) and pattern.fullmatch(value) for value in values)


def send(sending: Sending, display: Display) -> None:
    """Upload, and tell the link.

    Raises:
        Failure: No link works.
    """
    with patient_connection() as client:
        if sending.paths == [STDIN]:
            sent = _send_stream(client, sending, STDIN, display)
        else:
            sent = _send_files(client, sending, display)
    if sending.as_json:
        display.result(sent.as_json())
        return
    display.result(sent.url)
    downloads = "once" if sent.max_downloads == 1 else f"{sent.max_downloads} times"
    display.details(
        [
            f"Works {downloads}, until {until_text(sent.expires_at)}.",
            f"Receipt: {sent.owner_url}",
        ],
        qr_of=sent.url,
    )


def _send_files(client: httpx.Client, sending: Sending, display: Display) -> Sent:
    if STDIN in sending.paths:
        raise UsageFailure("Standard input (-) is sent alone, without other files.")
    if len(sending.paths) == 1 and not Path(sending.paths[0]).is_dir():
        return _send_stream(client, sending, sending.paths[0], display)
    found = find(sending.paths)
    for path in found.left_out:
        display.note(f"left out: {path} (no plain file)")
    if len(found.entries) == 1:
        return _send_stream(client, sending, found.entries[0].path, display)
    if sending.name is not None:
        raise UsageFailure("--name is for one file; an archive gets its folder's name.")
    return _send_form(client, sending, found, display)


def _send_stream(
    client: httpx.Client, sending: Sending, path: str | Path, display: Display
) -> Sent:
    stream = Stream(path)
    try:
        name = sending.name or stream.name
        headers = _headers(sending)
        if stream.size is not None:
            headers["Content-Length"] = str(stream.size)
        # A name is bytes on some systems, and then they are what is sent.
        url = sending.server.join(quote(name.encode(errors="surrogateescape"), safe=""))
        with display.progress(name, stream.size) as told:
            response, body = ask(client, "PUT", url, headers=headers, content=stream.chunks(told))
    finally:
        stream.close()
    sent = _sent(sending, response, body)
    if (sent.size, sent.sha256) != (stream.sent, stream.sha256):
        raise ChecksumWrong(
            "The server stored other bytes than were sent; "
            + ("the drop was deleted." if _withdrawn(client, sending, sent) else "do not use it.")
        )
    return sent


def _send_form(client: httpx.Client, sending: Sending, found: Found, display: Display) -> Sent:
    total = sum(entry.size for entry in found.entries)
    parts: list[PartFile] = []
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        told(done)

    def part(entry: Entry) -> tuple[str, tuple[str, Any]]:
        parts.append(PartFile(entry, count))
        name = entry.name.encode(errors="surrogateescape").decode(errors="replace")
        return _FIELD, (name, parts[-1])

    what = f"{len(found.entries)} files, {size_text(total)}"
    try:
        with display.progress(what, total) as told:
            response, body = ask(
                client,
                "POST",
                sending.server.join("upload"),
                headers=_headers(sending),
                files=[part(entry) for entry in found.entries],
            )
    finally:
        for file in parts:
            file.close()
    return _sent(sending, response, body)


def _headers(sending: Sending) -> dict[str, str | bytes]:
    headers: dict[str, str | bytes] = {"Accept": "application/json"}
    for name, value in sending.options.items():
        headers[f"Oncedrop-{name}"] = value.encode()
    if sending.token is not None:
        headers["Authorization"] = f"Bearer {sending.token}"
    return headers


def _sent(sending: Sending, response: httpx.Response, body: bytes) -> Sent:
    if response.status_code != httpx.codes.CREATED:
        if response.is_success:
            raise not_oncedrop(sending.server, f"an upload gave {response.status_code}")
        raise refusal(response, body)
    return Sent.of(sending.server, document_of(body))


def _withdrawn(client: httpx.Client, sending: Sending, sent: Sent) -> bool:
    """Whether the drop that should not be is deleted; no other server is asked for that."""
    try:
        receipt = receipt_link(sent.owner_url)
        if not same_origin(receipt, sending.server):
            return False
        response, _ = ask(client, "DELETE", receipt, headers={"Accept": "application/json"})
    except Failure:
        return False
    return response.is_success
