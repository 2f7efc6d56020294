"""The links that ingest hands out, and where they point."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from starlette.requests import Request

from oncedrop_common.drops import DropId
from oncedrop_common.errors import RequestInvalid
from oncedrop_common.settings import Settings

# RFC 9110 section 7.2: a name or IPv4 address, or an IPv6 address in brackets; perhaps a port.
# What this does not match is no host anyone uses, and would end up in a link.
_HOST = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?",
    re.ASCII,
)
_NO_HOST = "localhost"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where links of one request lead: scheme, host and port, without a slash at the end."""

    deliver: str
    ingest: str

    @classmethod
    def of(cls, request: Request, settings: Settings) -> Self:
        """PUBLIC_URL, or the host the client itself used, with each service's port.

        Raises:
            RequestInvalid: The Host header is not one; names it.
        """
        if settings.public_url is not None:
            return cls(settings.public_url, settings.public_url)
        hosts = request.headers.getlist("host") or [_NO_HOST]
        match = _HOST.fullmatch(hosts[0])
        if len(hosts) > 1 or match is None:
            raise RequestInvalid("The Host header is not a host's name.", field="Host")
        base = f"{request.url.scheme}://{match[1]}"
        return cls(f"{base}:{settings.deliver_port}", f"{base}:{settings.ingest_port}")

    def link(self, token: str) -> str:
        """What is passed on: it works once."""
        return f"{self.deliver}/d/{token}"

    def receipt(self, drop_id: DropId, owner_key: str) -> str:
        """What the uploader keeps: it tells what became of the drop, and deletes it."""
        return f"{self.ingest}/o/{drop_id}.{owner_key}"
