"""What the bench makes of its numbers."""

import pytest
from bench import document
from bench.floors import FLOORS, judged
from bench.results import METRICS, Case, Run
from bench.tables import rows_of, text

EIGHT = "8 \N{MULTIPLICATION SIGN} 256 MiB"


def a_case() -> Case:
    case = Case("download", EIGHT)
    for nginx, ours in ((1000, 900), (2000, 1500), (1000, 950)):
        case.add("nginx", {"mib_per_s": nginx})
        case.add("oncedrop", {"mib_per_s": ours})
    return case


def test_a_share_is_taken_round_by_round() -> None:
    """The share of the medians would be 0.95."""
    ratio = a_case().ratio("oncedrop", "mib_per_s")

    assert ratio == (0.9, 0.75, 0.95)


def test_a_contender_that_ran_fewer_rounds_is_compared_in_those() -> None:
    case = a_case()
    case.add("slow", {"mib_per_s": 100})

    assert case.ratio("slow", "mib_per_s") == (0.1, 0.1, 0.1)


def test_the_table_has_medians_and_shares() -> None:
    assert rows_of(a_case()) == [
        ["", "throughput, MiB/s"],
        ["nginx", "1,000"],
        ["oncedrop", "950 \N{MULTIPLICATION SIGN}0.90 (0.75\N{EN DASH}0.95)"],
    ]


@pytest.mark.parametrize(("ours", "verdict"), [(900, "met"), (800, "missed")])
def test_a_floor_is_judged_by_the_median_share(ours: int, verdict: str) -> None:
    case = Case("download", EIGHT)
    case.add("nginx", {"mib_per_s": 1000})
    case.add("oncedrop", {"mib_per_s": ours})

    assert [verdict in line for line in judged(case)] == [True]


def test_floors_name_metrics_that_there_are() -> None:
    assert {floor.metric for floor in FLOORS} <= set(METRICS)


def test_what_was_not_measured_is_said() -> None:
    case = Case("upload", "PUT", skipped={"oncedrop, bare": "no such setting"})
    run = Run({}, {}, [case], skipped={"workers": "no setting either"}, failed={"size": "it broke"})

    told = text(run)

    assert "oncedrop, bare: not measured: no such setting" in told
    assert "workers: not measured: no setting either" in told
    assert "size: failed: it broke" in told


def test_the_documents_tables_are_those_of_the_kept_run() -> None:
    """When this fails: `make bench`, then `make bench-docs`."""
    text_of_document = document.DOCUMENT.read_text()

    assert document.rendered(text_of_document, Run.load(document.KEPT)) == text_of_document
