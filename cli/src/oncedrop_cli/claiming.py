"""Taking a link: looking at what it is, and claiming it under a claim id of our own.

A direct GET would take too, but a drop with `confirm=always` would answer it with a page, and the
claim id of an answer that never arrived would be lost, the file with it. A POST with our own claim
id (docs/http-api.md) can be repeated, and takes nothing until the claim URL is asked for its bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import replace

import httpx

from oncedrop_cli.credentials import ask_password
from oncedrop_cli.display import Display
from oncedrop_cli.failures import DropGone, Failure, LinkNotFound, Refused, UsageFailure
from oncedrop_cli.links import same_origin
from oncedrop_cli.names import name_in
from oncedrop_cli.patience import patiently
from oncedrop_cli.resuming import ETAG, NoFile, Offer, ResumeFile, Taking
from oncedrop_cli.server import ask, not_oncedrop, refusal

_PASSWORD_TRIES = 3
# Nothing has come yet that would be worth a longer wait.
_CLAIM_SECONDS = 30
_FOR_SURE = (LinkNotFound, DropGone, Refused, UsageFailure)
# RFC 9530 section 2: a dictionary of byte sequences (RFC 8941 section 3.3.5).
_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):")


class Claimant:
    """One taker of one link.

    Args:
        client: Connected by whom it will be fetched.
        link: Well-formed.
        notes: Where an earlier run left its claim, and this one leaves its own.
        password: Of the drop, if it is known; else it is asked for where one is needed.
        display: Says what is taken.

    Attributes:
        taking: How far it has come.
    """

    def __init__(
        self,
        client: httpx.Client,
        link: httpx.URL,
        notes: ResumeFile | NoFile,
        password: str | None,
        display: Display,
    ) -> None:
        self.taking = Taking()
        self._client = client
        self._link = link
        self._notes = notes
        self._password = password
        self._given_password = password is not None
        self._needs_password = False
        self._display = display

    @property
    def claim_url(self) -> httpx.URL:
        """Where the bytes are."""
        return httpx.URL(self.taking.claim_url)

    def resume(self) -> Offer | None:
        """Go on with what an earlier run noted; None: it noted nothing."""
        noted = self._notes.read()
        if noted is not None:
            self.taking = noted
        return self.taking.offer

    def take(self, check: Callable[[Offer], None]) -> Offer:
        """Claim the link; not a byte of the file has come then.

        Args:
            check: Raises if the file cannot be used here; called before the claim, where the
                server tells what it is.

        Raises:
            Failure: As the server has it, or check. Nothing is used up.
        """
        seen = self._look(self._link)
        if seen is not None:
            check(seen[0])
        elif self._password is None and self._needs_password:
            self._ask_password()
        # An earlier run may have claimed and never heard of it: the same claim id, if it noted one.
        self._notes.write(self.taking)
        try:
            claim_url = patiently(self._claim, _CLAIM_SECONDS, self._display)
        except _FOR_SURE:
            self._notes.remove()
            raise
        self.taking = replace(self.taking, claim_url=str(claim_url))
        self._notes.write(self.taking)
        offer, etag = patiently(
            lambda: self._look_at_claim(claim_url), _CLAIM_SECONDS, self._display
        )
        if seen is None:
            check(offer)
        self.taking = replace(self.taking, offer=offer, etag=etag)
        self._notes.write(self.taking)
        return offer

    def take_again(self) -> None:
        """The claim is over; the link may still give another one, of the same file.

        Raises:
            Failure: As take.
        """
        before = self.taking.offer
        self.taking = Taking()

        def check(offer: Offer) -> None:
            if before is not None and (before.size, before.sha256) != (offer.size, offer.sha256):
                raise not_oncedrop(self._link, "the link leads to another file than before")

        self.take(check)

    def _look(self, url: httpx.URL) -> tuple[Offer, str] | None:
        """What the file is, and its entity tag; None: the server does not tell, or not now."""
        response, _ = ask(self._client, "HEAD", url)
        self._needs_password = response.status_code == httpx.codes.UNAUTHORIZED
        # A HEAD has no words for why not; the POST that follows has.
        if response.status_code != httpx.codes.OK:
            return None
        etag = response.headers.get("ETag", "")
        return offer_in(response), etag if ETAG.fullmatch(etag) else ""

    def _look_at_claim(self, url: httpx.URL) -> tuple[Offer, str]:
        found = self._look(url)
        if found is None:
            raise not_oncedrop(self._link, "the claim is not there")
        return found

    def _claim(self) -> httpx.URL:
        for _ in range(_PASSWORD_TRIES):
            form = {"claim": self.taking.claim}
            if self._password is not None:
                form["password"] = self._password
            response, body = ask(self._client, "POST", self._link, data=form)
            if response.status_code == httpx.codes.SEE_OTHER:
                return self._location(response)
            failure = refusal(response, body)
            if not self._to_be_asked(failure):
                raise failure
            if self._password is not None:
                self._display.note(str(failure))
            self._ask_password()
        raise failure

    def _to_be_asked(self, failure: Failure) -> bool:
        return (
            isinstance(failure, Refused)
            and failure.slug in ("password_needed", "password_wrong")
            and not self._given_password
        )

    def _ask_password(self) -> None:
        try:
            self._password = ask_password()
        except UsageFailure as exc:
            raise Refused(f"The file has a password. {exc}") from None

    def _location(self, response: httpx.Response) -> httpx.URL:
        try:
            url = self._link.join(response.headers.get("Location", ""))
        except (httpx.InvalidURL, ValueError):
            url = self._link
        if not same_origin(url, self._link):
            raise refusal(response, b"")
        if "/c/" not in url.path:
            raise not_oncedrop(self._link, "it names no claim")
        return url.copy_with(fragment=None)


def offer_in(response: httpx.Response) -> Offer:
    """What the headers of a file say it is.

    Raises:
        Unavailable: They are not what oncedrop sends.
    """
    headers = response.headers
    length = headers.get("Content-Length", "")
    digest = _DIGEST.search(headers.get("Repr-Digest", ""))
    if not (length.isascii() and length.isdigit()) or digest is None:
        raise not_oncedrop(response.url, "length or SHA-256 of the file is missing")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise not_oncedrop(response.url, "the file is encoded")
    try:
        sha256 = base64.b64decode(digest[1]).hex()
    except binascii.Error:
        raise not_oncedrop(response.url, "the SHA-256 cannot be read") from None
    return Offer(name_in(headers.get("Content-Disposition", "")), int(length), sha256)
