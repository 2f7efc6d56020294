"""A run's numbers as tables: for a terminal, and for Markdown."""

from __future__ import annotations

from bench.results import METRICS, Case, Run, Spread


def text(run: Run) -> str:
    """All cases, in columns."""
    lines: list[str] = [f"{name}: {value}" for name, value in run.machine.items()]
    for case in run.cases:
        rows = rows_of(case)
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        lines += ["", f"{case.part}: {case.name}"]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"{name}: not measured ({why})" for name, why in case.skipped.items()]
    lines += [f"\n{part}: not measured ({why})" for part, why in run.skipped.items()]
    return "\n".join(lines)


def rows_of(case: Case) -> list[list[str]]:
    """A head, then a row per contender: median of each metric, and its share of the baseline's.

    A share is the median of the rounds' shares, with the least and the most.
    """
    metrics = case.metrics()
    head = ["", *(_title(metric) for metric in metrics)]
    rows = [head]
    for contender in case.values:
        row = [contender]
        for metric in metrics:
            spread = case.spread(contender, metric)
            ratio = case.ratio(contender, metric) if contender != case.baseline else None
            row.append(_cell(metric, spread, ratio))
        rows.append(row)
    return rows


def _title(metric: str) -> str:
    title, unit, _ = METRICS[metric]
    return f"{title}, {unit}" if unit else title


def _cell(metric: str, spread: Spread | None, ratio: Spread | None) -> str:
    if spread is None:
        return "–"
    cell = f"{spread.median:.{METRICS[metric].decimals}f}"
    if ratio is None:
        return cell
    return f"{cell}  ×{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f})"
