"""Whether a GET looks at a link or takes the file (docs/architecture.md: looking is free).

Looking changes nothing, so each doubt is decided for looking, except where a download program
would then get a page instead of its file.
"""

from __future__ import annotations

import re
from enum import StrEnum
from importlib import resources

from starlette.datastructures import Headers

from oncedrop_common.accept import Accept
from oncedrop_common.drops import Confirm


class Look(StrEnum):
    """Why a request was judged to be looking; a label in the metrics."""

    AGENT = "agent"
    PREFETCH = "prefetch"
    HTML = "html"
    CONFIRM = "confirm"


# Sec-Purpose: the Fetch standard. X-Moz: Firefox before 115. Purpose: Chromium's <link
# rel=prefetch>. X-Purpose: Safari's previews and Facebook's app.
_PURPOSE_HEADERS = {b"sec-purpose", b"purpose", b"x-moz", b"x-purpose"}
_AHEAD_OF_A_VISIT = {"prefetch", "prerender", "preview", "instant"}
_WORDS = re.compile(r"[a-z-]+")


def _read_agents() -> tuple[str, ...]:
    text = resources.files("oncedrop_deliver").joinpath("looking_agents.txt").read_text("utf-8")
    agents = (line.partition("#")[0].strip().lower() for line in text.splitlines())
    return tuple(agent for agent in agents if agent)


PREVIEW_AGENTS = _read_agents()
"""Lower-case parts of User-Agent values that only ever look."""

_PREVIEW_AGENT = re.compile("|".join(map(re.escape, PREVIEW_AGENTS)))


def why_looking(headers: Headers, confirm: Confirm = Confirm.AUTO) -> Look | None:
    """Why this GET is looking, or None: it takes.

    Args:
        headers: The request's.
        confirm: The drop's option; ALWAYS makes every GET a look. Without it the headers alone
            are judged.
    """
    if _PREVIEW_AGENT.search(headers.get("user-agent", "").lower()):
        return Look.AGENT
    if any(name in _PURPOSE_HEADERS and _ahead_of_a_visit(value) for name, value in headers.raw):
        return Look.PREFETCH
    # Browsers name it; curl, wget and the HTTP libraries send `*/*` or nothing.
    if Accept(",".join(headers.getlist("accept"))).names("text/html"):
        return Look.HTML
    return Look.CONFIRM if confirm is Confirm.ALWAYS else None


def _ahead_of_a_visit(purpose: bytes) -> bool:
    return not _AHEAD_OF_A_VISIT.isdisjoint(_WORDS.findall(purpose.decode("latin-1").lower()))
