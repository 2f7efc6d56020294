"""`make bench-docs`: put a run's tables and plots into docs/, between the marks that name a part.

docs/performance.json keeps the run, so that the tables can be made again.
"""

from __future__ import annotations

import re
import shutil
import sys

from bench.load import ROOT
from bench.results import RESULTS, Run
from bench.tables import machine_markdown, markdown

DOCS = ROOT / "docs"
DOCUMENT = DOCS / "performance.md"
KEPT = DOCS / "performance.json"
PICTURES = DOCS / "performance"
_OUT = ROOT / "build/bench"
_BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def rendered(text: str, run: Run) -> str:
    """The document with this run's tables in the place of what was there."""

    def block(found: re.Match[str]) -> str:
        part = found[2]
        content = machine_markdown(run) if part == "machine" else markdown(run, part)
        return f"{found[1]}{content}\n{found[3]}"

    return _BLOCK.sub(block, text)


def main() -> int:
    """Take the last run's results."""
    results = _OUT / RESULTS
    if not results.exists():
        sys.stderr.write("no results: make bench first\n")
        return 1
    run = Run.load(results)
    text = DOCUMENT.read_text()
    measured = {"machine", *(case.part for case in run.cases), *run.skipped} - set(run.failed)
    if missing := {found[2] for found in _BLOCK.finditer(text)} - measured:
        sys.stderr.write(f"not in the last run: {', '.join(sorted(missing))}\n")
        return 1
    shutil.copyfile(results, KEPT)
    PICTURES.mkdir(exist_ok=True)
    for picture in _OUT.glob("*.png"):
        shutil.copyfile(picture, PICTURES / picture.name)
    DOCUMENT.write_text(rendered(text, run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
