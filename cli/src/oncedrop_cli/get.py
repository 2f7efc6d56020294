"""`oncedrop get`: a link in, the file out, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from oncedrop_cli.claiming import Claimant, offer_in
from oncedrop_cli.display import Display
from oncedrop_cli.failures import (
    ChecksumWrong,
    DropGone,
    Failure,
    LinkNotFound,
    LocalFailure,
    Unavailable,
)
from oncedrop_cli.patience import patiently
from oncedrop_cli.resuming import NoFile, Offer, ResumeFile
from oncedrop_cli.server import connection, not_oncedrop, reaching, read_small, refusal
from oncedrop_cli.sources import Told
from oncedrop_cli.target import PartSink, Sink, StdoutSink, Target
from oncedrop_cli.texts import percent_text, size_text

STDOUT = "-"
GIVE_UP_SECONDS = 600
"""How long to try without a byte: the lease a server gives unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Getting:
    """What the command was told.

    Attributes:
        output: A file, a folder, STDOUT, or None: the current folder.
        give_up_seconds: How long to try again without a byte of progress.
    """

    link: httpx.URL
    output: str | None
    force: bool
    password: str | None
    give_up_seconds: float
    as_json: bool


def get(getting: Getting, display: Display) -> None:
    """Take the file, and tell where it is.

    Raises:
        Failure: There is no file under the final name.
    """
    with connection() as client:
        if getting.output == STDOUT:
            _get_to_stdout(client, getting, display)
        else:
            _get_to_file(client, getting, display)


def _get_to_stdout(client: httpx.Client, getting: Getting, display: Display) -> None:
    sink = StdoutSink()
    claimant = Claimant(client, getting.link, NoFile(), getting.password, display)
    offer = claimant.take(lambda _offer: None)
    Fetch(claimant, client, getting, display).run(sink, offer)
    sink.flush()
    display.note(_as_sent(offer))


def _get_to_file(client: httpx.Client, getting: Getting, display: Display) -> None:
    target = Target(getting.output, force=getting.force)
    notes = ResumeFile(target.folder, getting.link)
    claimant = Claimant(client, getting.link, notes, getting.password, display)
    noted = claimant.resume()
    if noted is not None:
        target.check(target.path(noted.name))
    offer = noted or claimant.take(lambda o: target.check_all(target.path(o.name), o.size))
    path = target.path(offer.name)
    part = target.part(path)
    with PartSink(part, resume=noted is not None) as sink:
        started_at = sink.received
        try:
            Fetch(claimant, client, getting, display).run(sink, offer)
        except (DropGone, LinkNotFound, ChecksumWrong):
            notes.remove()
            display.note(f"{size_text(sink.received)} of {size_text(offer.size)} are in {part}.")
            raise
        except (Failure, KeyboardInterrupt):
            display.note(
                f"{percent_text(sink.received, offer.size)} is in {part}; the same command, in the"
                " same folder, goes on there, if it comes before the claim's lease ends."
            )
            raise
        sink.sync()
    target.put(part, path)
    notes.remove()
    _tell(display, getting, path, offer, started_at)


def _tell(display: Display, getting: Getting, path: Path, offer: Offer, started_at: int) -> None:
    if getting.as_json:
        document = {
            "path": str(path),
            "name": offer.name,
            "size": offer.size,
            "sha256": offer.sha256,
            "resumed_at": started_at,
        }
        display.result(json.dumps(document))
        return
    display.note(_as_sent(offer))
    display.result(str(path))


def _as_sent(offer: Offer) -> str:
    return f"{size_text(offer.size)}, SHA-256 as sent."


class _ClaimOver(Exception):
    """The claim was closed; the link itself may have more."""


class Fetch:
    """The transfer, over as many connections as it takes."""

    def __init__(
        self, claimant: Claimant, client: httpx.Client, getting: Getting, display: Display
    ) -> None:
        self._claimant = claimant
        self._client = client
        self._give_up_seconds = getting.give_up_seconds
        self._display = display

    def run(self, sink: Sink, offer: Offer) -> None:
        """Fill the sink.

        Raises:
            ChecksumWrong: It is full, of something else.
            DropGone, LinkNotFound: The claim is over, and the link gives no other.
            Unavailable: No byte came for too long.
            LocalFailure: The sink will not take them.
        """
        if sink.received > offer.size:
            raise LocalFailure("The .part is longer than the file; --force begins anew.")
        at = f", going on at {percent_text(sink.received, offer.size)}" if sink.received else ""
        self._display.note(f"Taking {offer.name}, {size_text(offer.size)}{at}.")
        with self._display.progress(offer.name, offer.size) as told:
            told(sink.received)
            # What is whole already is fetched once more only if it is nothing: it must be taken.
            if sink.received < offer.size or not offer.size:
                patiently(
                    lambda: self._once(sink, offer, told),
                    self._give_up_seconds,
                    self._display,
                    progress=lambda: sink.received,
                )
        if sink.sha256().hex() != offer.sha256:
            raise ChecksumWrong("What arrived is not what was sent: its SHA-256 is another.")

    def _once(self, sink: Sink, offer: Offer, told: Told) -> None:
        url = self._claimant.claim_url
        offset = sink.received
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and self._claimant.taking.etag:
            headers["If-Range"] = self._claimant.taking.etag
        try:
            with (
                reaching(url),
                self._client.stream("GET", url, headers=headers) as response,
            ):
                # A server may send all of it again (RFC 9110 section 14.2): then we skip.
                skip = offset - self._start(response, offset, offer)
                for chunk in response.iter_raw():
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    sink.write(chunk[skip:])
                    skip = 0
                    told(sink.received)
        except _ClaimOver:
            self._claimant.take_again()
            raise Unavailable("The claim had ended; the link gave another.") from None
        if sink.received != offer.size:
            raise Unavailable("The answer ended early.")

    def _start(self, response: httpx.Response, offset: int, offer: Offer) -> int:
        """Where in the file the answer's body begins."""
        status = response.status_code
        if status in (httpx.codes.GONE, httpx.codes.NOT_FOUND):
            raise _ClaimOver
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise self._refusal(response)
        again = offer_in(response)
        start = offset if status == httpx.codes.PARTIAL_CONTENT else 0
        expected = f"bytes {start}-{offer.size - 1}/{offer.size}"
        if status == httpx.codes.PARTIAL_CONTENT and (
            response.headers.get("Content-Range") != expected
        ):
            raise not_oncedrop(response.url, "it sends another range")
        if again.size != offer.size - start or again.sha256 != offer.sha256:
            raise not_oncedrop(response.url, "it sends another file")
        return start

    def _refusal(self, response: httpx.Response) -> Failure:
        failure = refusal(response, read_small(response))
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return Unavailable(str(failure))
        return failure
