"""Names and media types that strangers gave are fit to show, to send and to save."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncedrop_common.drops import CONTENT_TYPE_MAX_BYTES, NAME_MAX_BYTES
from oncedrop_common.file_names import (
    ENTRY_MAX_BYTES,
    NumberedNames,
    clean_content_type,
    clean_entry_name,
    clean_name,
)

any_text = st.text(st.characters(exclude_categories=()), max_size=300)
# Rich in what matters: separators, dots, spaces, devices, marks, unseen and reserved characters.
hostile_text = st.lists(
    st.sampled_from(
        [
            *'./\\ :<>"|?*\0\r\n%CONaux1é',
            *("\u0301", "\u200b", "\u202e", "\ufe0f", "\u3000", "\ud83d", "\ude00", "\u226e"),
            *("🎉", "CON", "nul", "COM\u00b9", ".tar", ".gz"),
            *(".." * 70, "x" * 120, "\u00a0" * 70, "😀" * 40),
        ]
    ),
    max_size=12,
).map("".join)
names = any_text | hostile_text

_DEVICES = re.compile(r"(?i:CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]|CONIN\$|CONOUT\$)")


def assert_fit_for_every_disk(component: str) -> None:
    assert component
    assert len(component.encode()) <= NAME_MAX_BYTES
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', component)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in component)
    assert component == unicodedata.normalize("NFC", component)
    assert component == component.strip() == component.rstrip(".")
    assert not _DEVICES.fullmatch(component.partition(".")[0].strip())


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("report.pdf", "report.pdf"),
        ("my report (final).pdf", "my report (final).pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\x.txt", "x.txt"),
        ("\\\\server\\share\\x.txt", "x.txt"),
        ("folder/", "folder"),
        ("a\0b\r\nc\x7f.txt", "abc.txt"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\u200b\u200d\u2066\ufeff\u00adb.txt", "ab.txt"),
        ("a\u2028b\u2029.txt", "ab.txt"),
        ("\u3164\u115f\u2800", "file"),
        ("e\u0301.txt", "é.txt"),
        ("e\u200d\u0301.txt", "é.txt"),
        ("\u0301x.txt", "x.txt"),
        ("\ufe0f", "file"),
        ("❤\ufe0f.png", "❤\ufe0f.png"),
        ("\ud800x\udfff.txt", "\ufffdx\ufffd.txt"),
        ("\ud83d\ude00.txt", "😀.txt"),
        ('a<b>c:d"e|f?g*h.txt', "a_b_c_d_e_f_g_h.txt"),
        ("file.txt::$DATA", "file.txt__$DATA"),
        ("  spaced .txt \u00a0\u3000", "spaced .txt"),
        ("trailing. . .", "trailing"),
        (".gitignore", "gitignore"),
        ("-rf", "-rf"),
        ("", "file"),
        (".", "file"),
        ("..", "file"),
        (" . . ", "file"),
        ("/", "file"),
        ("CON", "_CON"),
        ("nul.tar.gz", "_nul.tar.gz"),
        ("Com1 .txt", "_Com1 .txt"),
        ("COM\u00b2.txt", "_COM\u00b2.txt"),
        ("..aux", "_aux"),
        ("CONSOLE.txt", "CONSOLE.txt"),
        ("COM10", "COM10"),
    ],
)
def test_a_name_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean_name(raw) == cleaned


@given(names)
@example("CON" + "\u00a0" * 300 + ".txt")
@example("CON" + "\u00a0" * 300 + "x")
def test_every_name_becomes_fit_for_every_disk(raw: str) -> None:
    name = clean_name(raw)
    assert_fit_for_every_disk(name)
    assert not name.startswith(".")
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("raw", "tail"), [("x" * 300 + ".pdf", ".pdf"), ("é" * 300 + ".tar.gz", ".tar.gz")]
)
def test_a_long_name_is_cut_before_its_extension(raw: str, tail: str) -> None:
    name = clean_name(raw)
    assert NAME_MAX_BYTES - 1 <= len(name.encode()) <= NAME_MAX_BYTES
    assert name.removesuffix(tail) == raw[0] * (len(name) - len(tail))


def test_a_long_tail_after_a_dot_is_no_extension() -> None:
    assert clean_name("x." + "y" * 300) == "x." + "y" * (NAME_MAX_BYTES - 2)


def test_no_character_is_cut_in_two() -> None:
    name = clean_name("a" + "😀" * 100)
    assert name == "a" + "😀" * 63


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a.txt", "a.txt"),
        ("folder/sub/a.txt", "folder/sub/a.txt"),
        ("folder\\sub\\a.txt", "folder/sub/a.txt"),
        ("/etc/passwd", "etc/passwd"),
        ("../../a.txt", "a.txt"),
        ("a/../../b.txt", "a/b.txt"),
        ("./a//b.txt", "a/b.txt"),
        ("C:\\Users\\a.txt", "Users/a.txt"),
        ("C:a.txt", "a.txt"),
        ("/c:/a.txt", "a.txt"),
        ("x/c:/a.txt", "x/c_/a.txt"),
        ("\\\\?\\C:\\a.txt", "_/C_/a.txt"),
        ("project/.git/config", "project/.git/config"),
        (".env", ".env"),
        ("a/CON/nul.txt", "a/_CON/_nul.txt"),
        ("a\0/\u202eb\r\n.txt", "a/b.txt"),
        ("a/ . /b", "a/b"),
        (".\u200b./x", "x"),
        ("", "file"),
        ("..", "file"),
        ("///", "file"),
    ],
)
def test_an_entry_name_keeps_its_folders(raw: str, cleaned: str) -> None:
    assert clean_entry_name(raw) == cleaned


@given(names)
def test_every_entry_name_stays_inside_the_archive(raw: str) -> None:
    entry = clean_entry_name(raw)
    assert len(entry.encode()) <= ENTRY_MAX_BYTES
    for component in entry.split("/"):
        assert_fit_for_every_disk(component)
        assert component not in (".", "..")
    assert clean_entry_name(entry) == entry


def test_an_endless_path_loses_its_outermost_folders() -> None:
    entry = clean_entry_name("top/" + "folder/" * 50_000 + "a.txt")
    assert entry.endswith("/folder/a.txt")
    assert not entry.startswith("top/")
    assert ENTRY_MAX_BYTES - len("folder/") <= len(entry) <= ENTRY_MAX_BYTES


def numbered(*entries: str) -> list[str]:
    taken = NumberedNames()
    return [taken.take(entry) for entry in entries]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["a.txt", "a.txt", "a.txt"], ["a.txt", "a (2).txt", "a (3).txt"]),
        (["a.txt", "A.TXT"], ["a.txt", "A (2).TXT"]),
        (["a (2).txt", "a.txt", "a.txt"], ["a (2).txt", "a.txt", "a (3).txt"]),
        (["a", "a"], ["a", "a (2)"]),
        ([".env", ".env"], [".env", ".env (2)"]),
        (["a.tar.gz", "a.tar.gz"], ["a.tar.gz", "a (2).tar.gz"]),
        (["x/a.txt", "y/a.txt", "x/a.txt"], ["x/a.txt", "y/a.txt", "x/a (2).txt"]),
        (["x/a", "X/b", "X/A"], ["x/a", "x/b", "x/A (2)"]),
        (["x", "x/a", "X/b"], ["x", "x (2)/a", "x (2)/b"]),
        (["x/a", "x"], ["x/a", "x (2)"]),
        (["straße", "STRASSE"], ["straße", "STRASSE (2)"]),
    ],
)
def test_duplicates_are_numbered(entries: list[str], expected: list[str]) -> None:
    assert numbered(*entries) == expected


def test_a_number_fits_a_name_of_full_length() -> None:
    longest = "x" * (NAME_MAX_BYTES - 4) + ".txt"
    second = numbered(longest, longest)[1]
    assert second.endswith("x (2).txt")
    assert len(second) == NAME_MAX_BYTES


def test_ten_thousand_duplicates_are_numbered_without_delay() -> None:
    entries = numbered(*["a.txt"] * 10_000)
    assert entries[-1] == "a (10000).txt"


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b", "a (2)", "a.x"]), min_size=1, max_size=3)))
def test_no_entry_has_the_name_of_another_or_of_a_folder(paths: list[list[str]]) -> None:
    entries = [e.casefold() for e in numbered(*("/".join(p) for p in paths))]
    folders = {e[:at] for e in entries for at, c in enumerate(e) if c == "/"}
    assert len(set(entries)) == len(entries) == len(paths)
    assert folders.isdisjoint(entries)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("text/plain", "text/plain"),
        (" Text/PLAIN ", "text/plain"),
        ("image/svg+xml", "image/svg+xml"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("text/plain; charset=UTF-8", "text/plain; charset=utf-8"),
        ('text/plain;CHARSET="utf-8"', "text/plain; charset=utf-8"),
        ('text/plain; x="; charset=evil"; charset=koi8-r', "text/plain; charset=koi8-r"),
        ("text/plain; charset=a; charset=b", "text/plain; charset=a"),
        ("text/plain;; ;charset=utf-8;", "text/plain; charset=utf-8"),
        ("text/plain; format=flowed; delsp=yes", "text/plain"),
        ('text/plain; charset="a b"', "text/plain"),
        ('text/plain; charset="unclosed', "text/plain"),
        ("text/plain; charset=utf-8\r\nX: y", "text/plain; charset=utf-8"),
        ("text/plain; charset=" + "x" * 200, "text/plain"),
        ("text/plain; charset = utf-8", "text/plain"),
    ],
)
def test_a_media_type_keeps_its_charset_only(raw: str, cleaned: str) -> None:
    assert clean_content_type(raw) == cleaned


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "",
        "text",
        "text/",
        "/plain",
        "text/plain/x",
        "text plain",
        "text/plain x",
        "text/plain, text/html",
        "text/html\r\nSet-Cookie: a=b",
        "text/ht\0ml",
        "*/*",
        "text/*",
        "text/\u212ael",
        "text/plain\xa0",
        "x/" + "y" * CONTENT_TYPE_MAX_BYTES,
        "multipart/form-data; boundary=x",
        "Multipart/X-Mixed-Replace",
    ],
)
def test_anything_else_is_a_stream_of_octets(raw: str | None) -> None:
    assert clean_content_type(raw) == "application/octet-stream"


@given(any_text | st.text("abc/;= \t\"\\charset'*", max_size=80).map("a/b;".__add__))
def test_every_media_type_is_safe_to_send(raw: str) -> None:
    cleaned = clean_content_type(raw)
    assert re.fullmatch(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; charset=[a-z0-9+._-]+)?", cleaned)
    assert len(cleaned) <= CONTENT_TYPE_MAX_BYTES
    assert clean_content_type(cleaned) == cleaned
