"""What a client says it takes: the Accept header (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from typing import Self

from starlette.requests import HTTPConnection

_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)


class Accept:
    """The media ranges of one request; parameters other than `q` are ignored."""

    def __init__(self, header: str) -> None:
        self._weights: dict[str, float] = {}
        for element in header.split(","):
            media_range, *parameters = (part.strip().lower() for part in element.split(";"))
            weight = weight_of(parameters)
            if weight is not None and "/" in media_range:
                self._weights[media_range] = weight

    @classmethod
    def of(cls, request: HTTPConnection) -> Self:
        """What this request accepts, all its Accept lines taken together."""
        return cls(",".join(request.headers.getlist("accept")))

    def quality(self, media_type: str) -> float:
        """How much this type is wanted, 0 to 1, by the most specific range that covers it.

        Without any usable Accept header everything is wanted.
        """
        if not self._weights:
            return 1.0
        ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        return next((self._weights[r] for r in ranges if r in self._weights), 0.0)

    def names(self, media_type: str) -> bool:
        """Whether the type itself, not only a wildcard that covers it, is wanted."""
        return self._weights.get(media_type, 0.0) > 0

    @property
    def prefers_page(self) -> bool:
        """Whether a person reads the answer: HTML is named and wanted no less than JSON."""
        return self.names("text/html") and self.quality("text/html") >= max(
            self.quality("application/json"), self._weights.get("application/problem+json", 0.0)
        )


def weight_of(parameters: list[str]) -> float | None:
    """The `q` among a range's parameters, 1 without one, None when it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            value = value.strip()
            return float(value) if _WEIGHT.fullmatch(value) else None
    return 1.0
