"""The guard stops what looks like a wrong volume, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncedrop_janitor.guard import Tally


def test_more_than_half_of_the_records_without_file_stop_the_pass() -> None:
    tally = Tally(files=140, records=300, orphan_records=160)
    assert "160 of 300 records have no file" in str(tally.objection(0.5))


def test_more_than_half_of_the_files_without_record_stop_the_pass() -> None:
    tally = Tally(files=300, orphan_files=151, records=149)
    assert "151 of 300 files have no record" in str(tally.objection(0.5))


def test_the_objection_names_the_remedy() -> None:
    assert "POST /sweep?force=1" in str(Tally(records=101, orphan_records=101).objection(0.5))


@pytest.mark.parametrize(
    "tally",
    [
        Tally(files=300, records=300, orphan_records=150),
        Tally(files=300, records=300, orphan_files=150),
        Tally(files=100, records=100, orphan_files=100, orphan_records=100),
        Tally(files=10_000),
        Tally(),
    ],
    ids=["half the records", "half the files", "few things", "no orphans", "nothing"],
)
def test_up_to_the_share_or_among_few_things_all_is_well(tally: Tally) -> None:
    assert tally.objection(0.5) is None


def test_with_a_fraction_of_one_it_never_objects() -> None:
    assert Tally(files=500, orphan_files=500).objection(1) is None


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0.01, 1))
def test_more_orphans_never_please_it_more(orphans: int, files: int, fraction: float) -> None:
    fewer = Tally(files=files, orphan_files=orphans).objection(fraction)
    more = Tally(files=files + 1, orphan_files=orphans + 1).objection(fraction)
    if fewer is not None:
        assert more is not None
