"""Options: what is understood, what is refused, and that the field is named."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from oncedrop_common.drops import Confirm, IfInterrupted
from oncedrop_common.errors import RequestInvalid
from oncedrop_common.settings import Settings
from oncedrop_ingest.options import GivenOptions, Options

SETTINGS = Settings(_env_file=None)


def given_options(**settings: Any) -> GivenOptions:
    return GivenOptions(SETTINGS.model_copy(update=settings))


def request_with(query: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()) -> Request:
    return Request(
        {"type": "http", "method": "PUT", "query_string": query, "headers": list(headers)}
    )


def parsed(name: str, value: str) -> Options:
    options = given_options()
    options.add(name, value)
    return options.options()


def test_nothing_given_means_the_documented_defaults() -> None:
    assert given_options().options() == Options(
        ttl_seconds=86_400,
        max_downloads=1,
        password="",
        if_interrupted=IfInterrupted.BURN,
        resume=True,
        confirm=Confirm.AUTO,
    )


def test_the_default_life_is_the_operators() -> None:
    assert given_options(default_ttl_seconds=77).options().ttl_seconds == 77


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 1),
        ("90", 90),
        ("90s", 90),
        ("45m", 2_700),
        ("2h", 7_200),
        ("7d", 604_800),
        ("30d", 2_592_000),
        ("2592000", 2_592_000),
        ("007", 7),
    ],
)
def test_a_life_is_understood_in_each_unit(text: str, seconds: int) -> None:
    assert parsed("ttl", text).ttl_seconds == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "0d", "-1", "+1", "1.5h", "1e3", "31d", "2592001", "2w", "2H", "h", " 1", "1 ", "1h ",
     "1h30m", "\u0663", "9" * 11, "9" * 5000, "inf", "nan", "\n1", "1\n", "\x00"],
)  # fmt: skip
def test_a_life_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        parsed("ttl", text)
    assert refused.value.field == "ttl"
    assert "30 days" in refused.value.detail


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("3", 3), ("100", 100), ("010", 10)])
def test_a_number_of_downloads_is_understood(text: str, number: int) -> None:
    assert parsed("max_downloads", text).max_downloads == number


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "101", "1.0", "1e1", "one", "\u0661", "9" * 400, "1 "]
)
def test_a_number_of_downloads_out_of_range_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        parsed("max_downloads", text)
    assert refused.value.field == "max_downloads"


@pytest.mark.parametrize(
    ("text", "resume"),
    [("1", True), ("true", True), ("Yes", True), ("on", True), ("0", False), ("false", False),
     ("NO", False), ("off", False)],
)  # fmt: skip
def test_resume_is_a_switch(text: str, *, resume: bool) -> None:
    assert parsed("resume", text).resume is resume


@pytest.mark.parametrize(
    ("name", "text"),
    [("resume", "2"), ("resume", ""), ("if_interrupted", "Burn"), ("if_interrupted", "keep"),
     ("confirm", "never"), ("confirm", ""), ("password", ""), ("password", "x" * 1025)],
)  # fmt: skip
def test_a_word_that_is_no_choice_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        parsed(name, text)
    assert refused.value.field == name


def test_choices_are_understood() -> None:
    assert parsed("if_interrupted", "restore").if_interrupted is IfInterrupted.RESTORE
    assert parsed("confirm", "always").confirm is Confirm.ALWAYS


def test_a_misspelt_option_is_refused_by_name() -> None:
    with pytest.raises(RequestInvalid) as refused:
        parsed("pasword", "secret")
    assert refused.value.field == "pasword"
    assert "secret" not in refused.value.detail


def test_options_come_from_query_and_headers_alike() -> None:
    options = given_options()
    options.add_request(
        request_with(
            b"ttl=2h&if_interrupted=restore",
            [
                (b"oncedrop-max-downloads", b"3"),
                (b"oncedrop-password", "pässword".encode()),
                (b"oncedrop-confirm", b"always"),
                (b"user-agent", b"test"),
            ],
        )
    )
    assert options.options() == Options(
        ttl_seconds=7200,
        max_downloads=3,
        password="pässword",
        if_interrupted=IfInterrupted.RESTORE,
        confirm=Confirm.ALWAYS,
    )


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"ttl=1h&ttl=1h", []),
        (b"ttl=1h", [(b"oncedrop-ttl", b"2h")]),
        (b"", [(b"oncedrop-ttl", b"1h"), (b"oncedrop-ttl", b"1h")]),
    ],
)
def test_an_option_given_twice_is_refused_wherever_it_comes_from(
    query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(RequestInvalid) as refused:
        given_options().add_request(request_with(query, headers))
    assert refused.value.field == "ttl"


def test_a_field_and_the_query_are_no_way_around_that() -> None:
    options = given_options()
    options.add_request(request_with(b"ttl=1h"))
    with pytest.raises(RequestInvalid):
        options.add_field("ttl", b"1h")


def test_a_forms_empty_field_is_as_good_as_none() -> None:
    options = given_options()
    options.add_field("password", b"")
    options.add_field("ttl", b"")
    assert options.options() == given_options().options()


@pytest.mark.parametrize("query", [b"\xff=1", b"ttl=%ff", b"&".join([b"ttl=1"] * 30), b"ttl=\xc3"])
def test_a_query_that_cannot_be_read_is_refused(query: bytes) -> None:
    with pytest.raises(RequestInvalid):
        given_options().add_request(request_with(query))


def test_a_password_is_not_shown_by_repr() -> None:
    assert "hunter2" not in repr(parsed("password", "hunter2"))


@given(name=st.text(max_size=60), value=st.binary(max_size=60))
def test_any_field_is_an_option_or_a_named_refusal(name: str, value: bytes) -> None:
    options = given_options()
    refused: list[str | None] = []
    try:
        options.add_field(name, value)
    except RequestInvalid as exc:
        refused.append(exc.field)
    assert all(shown is not None and len(shown) <= 40 for shown in refused)
    options.options()
