"""Every word that a page says is there in every language, and numbers read well in each."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from oncedrop_common.languages import TAGS, catalog_text, language, wanted_tag

ROOT = Path(__file__).parents[2]
TRANSLATED = TAGS[1:]
# For pages: `%(name)s`. For scripts: `{name}`.
_PLACEHOLDER = re.compile(r"%\((\w+)\)s|\{(\w+)\}")
_OPTIONS = {"newstyle_gettext": "true", "trimmed": "true", "silent": "false"}


def said_by_the_pages() -> set[str | tuple[str, ...]]:
    """Every message in the templates."""
    found = [
        message
        for folder in ("libs", "services")
        for _, _, message, *_ in extract_from_dir(
            ROOT / folder,
            method_map=[("**/templates/**.html", "jinja2")],
            options_map={"**/templates/**.html": _OPTIONS},
        )
    ]
    assert len(found) > 100
    return set(found)


def catalog(tag: str) -> Catalog:
    return read_po(BytesIO(catalog_text(tag)), locale=tag)


def messages(tag: str) -> Iterator[Message]:
    return (message for message in catalog(tag) if message.id)


def texts(message: Message) -> list[str]:
    return [message.string or ""] if isinstance(message.string, str | None) else [*message.string]


def placeholders(text: str) -> set[str]:
    return {f"{a}{b}" for a, b in _PLACEHOLDER.findall(text)}


@pytest.mark.parametrize("tag", TRANSLATED)
def test_the_catalogs_hold_what_the_pages_say_and_nothing_else(tag: str) -> None:
    """When this fails: `make messages`, then translate what is empty."""
    known = {tuple(m.id) if isinstance(m.id, list | tuple) else m.id for m in messages(tag)}

    assert known == said_by_the_pages()


@pytest.mark.parametrize("tag", TRANSLATED)
def test_every_message_is_translated(tag: str) -> None:
    empty = [message.id for message in messages(tag) if not all(texts(message))]
    fuzzy = [message.id for message in messages(tag) if message.fuzzy]

    assert empty == []
    assert fuzzy == []


@pytest.mark.parametrize("tag", TRANSLATED)
def test_placeholders_agree(tag: str) -> None:
    for message in messages(tag):
        originals = [message.id] if isinstance(message.id, str) else list(message.id)
        wanted = placeholders(originals[-1])
        for text in texts(message):
            # "One download": a singular may leave its number out.
            assert placeholders(text) in (wanted, placeholders(originals[0])), message.id
            assert "%" not in _PLACEHOLDER.sub("", text).replace("%%", ""), message.id


@pytest.mark.parametrize("tag", TRANSLATED)
def test_translations_are_no_copies_and_end_as_the_original_does(tag: str) -> None:
    for message in messages(tag):
        original = message.id if isinstance(message.id, str) else message.id[-1]
        ends = [original.rstrip("…")[-1] in ".?!", texts(message)[-1].rstrip(" …")[-1] in ".?!"]
        assert ends[0] == ends[1], original
        words = [word for word in original.split() if word.strip(string.punctuation).isalpha()]
        if len(words) > 2:
            assert original not in texts(message)


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        ("en;q=0.5, de;q=0.6", "de"),
        ("nl, de;q=0.1", "de"),
        ("nl", "en"),
        ("*", "en"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("de;q=high, fr", "fr"),
        (";;q=,,=;\x00\u00ff", "en"),
        ("x" * 10_000, "en"),
    ],
)
def test_accept_language_decides(header: str, tag: str) -> None:
    assert wanted_tag(header) == tag


@pytest.mark.parametrize("tag", TAGS)
def test_plurals_follow_the_language(tag: str) -> None:
    say = language(tag).translations.ngettext
    forms = ("Pass it on. It works once.", "Pass it on. It works %(num)s times.")
    assert say(*forms, 1) != say(*forms, 2)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1_400_000, "1.4 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1 MB"),
        (10 * 2**30, "10.7 GB"),
        (5 * 10**18, "5,000 PB"),
    ],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert language("en").size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 seconds"),
        (0.4, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3599, "60 minutes"),
        (7199, "120 minutes"),
        (23 * 3600, "23 hours"),
        (86_399, "24 hours"),
        (7 * 86_400 - 1, "7 days"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert language("en").duration(seconds) == text


def test_numbers_and_times_are_each_languages_own() -> None:
    assert language("de").size(1_000_000) == "1 MB"
    assert language("fr").size(1_400_000) == "1,4\u202fMo"
    assert language("de").duration(7200) == "2 Stunden"
    assert language("en").time(1_772_366_400_999) == "1 March 2026, 12:00 UTC"
    assert language("de").time(1_772_366_400_999) == "1. März 2026, 12:00 UTC"
