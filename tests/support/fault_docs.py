"""docs/faults.md: the tables in it that tests come to, each between two comments."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- {name}:[^>]*-->\n)(.*?)(\n<!-- /{name} -->)", re.DOTALL)


def read(name: str) -> str:
    """What stands in this place."""
    found = _marked(name).search(_PAGE.read_text())
    assert found is not None, f"no place for {name} in {_PAGE.name}"
    return found[2]


def write(name: str, text: str) -> None:
    """Put this there."""
    page = _PAGE.read_text()
    new, count = _marked(name).subn(lambda found: found[1] + text + found[3], page)
    assert count == 1, f"no place for {name} in {_PAGE.name}"
    if new != page:
        _PAGE.write_text(new)
