"""What a killed download needs to go on: the claim, in a file beside the `.part`.

`.oncedrop-<32 hex digits>.json`, mode 0600. The digits are made from the link, so that the next
`oncedrop get` of the same link, in the same folder, finds it; the link itself is not in it. The
claim is: whoever reads the file can fetch the rest, until the lease ends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from oncedrop_cli.failures import LocalFailure
from oncedrop_cli.links import same_origin
from oncedrop_cli.names import safe_name

_VERSION = 1
_CLAIM_BYTES = 16
_CLAIM = re.compile(r"[A-Za-z0-9_-]{22}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
ETAG = re.compile(r'"[!#-~]{1,100}"')
"""A strong entity tag (RFC 9110 section 8.8.3)."""
_FILE_BYTES = 16 * 1024


def mint_claim() -> str:
    """A claim id: 16 random bytes, base64url (docs/http-api.md)."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_CLAIM_BYTES)).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server says the file is.

    Attributes:
        name: Made safe.
        size: Bytes.
        sha256: Hex digest.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Taking:
    """How far one download has come.

    Attributes:
        claim: The claim id with which the link is taken; chosen here, and noted before the server
            hears of it, so that an answer that is lost loses nothing.
        claim_url: Where the file is fetched; empty until the server has told.
        etag: Strong, bound to the claim; empty until the server has told.
        offer: None until the server has told.
    """

    claim: str = field(default_factory=mint_claim)
    claim_url: str = ""
    etag: str = ""
    offer: Offer | None = None

    @classmethod
    def parse(cls, content: bytes, link: httpx.URL) -> Self | None:
        """What a file holds; None when that is nothing to go on with.

        Args:
            content: Of the file; whoever can write to the folder may have made it.
            link: The claim must lead to the same server.
        """
        try:
            fields: dict[str, Any] = json.loads(content)
            if fields.pop("version") != _VERSION:
                return None
            offer = fields.pop("offer")
            taking = cls(**fields, offer=Offer(**offer) if offer else None)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return taking if taking._sound(link) else None

    def _sound(self, link: httpx.URL) -> bool:
        try:
            url = httpx.URL(self.claim_url) if self.claim_url else None
            return (
                _CLAIM.fullmatch(self.claim) is not None
                and (url is None or same_origin(url, link))
                and (not self.etag or ETAG.fullmatch(self.etag) is not None)
                and (self.offer is None or (url is not None and self._sound_offer(self.offer)))
            )
        except (TypeError, httpx.InvalidURL):
            return False

    @staticmethod
    def _sound_offer(offer: Offer) -> bool:
        return (
            safe_name(offer.name) == offer.name
            and type(offer.size) is int
            and offer.size >= 0
            and _SHA256.fullmatch(offer.sha256) is not None
        )


class ResumeFile:
    """The file of one link in one folder."""

    def __init__(self, folder: Path, link: httpx.URL) -> None:
        digest = hashlib.sha256(f"oncedrop get {link}".encode()).hexdigest()[:32]
        self._link = link
        self._path = folder / f".oncedrop-{digest}.json"

    def read(self) -> Taking | None:
        """What an earlier run noted; None without one."""
        try:
            fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        with open(fd, "rb") as file:
            return Taking.parse(file.read(_FILE_BYTES), self._link)

    def write(self, taking: Taking) -> None:
        """Note it, as a whole or not at all.

        Raises:
            LocalFailure: The disk will not.
        """
        new = self._path.with_suffix(".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w") as file:
                json.dump({"version": _VERSION, **asdict(taking)}, file)
            new.replace(self._path)
        except OSError as exc:
            raise LocalFailure(f"{self._path}: {exc.strerror}.") from exc

    def remove(self) -> None:
        """There is nothing to go on with any more."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class NoFile:
    """For standard output: a process that ends has nothing to go on with."""

    def read(self) -> Taking | None:
        """Nothing."""
        return None

    def write(self, taking: Taking) -> None:
        """Nowhere."""

    def remove(self) -> None:
        """Nothing there."""
