"""A run as pictures, legible on a light and on a dark page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.floors import BARE, NO_SYNC, USUAL_ONCE
from bench.results import Case, Run

mpl.use("agg")

# Middle tones: at least 3:1 against white and against near black.
_INK = "#808890"
_OURS, _OURS_BARE, _USUAL = "#2f81f7", "#7db1fa", "#d29922"
_STYLE = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_DPI = 160

# Panel title, part, how the case's name begins, metric, and whose bars; the last is the usual way.
_PANELS = [
    ("download, 8 at once", "download", "8 ×", "mib_per_s",
     {"oncedrop": _OURS, "FileResponse": _USUAL}),
    ("upload, PUT", "upload", "PUT", "mib_per_s",
     {"oncedrop": _OURS, BARE: _OURS_BARE, "Starlette stream()": _USUAL}),
    ("upload, form", "upload", "form", "mib_per_s",
     {"oncedrop": _OURS, BARE: _OURS_BARE, "Starlette form()": _USUAL}),
    ("one-time links, 1 KiB", "claims", "", "requests_per_s",
     {"oncedrop": _OURS, NO_SYNC: _OURS_BARE, USUAL_ONCE: _USUAL}),
]  # fmt: skip


def draw(run: Run, folder: Path) -> list[Path]:
    """Draw what the run has numbers for.

    Returns:
        The files that were written.
    """
    with plt.rc_context(_STYLE):
        pictures = {"shares.png": _shares(run), "growth.png": _growth(run)}
        written = []
        for name, figure in pictures.items():
            if figure is not None:
                written.append(folder / name)
                figure.savefig(folder / name, dpi=_DPI, transparent=True, bbox_inches="tight")
                plt.close(figure)
    return written


def _find(run: Run, part: str, begins: str) -> Case | None:
    return next((c for c in run.cases if c.part == part and c.name.startswith(begins)), None)


def _shares(run: Run) -> Any:
    """Rates as shares of nginx in the same run: the median of the rounds, and their extremes."""
    found = [(panel, case) for panel in _PANELS if (case := _find(run, panel[1], panel[2]))]
    if not found:
        return None
    figure, axes = plt.subplots(len(found), 1, figsize=(8, 1.35 * len(found)), squeeze=False)
    for (panel, case), axis in zip(found, axes[:, 0], strict=True):
        title, _, _, metric, colours = panel
        _bars(axis, case, metric, colours)
        axis.set_title(f"{title}: share of {case.baseline}", loc="left", fontsize=10)
    figure.tight_layout()
    return figure


def _bars(axis: Any, case: Case, metric: str, colours: dict[str, str]) -> None:
    ratios = {who: case.ratio(who, metric) for who in reversed(colours)}
    most = 1.0
    for who, ratio in ratios.items():
        if ratio is None:
            continue
        error = [[ratio.median - ratio.least], [ratio.most - ratio.median]]
        axis.barh(who, ratio.median, xerr=error, color=colours[who], height=0.65,
                  error_kw={"ecolor": _INK, "capsize": 3})  # fmt: skip
        axis.annotate(f"{ratio.median:.2f}", (ratio.most, who), xytext=(8, 0),
                      textcoords="offset points", va="center")  # fmt: skip
        most = max(most, ratio.most)
    axis.axvline(1, color=_INK, linestyle="--", linewidth=1)
    axis.set_xlim(0, most * 1.15)


def _growth(run: Run) -> Any:
    """Throughput as files and connections grow."""
    series: dict[str, list[Case]] = {}
    for case in run.cases:
        if case.series and case.values:
            series.setdefault(case.series, []).append(case)
    if not series:
        return None
    figure, axes = plt.subplots(1, len(series), figsize=(4 * len(series), 3.4), squeeze=False)
    for (title, cases), axis in zip(series.items(), axes[0], strict=True):
        for who, colour in (("nginx", _INK), ("oncedrop", _OURS)):
            spreads = {case.point: case.spread(who, "mib_per_s") for case in cases}
            medians = {point: spread.median for point, spread in spreads.items() if spread}
            axis.plot(list(medians), list(medians.values()), "o-", color=colour, label=who)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter("")
        axis.set_title(title, loc="left", fontsize=10)
        axis.tick_params(axis="x", rotation=45)
    axes[0][0].set_ylabel("MiB/s")
    axes[0][0].legend(frameon=False, labelcolor=_INK)
    figure.tight_layout()
    return figure
