"""What oncedrop is meant to reach at least: shares of nginx in the same run, and plain bounds."""

from __future__ import annotations

from typing import NamedTuple

from bench.results import METRICS, Case


class Floor(NamedTuple):
    """One bound.

    Attributes:
        part: The part of the bench.
        case: How the case's name begins.
        who: The contender that is held to it.
        metric: Which number.
        least: It must be at least this.
        most: It must be at most this.
        beside: The contender whose value it is divided by; empty: the plain value counts.
    """

    part: str
    case: str
    who: str
    metric: str
    least: float | None = None
    most: float | None = None
    beside: str = ""


BARE = "oncedrop, no hash, no fsync"
NO_SYNC = "oncedrop, claim fsync off"
USUAL_ONCE = "WATCH/MULTI, os.remove"
STATIC = "nginx, static"

FLOORS = [
    Floor("download", "8 ×", "oncedrop", "mib_per_s", least=0.85, beside="nginx"),
    Floor("download", "8 ×", "oncedrop", "cpu_s_per_gib", most=1.3, beside="nginx"),
    Floor("upload", "PUT", BARE, "mib_per_s", least=0.80, beside="nginx"),
    Floor("upload", "PUT", "oncedrop", "mib_per_s", least=0.60, beside="nginx"),
    Floor("upload", "form", "oncedrop", "mib_per_s", least=0.40, beside="nginx"),
    Floor("claims", "", NO_SYNC, "requests_per_s", least=0.12, beside=STATIC),
    Floor("claims", "", NO_SYNC, "requests_per_s", least=2, beside=USUAL_ONCE),
    Floor("claims", "", NO_SYNC, "p99_ms", most=20),
    Floor("sweep", "1,000,000", "oncedrop", "seconds", most=20),
    Floor("sweep", "1,000,000", "oncedrop", "above_base_mib", most=100),
    Floor("sweep", "1,000,000", "oncedrop", "ping_worst_ms", most=10),
    Floor("latency", "during 4 downloads", "oncedrop, GET /healthz", "p99_ms", most=15),
    Floor("latency", "during 4 downloads", "oncedrop, HEAD of a drop", "p99_ms", most=15),
    Floor("size", "64 downloads", "oncedrop", "peak_mib", most=150),
    Floor("size", "64 uploads", "oncedrop, PUT", "peak_mib", most=150),
    Floor("size", "64 uploads", "oncedrop, form", "peak_mib", most=150),
]


def judged(case: Case) -> list[str]:
    """For each floor of this case, whether the median over the rounds meets it."""
    return [
        line
        for floor in FLOORS
        if floor.part == case.part and case.name.startswith(floor.case)
        for line in _judge(floor, case)
    ]


def _judge(floor: Floor, case: Case) -> list[str]:
    if floor.beside:
        spread = case.ratio(floor.who, floor.metric, floor.beside)
    else:
        spread = case.spread(floor.who, floor.metric)
    if spread is None:
        return []
    metric = METRICS[floor.metric]
    share = f" as a share of {floor.beside}" if floor.beside else ""
    unit = "" if floor.beside else f" {metric.unit}"
    if floor.least is not None:
        met, bound = spread.median >= floor.least, f"at least {floor.least:g}{unit}"
    else:
        most = floor.most or 0
        met, bound = spread.median <= most, f"at most {most:g}{unit}"
    verdict = "met" if met else "**missed**"
    what = f"{floor.who}, {metric.title}{share}"
    return [f"Floor {verdict}: {what}: {spread.median:.2f}{unit}, {bound} wanted."]
