"""Rounds: every contender once, then every contender again, so that noise meets all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.results import Case, Run, Sample

Contender = Callable[[], Sample]


@dataclass(frozen=True)
class Bench:
    """What every part is given.

    Attributes:
        folder: Everything is written below it; removed at the end.
        run: Where results go.
        rounds: How often every contender has its turn.
        quick: Smaller and fewer, for a first look.
    """

    folder: Path
    run: Run
    rounds: int
    quick: bool

    def compare(self, case: Case, contenders: Mapping[str, Contender]) -> Case:
        """Give every contender its turn, round by round, and keep what they yield."""
        self.run.cases.append(case)
        for number in range(1, self.rounds + 1):
            for name, contender in contenders.items():
                began = time.monotonic()
                sample = contender()
                case.add(name, sample)
                _say(case, name, number, sample, time.monotonic() - began)
        return case

    def payload(self, mib: int) -> Path:
        """A file of so many MiB of noise, in the page cache; made once."""
        path = self.folder / f"payload-{mib}"
        if not path.exists():
            with path.open("wb") as file, open("/dev/urandom", "rb") as noise:
                for _ in range(mib):
                    file.write(noise.read(2**20))
        return path


def _say(case: Case, name: str, number: int, sample: Sample, seconds: float) -> None:
    numbers = " ".join(f"{metric}={value:.4g}" for metric, value in sample.items())
    sys.stderr.write(
        f"  {case.part} · {case.name} · {name} · round {number} ({seconds:.1f} s): {numbers}\n"
    )
