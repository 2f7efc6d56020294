"""What a request's Authorization header brings."""

from __future__ import annotations

from starlette.requests import Request


def credentials(request: Request, scheme: str) -> str | None:
    """What follows this scheme (RFC 9110 section 11.4); None without it or with another one.

    Args:
        request: Whose header.
        scheme: In lower case: `bearer` (RFC 6750), `basic` (RFC 7617).
    """
    given, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if given.lower() == scheme else None
