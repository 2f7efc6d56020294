"""The crash points, the cases that reach them, and the table in the docs go together."""

from __future__ import annotations

from oncedrop_common.crash_points import CrashPoint
from support import fault_docs
from support.crash_cases import DELIVER, INGEST, JANITOR, SWEEP, crash_table


def test_every_crash_point_has_a_case() -> None:
    cases = [case.at.partition(":")[0] for case in INGEST + DELIVER + JANITOR]

    assert {*cases, *SWEEP} == set(CrashPoint)


def test_the_table_in_the_docs_is_what_the_cases_come_to() -> None:
    """When this fails: `make faults` writes it, once the cases have come out like this."""
    assert fault_docs.read("crash points") == crash_table()
