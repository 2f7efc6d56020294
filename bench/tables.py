"""A run's numbers as tables: for a terminal, and for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.floors import judged
from bench.results import METRICS, Case, Run

# Of interest to who doubts the rest; told in one line.
_ASIDE = "other_cores"


def text(run: Run) -> str:
    """All cases, for a terminal."""
    lines = [f"{name}: {value}" for name, value in {**run.machine, **run.settings}.items()]
    for case in run.cases:
        lines += ["", f"{case.part}: {case.name}"]
        if case.values:
            rows = rows_of(case)
            widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
            lines += [
                "  ".join(
                    cell.ljust(width) for cell, width in zip(row, widths, strict=True)
                ).rstrip()
                for row in rows
            ]
        lines += remarks(case)
    lines += [f"\n{part}: not measured: {why}" for part, why in run.skipped.items()]
    lines += [f"\n{part}: failed: {why}" for part, why in run.failed.items()]
    return "\n".join(lines)


def markdown(run: Run, part: str) -> str:
    """The cases of one part, for a document."""
    if part in run.skipped:
        return f"Not measured: {run.skipped[part]}."
    blocks: list[str] = []
    for case in (case for case in run.cases if case.part == part):
        block = [f"**{case.name}**", ""]
        if case.values:
            head, *rows = rows_of(case)
            block += [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
            block += [_row(row) for row in rows]
        block += ["", *(f"- {remark}" for remark in remarks(case))]
        blocks.append("\n".join(block).rstrip())
    return "\n\n".join(blocks)


def machine_markdown(run: Run) -> str:
    """What the run ran on, and how, for a document."""
    rows = [_row(["", ""]), _row(["---", "---"])]
    rows += [_row([name, value]) for name, value in {**run.machine, **run.settings}.items()]
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rows_of(case: Case) -> list[list[str]]:
    """A head, then a row per contender: each metric's median over the rounds.

    Behind it, where that says anything, the median of the rounds' shares of the baseline's value,
    with the least and the most.
    """
    metrics = [metric for metric in case.metrics() if metric != _ASIDE]
    titles = [METRICS[metric] for metric in metrics]
    head = ["", *(f"{m.title}, {m.unit}" if m.unit else m.title for m in titles)]
    return [head, *([who, *(_cell(case, who, m) for m in metrics)] for who in case.values)]


def _cell(case: Case, who: str, metric: str) -> str:
    spread = case.spread(who, metric)
    if spread is None:
        return "–"
    cell = number(spread.median)
    ratio = case.ratio(who, metric) if METRICS[metric].shared and who != case.baseline else None
    if ratio is None:
        return cell
    return f"{cell} ×{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f})"


def number(value: float) -> str:
    """With about three digits, and never fewer than its whole ones."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def remarks(case: Case) -> list[str]:
    """What else there is to say: floors, what was not measured, what disturbed."""
    lines = judged(case)
    lines += [f"{name}: not measured: {why}" for name, why in case.skipped.items()]
    others = [value for who in case.values.values() for value in who.get(_ASIDE, [])]
    if others:
        lines.append(
            f"Other programs kept {statistics.median(others):.2f} cores busy meanwhile"
            f" (at most {max(others):.2f})."
        )
    return lines
