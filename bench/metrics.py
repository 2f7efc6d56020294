"""Reads a service's own counters at /metrics."""

from __future__ import annotations

import re
import urllib.error
import urllib.request


def counter(url: str, name: str) -> float | None:
    """A counter without labels; None where the server has none of this name."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310 - http
            text = response.read().decode()
    except urllib.error.HTTPError:
        return None
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None
