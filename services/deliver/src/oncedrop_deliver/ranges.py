"""Which bytes of the file a request asks for: RFC 9110 sections 13 (conditions) and 14 (ranges).

The one validator a visitor can hold is the strong entity-tag of their own claim. No date is ever
sent as Last-Modified, so conditions on dates are ignored (sections 13.1.3, 13.1.4 and 13.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers

from oncedrop_common.errors import ConditionFailed, RangeUnsatisfiable
from oncedrop_common.tokens import is_secret

# Section 8.8.3: an optional W/, then a quoted opaque text that may hold commas but no quotes.
_LISTED_TAG = re.compile(r'[ \t,]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|\Z)')
# Section 14.1.1: int-range ("0-499", "500-") or suffix-range ("-500"), no space around the dash.
_RANGE_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_UNIT = "bytes="
_WHITESPACE = " \t"


@dataclass(frozen=True, slots=True)
class Whole:
    """Send all of the file: 200."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Send the bytes [start, end): 206."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class NotModified:
    """Send nothing, the visitor has it: 304."""


def claim_etag(claim_id: str) -> str:
    """The strong entity-tag of this claim's view of the file, quotes included (section 8.8.3)."""
    return f'"{claim_id}"'


def conditional(headers: Headers) -> bool:
    """Whether the answer can be 206, 304, 412 or 416, so that the record is read before claiming.

    If-Range alone changes nothing (section 13.1.5), and conditions on dates are ignored.
    """
    return any(name in headers for name in ("range", "if-match", "if-none-match"))


def claim_ids_in_conditions(headers: Headers) -> list[str]:
    """Claim ids that the request may be giving back in If-Range or If-Match, without repeats.

    Only the form is judged: whether one is a claim of this drop is for the record to say.
    """
    candidates = (
        opaque.strip('"')
        for name in ("if-range", "if-match")
        for weak, opaque in _listed_tags(headers, name)
        if not weak
    )
    return [c for c in dict.fromkeys(candidates) if is_secret(c)]


def select(
    method: str, headers: Headers, *, size: int, etag: str | None
) -> Whole | Slice | NotModified:
    """Judge conditions and range in the order of RFC 9110 section 13.2.2.

    Args:
        method: As in the request line; only GET has ranges (section 14.2).
        headers: The request's.
        size: Length of the file in bytes.
        etag: The requesting claimant's entity-tag, quotes included; None for a fresh visitor, for
            whom the file exists but has no validator that they could know.

    Raises:
        ConditionFailed: If-Match does not hold, or If-None-Match fails a method that is neither
            GET nor HEAD.
        RangeUnsatisfiable: No byte of the range exists.
    """
    if "if-match" in headers and not _if_match_holds(headers, etag):
        raise ConditionFailed("The file is not the one named in If-Match.")
    if "if-none-match" in headers and not _if_none_match_holds(headers, etag):
        if method in ("GET", "HEAD"):
            return NotModified()
        raise ConditionFailed("The file is the one named in If-None-Match.")
    if method != "GET" or "range" not in headers:
        return Whole()
    if "if-range" in headers and not _if_range_holds(headers, etag):
        return Whole()
    return _parse_range(_combined(headers, "range"), size)


def _if_match_holds(headers: Headers, etag: str | None) -> bool:
    """Section 13.1.1: `*` needs any representation, a list needs a strong match."""
    if _combined(headers, "if-match") == "*":
        return True
    return any(not weak and tag == etag for weak, tag in _listed_tags(headers, "if-match"))


def _if_none_match_holds(headers: Headers, etag: str | None) -> bool:
    """Section 13.1.2: `*` needs no representation, a list no weak match."""
    if _combined(headers, "if-none-match") == "*":
        return False
    return all(tag != etag for _, tag in _listed_tags(headers, "if-none-match"))


def _if_range_holds(headers: Headers, etag: str | None) -> bool:
    """Section 13.1.5: one strong tag, equal; a date never holds since none was ever sent."""
    return etag is not None and _combined(headers, "if-range") == etag


def _combined(headers: Headers, name: str) -> str:
    """The field's value; several lines are one list (section 5.3)."""
    return ", ".join(headers.getlist(name)).strip(_WHITESPACE)


def _listed_tags(headers: Headers, name: str) -> Iterator[tuple[bool, str]]:
    """Whether it is weak, and the opaque tag in quotes, of each member up to a malformed one."""
    value = _combined(headers, name)
    position = 0
    while found := _LISTED_TAG.match(value, position):
        yield found[1] is not None, found[2]
        position = found.end()


def _parse_range(value: str, size: int) -> Whole | Slice:
    """The bytes that a Range field asks for.

    An unknown unit, an invalid range and several ranges at once are answered with the whole file,
    as section 14.2 allows. A suffix of an empty file is satisfiable (section 14.1.2) but no
    Content-Range can say so: the whole, too.
    """
    if value[: len(_UNIT)].lower() != _UNIT:
        return Whole()
    members = (member.strip(_WHITESPACE) for member in value[len(_UNIT) :].split(","))
    specs = [member for member in members if member]
    found = _RANGE_SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if found is None or found[0] == "-":
        return Whole()
    first, last = found[1], found[2]
    if not first:
        if not last.strip("0"):
            raise RangeUnsatisfiable(size)
        return Slice(size - _bounded(last, size), size) if size else Whole()
    if last and _magnitude(last) < _magnitude(first):
        return Whole()
    start = _bounded(first, size)
    if start >= size:
        raise RangeUnsatisfiable(size)
    return Slice(start, _bounded(last, size - 1) + 1 if last else size)


def _magnitude(digits: str) -> tuple[int, str]:
    """Orders decimal numbers of any length: int() refuses thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _bounded(digits: str, limit: int) -> int:
    """The number, or limit where that is smaller."""
    return limit if _magnitude(digits) >= _magnitude(str(limit)) else int(digits.lstrip("0") or "0")
