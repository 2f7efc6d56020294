"""Crash points: each is one place in the code, and only a known one can be asked for."""

import re
from collections import Counter
from pathlib import Path

import pytest

from oncedrop_common import crash_points
from oncedrop_common.crash_points import CrashAt, CrashPoint
from oncedrop_common.errors import ConfigurationError
from oncedrop_common.settings import load_settings

ROOT = Path(__file__).parents[2]
_REACHED = re.compile(r"\bCrashPoint\.([A-Z_]+)\.reached\(\)")


def test_every_crash_point_is_reached_at_exactly_one_place() -> None:
    code = [
        p.read_text() for folder in ("libs", "services") for p in ROOT.glob(f"{folder}/**/*.py")
    ]
    places = Counter(name for text in code for name in _REACHED.findall(text))

    assert places == Counter(point.name for point in CrashPoint)


def test_a_crash_point_is_named_after_its_sequence() -> None:
    assert [p.value for p in CrashPoint] == [
        p.name.lower().replace("_", ".", 1) for p in CrashPoint
    ]


@pytest.mark.parametrize(
    ("text", "times_before"),
    [("claim.after_rename", 0), ("claim.after_rename:1", 0), ("claim.after_rename:3", 2)],
)
def test_the_first_time_kills_or_the_one_that_is_named(text: str, times_before: int) -> None:
    assert CrashAt.parse(text) == CrashAt(CrashPoint.CLAIM_AFTER_RENAME, times_before)


@pytest.mark.parametrize("text", ["claim.after_renam", "", ":2", "claim.after_rename:0",
                                  "claim.after_rename:x", "claim.after_rename:²"])  # fmt: skip
def test_what_is_no_crash_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        CrashAt.parse(text)


def test_a_misspelt_crash_point_is_refused_at_start_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONCEDROP_CRASH_AT", "claim.after_renam")

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert refused.value.detail.startswith("settings: ONCEDROP_CRASH_AT: ")
    assert all(point in refused.value.detail for point in CrashPoint)


def test_points_that_nobody_armed_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[int] = []
    monkeypatch.setattr("os._exit", died.append)
    monkeypatch.setattr(crash_points, "_armed", CrashAt.parse("claim.after_rename:2"))

    CrashPoint.CLAIM_AFTER_CLAIM.reached()
    CrashPoint.CLAIM_AFTER_RENAME.reached()
    assert died == []
    CrashPoint.CLAIM_AFTER_RENAME.reached()
    assert died == [crash_points.EXIT_CODE]
