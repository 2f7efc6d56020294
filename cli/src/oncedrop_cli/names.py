"""The name a server gives, as a name in one folder of this machine.

The server cleans names too, but this is a stranger's word about where to write.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from oncedrop_cli.texts import seen

NAMELESS = "file"
_NAME_MAX_BYTES = 255
_SEPARATORS = re.compile(r"[/\\]")
# What Windows forbids in a name, and takes for a device whatever follows the first dot.
_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|(?:COM|LPT)[0-9¹²³]|CONIN\$|CONOUT\$) *(?:\.|\Z)", re.IGNORECASE
)
_EXTENSION = re.compile(r"(?<=.)(?:\.tar)?\.[^. ]{1,16}\Z", re.IGNORECASE)

# RFC 8187 section 3.2.1, and the quoted string or token of RFC 9110 section 5.6.
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*utf-8'[^';]*'([^;\s]+)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]+))', re.IGNORECASE)


def name_in(content_disposition: str) -> str:
    """The file's name in a Content-Disposition header, made safe (RFC 6266 section 4.3).

    `filename*` goes before `filename`. Without either it is NAMELESS.
    """
    if found := _EXTENDED.search(content_disposition):
        return safe_name(unquote_to_bytes(found[1]).decode(errors="replace"))
    if found := _PLAIN.search(content_disposition):
        quoted = re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]
        return safe_name(quoted)
    return NAMELESS


def safe_name(raw: str) -> str:
    """One path component: no separator, control, bidi trick, device, dot file or trailing dot."""
    component = _SEPARATORS.split(raw.rstrip("/\\"))[-1]
    plain = _RESERVED_CHARACTERS.sub("_", unicodedata.normalize("NFC", seen(component)))
    name = with_suffix(plain.strip(". \u00a0"), "").rstrip(". \u00a0")
    return with_suffix(f"_{name}", "") if _DEVICE.match(name) else name or NAMELESS


def with_suffix(name: str, suffix: str) -> str:
    """The name and this after it, the name's stem cut where no file system would hold both."""
    found = _EXTENSION.search(name)
    extension = found[0] if found else ""
    stem = name.removesuffix(extension).encode(errors="surrogateescape")
    room = _NAME_MAX_BYTES - len((extension + suffix).encode(errors="surrogateescape"))
    if len(stem) > room:
        return stem[:room].decode(errors="ignore") + extension + suffix
    return name + suffix
