"""Rounds: every contender once, then every contender again, so that noise meets all alike."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.results import Case, Run, Sample

MIB = 2**20

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

    def compare(
        self, case: Case, contenders: Mapping[str, Contender], *, rounds: int = 0, once: str = ""
    ) -> None:
        """Give every contender its turn, round by round, and keep what they yield.

        Args:
            case: Where it is kept.
            contenders: In the order of their turns.
            rounds: Fewer than are usual; 0: as many.
            once: A contender that is too slow for more than the first round.
        """
        self.run.cases.append(case)
        for number in range(1, min(rounds or self.rounds, self.rounds) + 1):
            for name, contender in contenders.items():
                if name == once and number > 1:
                    continue
                began = time.monotonic()
                sample = contender()
                case.add(name, sample)
                _say(case, name, number, sample, time.monotonic() - began)

    def payload(self, size: int) -> Path:
        """A file of so many bytes of noise, on disk and in the page cache."""
        path = self.folder / f"payload-{size}"
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - start)))
        os.sync()
        return path


def _say(case: Case, name: str, number: int, sample: Sample, seconds: float) -> None:
    numbers = " ".join(f"{metric}={value:.4g}" for metric, value in sample.items())
    sys.stderr.write(
        f"  {case.part} · {case.name} · {name} · round {number} ({seconds:.1f} s): {numbers}\n"
    )
