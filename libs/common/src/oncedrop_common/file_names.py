"""Names and media types that strangers gave, made fit to show, to send and to save.

Nothing in here ever becomes a path in the volume. It is what a page shows, what a header carries
and what a receiver's disk, of whatever system, gets to see.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import dropwhile

from oncedrop_common.drops import CONTENT_TYPE_MAX_BYTES, NAME_MAX_BYTES

NAMELESS = "file"
ENTRY_MAX_BYTES = 1024
OCTET_STREAM = "application/octet-stream"

_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"\A[A-Za-z]:")
# What Windows forbids in a name.
_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*]')
# Controls, format characters (bidi controls, joiners, tags), line and paragraph separators.
_UNSEEN_CATEGORIES = {"Cc", "Cf", "Zl", "Zp"}
# Letters and marks that show nothing: fillers, the grapheme joiner, Mongolian selectors.
_UNSEEN = set("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_SPACES = " \u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_DOTS_AND_SPACES = "." + _SPACES
# What Windows takes for a device, whatever follows the first dot; COM\u00b9 counts as COM1.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3]|CONIN\$|CONOUT\$)"
    rf"[{_SPACES}]*(?:\.|\Z)",
    re.IGNORECASE,
)
# What most names are, of which nothing needs to be cleaned, unless a device has it.
_PLAIN = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ._-]{0,100}[A-Za-z0-9_-])?", re.ASCII)
# Long enough for every real extension; a longer tail is a name with a dot in it.
_EXTENSION = re.compile(r"(?<=.)(?:\.tar)?\.[^. ]{1,16}\Z", re.IGNORECASE)

# RFC 6838 section 4.2; narrower than the tokens of RFC 9110, so no wildcards.
_MEDIA_TYPE = re.compile(r"[ \t]*([a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*)[ \t]*")
# RFC 9110 section 5.6.6: name=token or name="quoted"; empty parameters are to be read over.
_PARAMETER = re.compile(
    r"[ \t]*;[ \t]*(?:([a-z0-9!#$%&'*+.^_`|~-]+)="
    r"(?:([a-z0-9!#$%&'*+.^_`|~-]+)|\"((?:[^\"\\]|\\.)*)\"))?[ \t]*"
)
_CHARSET = re.compile(r"[a-z0-9][a-z0-9+._-]*")


def clean_name(raw: str) -> str:
    """A file's display name: one path component that every system can show and save.

    The last component of either separator, without invisible characters, in NFC, with what
    Windows reserves as `_` and device names after one; at most NAME_MAX_BYTES, the extension
    kept. Dots and spaces at both ends go, so nothing a stranger sends is saved as a dot file.
    Never empty, and cleaning twice changes nothing.
    """
    if _PLAIN.fullmatch(raw) and not _DEVICE.match(raw):
        return raw
    component = _SEPARATORS.split(_without_surrogates(raw).rstrip("/\\"))[-1]
    return _cleaned(component, _DOTS_AND_SPACES) or NAMELESS


def clean_entry_name(raw: str) -> str:
    """The name of an entry in an archive: a relative path with `/`, folders kept.

    Each component is cleaned as clean_name does, except that dot files stay dot files: they
    are part of the tree that was packed. No drive, no `.` or `..`, no empty component. A path
    longer than ENTRY_MAX_BYTES loses its outermost folders.
    """
    components = [c for c in _SEPARATORS.split(_without_surrogates(raw)) if c]
    components[:1] = [_DRIVE.sub("", c, count=1) for c in components[:1]]
    kept: list[str] = []
    length = 0
    for component in reversed(components):
        name = _cleaned(component, _SPACES)
        length += len(name.encode()) + 1
        if name and length <= ENTRY_MAX_BYTES:
            kept.append(name)
    return "/".join(reversed(kept)) or NAMELESS


class NumberedNames:
    """Gives each entry of an archive a name of its own: `a.txt`, `a (2).txt`.

    Names that differ only in case are the same on many disks, and a file cannot have the name of
    a folder, so both count as taken.
    """

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}
        self._last_number: dict[str, int] = {}

    def take(self, entry: str) -> str:
        """The entry's name, as clean_entry_name made it, numbered where it is taken."""
        *folders, name = entry.split("/")
        parent = ""
        for folder in folders:
            wanted = _folded(parent + folder)
            if wanted not in self._folders:
                free = self._first_free(parent, folder)
                self._folders[wanted] = self._folders[_folded(free)] = free
            parent = self._folders[wanted] + "/"
        free = self._first_free(parent, name)
        self._files.add(_folded(free))
        return free

    def _first_free(self, parent: str, name: str) -> str:
        candidate = parent + name
        wanted = _folded(candidate)
        while (folded := _folded(candidate)) in self._files or folded in self._folders:
            number = self._last_number[wanted] = self._last_number.get(wanted, 1) + 1
            candidate = parent + _fit(name, f" ({number})")
        return candidate


def clean_content_type(raw: str | None) -> str:
    """A media type that is safe to send back: `type/subtype`, with its charset if it has one.

    A malformed type, one longer than CONTENT_TYPE_MAX_BYTES and every multipart type (whose parts
    would bring headers of their own) is OCTET_STREAM.
    """
    # Lower-casing turns a few foreign letters into ASCII: judged before.
    text = raw.lower() if raw is not None and raw.isascii() else ""
    found = _MEDIA_TYPE.match(text)
    if found is None or found[1].startswith("multipart/"):
        return OCTET_STREAM
    media_type, parameters = found[1], text[found.end() :]
    if len(media_type) > CONTENT_TYPE_MAX_BYTES or not f"{parameters};".startswith(";"):
        return OCTET_STREAM
    charset = _charset(parameters)
    full = f"{media_type}; charset={charset}"
    return full if charset and len(full) <= CONTENT_TYPE_MAX_BYTES else media_type


def _charset(parameters: str) -> str:
    """The first charset among the parameters before a malformed one; "" if there is none."""
    position = 0
    while position < len(parameters) and (found := _PARAMETER.match(parameters, position)):
        value = found[2] or found[3] or ""
        if found[1] == "charset" and _CHARSET.fullmatch(value):
            return value
        position = found.end()
    return ""


def _without_surrogates(text: str) -> str:
    """Pairs of surrogates joined, single ones as the replacement character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _cleaned(component: str, leading: str) -> str:
    """The component as it may be shown, without these at its front; may be empty.

    In NFC, no invisible characters, reserved ones as `_`, no mark without a letter before it.
    """
    seen = "".join(
        c
        for c in component
        if c not in _UNSEEN and unicodedata.category(c) not in _UNSEEN_CATEGORIES
    )
    name = _RESERVED_CHARACTERS.sub("_", unicodedata.normalize("NFC", seen))
    name = "".join(dropwhile(lambda c: c in leading or unicodedata.category(c)[0] == "M", name))
    name = _fit(name.rstrip(_DOTS_AND_SPACES))
    return _fit(f"_{name}") if _DEVICE.match(name) else name


def _fit(name: str, number: str = "") -> str:
    """The name with the number before its extension, cut there to NAME_MAX_BYTES of UTF-8."""
    found = _EXTENSION.search(name)
    extension = found[0] if found else ""
    stem = name.removesuffix(extension).encode()
    room = NAME_MAX_BYTES - len((number + extension).encode())
    if len(stem) <= room:
        return stem.decode() + number + extension
    return stem[:room].decode(errors="ignore").rstrip(_DOTS_AND_SPACES) + number + extension


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
