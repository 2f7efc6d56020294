"""Conditions and ranges as RFC 9110 sections 13 and 14 have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from oncedrop_common import tokens
from oncedrop_common.errors import ConditionFailed, RangeUnsatisfiable
from oncedrop_deliver.ranges import (
    NotModified,
    Slice,
    Whole,
    claim_etag,
    claim_ids_in_conditions,
    conditional,
    select,
)

CLAIM = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER = "BBBBBBBBBBBBBBBBBBBBBA"
ETAG = claim_etag(CLAIM)

# Field values as uvicorn hands them over: latin-1 without line breaks.
field_values = st.text(
    st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60
) | st.text(' ,;=-*"W/0123456789bytes\t', max_size=40)


def headers(*fields: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.lower().encode(), text.encode("latin-1")) for name, text in fields])


def ranged(value: str, size: int = 1000) -> Whole | Slice | NotModified:
    return select("GET", headers(("Range", value)), size=size, etag=None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", Slice(0, 1)),
        ("bytes=0-499", Slice(0, 500)),
        ("bytes=500-999", Slice(500, 1000)),
        ("bytes=500-1000", Slice(500, 1000)),
        ("bytes=999-", Slice(999, 1000)),
        ("bytes=0-", Slice(0, 1000)),
        ("bytes=-1", Slice(999, 1000)),
        ("bytes=-1000", Slice(0, 1000)),
        ("bytes=-1001", Slice(0, 1000)),
        ("bytes=000-0009", Slice(0, 10)),
        ("Bytes=0-9", Slice(0, 10)),
        (" bytes=0-9\t", Slice(0, 10)),
        ("bytes=, 0-9 ,", Slice(0, 10)),
        ("bytes=5-" + "9" * 5000, Slice(5, 1000)),
        ("bytes=-" + "9" * 5000, Slice(0, 1000)),
        ("bytes=" + "0" * 5000 + "7-8", Slice(7, 9)),
    ],
)
def test_a_single_range_selects_its_bytes(value: str, expected: Slice) -> None:
    assert ranged(value) == expected
    assert expected.length == expected.end - expected.start


@pytest.mark.parametrize(
    "value",
    [
        "bytes=1000-",
        "bytes=1000-2000",
        "bytes=-0",
        "bytes=-000",
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + "9" * 5000 + "-" + "9" * 5000,
    ],
)
def test_a_range_without_a_byte_is_unsatisfiable(value: str) -> None:
    with pytest.raises(RangeUnsatisfiable) as caught:
        ranged(value)
    assert caught.value.size == 1000


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=5",
        "bytes=5-4",
        "bytes=" + "9" * 5000 + "-" + "9" * 4999,
        "bytes=a-b",
        "bytes=0x0-9",
        "bytes=+0-9",
        "bytes=--5",
        "bytes=0--5",
        "bytes=0-9-",
        "bytes= 0 - 9",
        "bytes =0-9",
        "bytes:0-9",
        "bytes=0-9;x",
        "bytes=1.5-9",
        "bytes=\xb2-\xb3",
        "bytes=0-\xb9",
        "items=0-9",
        "none=0-9",
        "0-9",
    ],
)
def test_an_unreadable_range_is_ignored(value: str) -> None:
    assert ranged(value) == Whole()


@pytest.mark.parametrize(
    "value", ["bytes=0-1,3-4", "bytes=0-1, -1", "bytes=0-1,5000-", "bytes=0-0,0-0"]
)
def test_several_ranges_at_once_get_the_whole_file(value: str) -> None:
    assert ranged(value) == Whole()


def test_a_repeated_range_header_is_ignored() -> None:
    both = headers(("Range", "bytes=0-1"), ("Range", "bytes=0-1"))
    assert select("GET", both, size=10, etag=None) == Whole()


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=1-", "bytes=-0"])
def test_an_empty_file_has_no_satisfiable_position(value: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        ranged(value, size=0)


def test_a_suffix_of_an_empty_file_is_the_whole_file() -> None:
    assert ranged("bytes=-5", size=0) == Whole()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS"])
def test_only_get_has_ranges(method: str) -> None:
    asked = headers(("Range", "bytes=5000-"))
    assert select(method, asked, size=10, etag=None) == Whole()


def test_without_conditions_the_whole_file_is_sent() -> None:
    assert select("GET", headers(), size=10, etag=ETAG) == Whole()


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_an_int_range_selects_what_slicing_does(size: int, first: int, last: int | None) -> None:
    body = bytes(range(size))
    value = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert ranged(value, size) == Whole()
    elif first >= size:
        with pytest.raises(RangeUnsatisfiable):
            ranged(value, size)
    else:
        got = ranged(value, size)
        assert isinstance(got, Slice)
        assert body[got.start : got.end] == body[first : None if last is None else last + 1]
        assert 0 <= got.start < got.end <= size


@given(value=field_values, size=st.integers(0, 2**70))
def test_any_range_header_gives_a_part_of_the_file_or_416(value: str, size: int) -> None:
    try:
        got = ranged(value, size)
    except RangeUnsatisfiable:
        return
    assert got == Whole() or (isinstance(got, Slice) and 0 <= got.start < got.end <= size)


@pytest.mark.parametrize(
    "value", ["*", ETAG, f'"x", {ETAG}', f'"a,b" ,, {ETAG}', f'W/"x",\t{ETAG} ']
)
def test_if_match_lets_the_claimant_pass(value: str) -> None:
    assert select("GET", headers(("If-Match", value)), size=10, etag=ETAG) == Whole()


@pytest.mark.parametrize(
    "value", ["", '"x"', f"W/{ETAG}", CLAIM, f'"{OTHER}"', "*, *", f"broken, {ETAG}", '"']
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_if_match_refuses_another_tag(value: str, method: str) -> None:
    with pytest.raises(ConditionFailed):
        select(method, headers(("If-Match", value)), size=10, etag=ETAG)


def test_a_fresh_visitor_has_no_tag_to_match() -> None:
    with pytest.raises(ConditionFailed):
        select("GET", headers(("If-Match", '"x"')), size=10, etag=None)
    assert select("GET", headers(("If-Match", "*")), size=10, etag=None) == Whole()


@pytest.mark.parametrize("value", ["*", ETAG, f"W/{ETAG}", f'"x", {ETAG}'])
def test_if_none_match_answers_a_claimant_that_has_it(value: str) -> None:
    asked = headers(("If-None-Match", value))
    assert select("GET", asked, size=10, etag=ETAG) == NotModified()
    assert select("HEAD", asked, size=10, etag=ETAG) == NotModified()
    with pytest.raises(ConditionFailed):
        select("POST", asked, size=10, etag=ETAG)


@pytest.mark.parametrize("value", ["", '"x"', f"broken {ETAG}", "*, *"])
def test_if_none_match_with_other_tags_sends_the_file(value: str) -> None:
    asked = headers(("If-None-Match", value))
    assert select("GET", asked, size=10, etag=ETAG) == Whole()


def test_if_none_match_star_holds_for_a_fresh_visitor_too() -> None:
    star = headers(("If-None-Match", "*"))
    assert select("GET", star, size=10, etag=None) == NotModified()
    assert select("GET", headers(("If-None-Match", ETAG)), size=10, etag=None) == Whole()


def test_repeated_condition_lines_are_one_list() -> None:
    lines = (("If-Match", '"x"'), ("If-Match", ETAG))
    assert select("GET", headers(*lines), size=10, etag=ETAG) == Whole()


def test_if_range_with_the_own_tag_resumes() -> None:
    asked = headers(("Range", "bytes=5-"), ("If-Range", f" {ETAG} "))
    assert select("GET", asked, size=10, etag=ETAG) == Slice(5, 10)


@pytest.mark.parametrize(
    "value",
    ['"x"', f"W/{ETAG}", CLAIM, "", "*", "Sat, 29 Oct 1994 19:43:31 GMT", f"{ETAG}, {ETAG}"],
)
def test_if_range_with_anything_else_gets_the_whole_file(value: str) -> None:
    asked = headers(("Range", "bytes=5000-"), ("If-Range", value))
    assert select("GET", asked, size=10, etag=ETAG) == Whole()


def test_if_range_of_a_fresh_visitor_gets_the_whole_file() -> None:
    asked = headers(("Range", "bytes=5-"), ("If-Range", ETAG))
    assert select("GET", asked, size=10, etag=None) == Whole()


def test_if_range_without_a_range_changes_nothing() -> None:
    assert select("GET", headers(("If-Range", '"x"')), size=10, etag=ETAG) == Whole()


def test_conditions_come_in_the_order_of_the_rfc() -> None:
    everything = headers(
        ("Range", "bytes=5000-"), ("If-Match", '"x"'), ("If-None-Match", ETAG), ("If-Range", ETAG)
    )
    with pytest.raises(ConditionFailed):
        select("GET", everything, size=10, etag=ETAG)
    matched = headers(("Range", "bytes=5000-"), ("If-Match", ETAG), ("If-None-Match", ETAG))
    assert select("GET", matched, size=10, etag=ETAG) == NotModified()


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
def test_conditions_on_dates_are_ignored(name: str) -> None:
    asked = headers((name, "Sat, 29 Oct 1994 19:43:31 GMT"))
    assert select("GET", asked, size=10, etag=ETAG) == Whole()
    assert not conditional(asked)


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(["Range", "If-Range", "If-Match", "If-None-Match"]),
            field_values | st.sampled_from([ETAG, f"W/{ETAG}", "*", "bytes=3-"]),
        ),
        max_size=5,
    ),
    etag=st.none() | st.just(ETAG),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_no_header_breaks_the_judgement(
    fields: list[tuple[str, str]], etag: str | None, method: str
) -> None:
    asked = headers(*fields)
    try:
        got = select(method, asked, size=10, etag=etag)
    except (ConditionFailed, RangeUnsatisfiable):
        got = None
    assert got == Whole() or conditional(asked), "only a conditional request may differ from 200"


@pytest.mark.parametrize("name", ["Range", "If-Match", "If-None-Match"])
def test_a_request_is_conditional_by_each_of_its_headers(name: str) -> None:
    assert conditional(headers((name, "anything")))


def test_a_plain_request_is_not_conditional() -> None:
    assert not conditional(headers(("If-Range", ETAG), ("Accept", "*/*")))


def test_claim_ids_are_found_in_if_range_and_if_match() -> None:
    asked = headers(("If-Match", f'"x", "{OTHER}", {ETAG}'), ("If-Match", ETAG), ("If-Range", ETAG))
    assert claim_ids_in_conditions(asked) == [CLAIM, OTHER]


@pytest.mark.parametrize("value", [f"W/{ETAG}", CLAIM, f'"{CLAIM[:-1]}"', f'"{CLAIM} "', "*", ""])
def test_what_is_no_strong_tag_of_a_claim_is_no_candidate(value: str) -> None:
    assert claim_ids_in_conditions(headers(("If-Match", value), ("If-Range", value))) == []


def test_other_headers_give_no_candidate() -> None:
    assert claim_ids_in_conditions(headers(("If-None-Match", ETAG), ("Range", ETAG))) == []


def test_a_minted_claim_id_comes_back_through_its_tag() -> None:
    claim_id = tokens.mint()
    asked = headers(("If-Range", claim_etag(claim_id)))
    assert claim_ids_in_conditions(asked) == [claim_id]
