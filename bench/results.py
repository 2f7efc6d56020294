"""What a run yields: numbers by case, contender, metric and round; kept as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

RESULTS = "results.json"
"""The file's name."""

Sample = Mapping[str, float]
"""One contender in one round: metric to value."""


class Metric(NamedTuple):
    """How a number is called, and whether its share of the baseline's says anything."""

    title: str
    unit: str
    shared: bool = True


METRICS = {
    "mib_per_s": Metric("throughput", "MiB/s"),
    "requests_per_s": Metric("rate", "1/s"),
    "seconds": Metric("time", "s"),
    "ms_per_file": Metric("time a file", "ms"),
    "p50_ms": Metric("p50", "ms", shared=False),
    "p99_ms": Metric("p99", "ms", shared=False),
    "worst_ms": Metric("worst", "ms", shared=False),
    "ping_p99_ms": Metric("valkey's ping p99", "ms", shared=False),
    "ping_worst_ms": Metric("valkey's worst ping", "ms", shared=False),
    "cpu_s_per_gib": Metric("server CPU", "s/GiB"),
    "both_cpu_s_per_gib": Metric("CPU of both ends", "s/GiB"),
    "cpu_ms_per_file": Metric("server CPU a file", "ms"),
    "cpu_s_per_1000": Metric("server CPU", "s/1000"),
    "cpu_s": Metric("server CPU", "s"),
    "valkey_s_per_1000": Metric("of it valkey", "s/1000", shared=False),
    "peak_mib": Metric("peak memory", "MiB", shared=False),
    "above_base_mib": Metric("memory above base", "MiB", shared=False),
    "takes_per_sync": Metric("takes per fsync", "", shared=False),
    "client_cores": Metric("client CPU", "cores", shared=False),
    "other_cores": Metric("other CPU", "cores", shared=False),
}
"""Every metric there is, in the order of the tables' columns."""


class Spread(NamedTuple):
    """Median and extremes over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of these rounds; at least one."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Case:
    """One comparison.

    Attributes:
        part: The part of the bench it belongs to.
        name: What is done, e.g. `8 connections, 256 MiB each`.
        baseline: The contender that the others are divided by; empty: no ratios.
        series, point: Where it is one of several that differ in one thing: what differs, and how.
        values: Contender to metric to one value a round.
        skipped: Contender to why it was not measured.
    """

    part: str
    name: str
    baseline: str = "nginx"
    series: str = ""
    point: str = ""
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, contender: str, sample: Sample) -> None:
        """Keep one round of one contender."""
        rounds = self.values.setdefault(contender, {})
        for metric, value in sample.items():
            rounds.setdefault(metric, []).append(value)

    def spread(self, contender: str, metric: str) -> Spread | None:
        """Its values, or None where it was not measured."""
        values = self.values.get(contender, {}).get(metric)
        return Spread.of(values) if values else None

    def ratio(self, contender: str, metric: str, baseline: str = "") -> Spread | None:
        """Its values, each divided by the baseline's of the same round; None without both."""
        mine = self.values.get(contender, {}).get(metric, [])
        theirs = self.values.get(baseline or self.baseline, {}).get(metric, [])
        ratios = [a / b for a, b in zip(mine, theirs, strict=False) if b]
        return Spread.of(ratios) if ratios else None

    def metrics(self) -> list[str]:
        """Those that any contender has, in the order of METRICS."""
        found = {metric for rounds in self.values.values() for metric in rounds}
        return [metric for metric in METRICS if metric in found]


@dataclass
class Run:
    """All that one run of the bench found.

    Attributes:
        machine: What it ran on: property to value.
        settings: How it was run: rounds, quick or full.
        cases: In the order in which they were measured.
        skipped: Part to why it was not measured.
        failed: Part to what went wrong in it.
    """

    machine: dict[str, str]
    settings: dict[str, str]
    cases: list[Case] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what save wrote."""
        document = json.loads(path.read_text())
        document["cases"] = [Case(**case) for case in document["cases"]]
        return cls(**document)
