"""What an uploader may ask for: ttl, max_downloads, password, if_interrupted, resume, confirm.

An option comes as a form field (`ttl`), in the query (`?ttl=2h`) or as a header (`Oncedrop-Ttl`,
`Oncedrop-Max-Downloads`). None of these places goes before another: an option given twice, in one
place or in two, is refused, and so is a name that is no option. A misspelt `pasword` must not make
a drop without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from oncedrop_common.drops import Confirm, IfInterrupted
from oncedrop_common.errors import RequestInvalid
from oncedrop_common.languages import TAGS, language
from oncedrop_common.passwords import PASSWORD_MAX_BYTES
from oncedrop_common.settings import Settings

HEADER_PREFIX = "oncedrop-"
_QUERY_FIELDS = 20
_SHOWN_CHARACTERS = 40
_DURATION = re.compile(r"([0-9]{1,10})([smhd]?)", re.ASCII)
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_SWITCH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked; defaults where nothing was.

    Attributes:
        ttl_seconds: The drop's life, counted from the end of its upload.
        password: Empty when there is none; in memory only.
    """

    ttl_seconds: int
    max_downloads: int = 1
    password: str = field(default="", repr=False)
    if_interrupted: IfInterrupted = IfInterrupted.BURN
    resume: bool = True
    confirm: Confirm = Confirm.AUTO


class GivenOptions:
    """Collects the options of one request, wherever they come from; each is checked at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._given: dict[str, Any] = {}
        self._parsers: Mapping[str, Callable[[str], Any]] = {
            "ttl": self._ttl,
            "max_downloads": self._max_downloads,
            "password": _password,
            "if_interrupted": lambda text: _one_of("if_interrupted", IfInterrupted, text),
            "resume": _resume,
            "confirm": lambda text: _one_of("confirm", Confirm, text),
        }

    def add(self, name: str, value: str) -> None:
        """Note an option.

        Raises:
            RequestInvalid: No such option, given before, or not what it must be; names it.
        """
        if name not in self._parsers:
            shown = name[:_SHOWN_CHARACTERS]
            known = ", ".join(self._parsers)
            raise RequestInvalid(f"There is no such option; there are {known}.", field=shown)
        if name in self._given:
            raise RequestInvalid(f"{name} is given more than once.", field=name)
        self._given[name] = self._parsers[name](value)

    def add_field(self, name: str, value: bytes) -> None:
        """Note a form's field; an empty one is as good as none, for forms send all they have.

        Raises:
            RequestInvalid: As add; or not UTF-8.
        """
        text = _utf8(name, value)
        if text or name not in self._parsers:
            self.add(name, text)

    def add_request(self, request: Request) -> None:
        """Note what query and headers hold.

        Raises:
            RequestInvalid: As add; or the query cannot be read.
        """
        try:
            pairs = parse_qsl(
                request.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                max_num_fields=_QUERY_FIELDS,
                errors="strict",
            )
        except ValueError as exc:
            raise RequestInvalid("The query cannot be read.") from exc
        for name, value in pairs:
            self.add(name, value)
        for header, value in request.headers.items():
            if header.startswith(HEADER_PREFIX):
                name = header.removeprefix(HEADER_PREFIX).replace("-", "_")
                # Starlette reads headers as Latin-1; people's passwords are UTF-8.
                self.add(name, _utf8(name, value.encode("latin-1")))

    def options(self) -> Options:
        """All options, with defaults for those that were not given."""
        return Options(**{"ttl_seconds": self._settings.default_ttl_seconds} | self._renamed())

    def _renamed(self) -> dict[str, Any]:
        return {("ttl_seconds" if n == "ttl" else n): value for n, value in self._given.items()}

    def _ttl(self, text: str) -> int:
        most = self._settings.max_ttl_seconds
        match = _DURATION.fullmatch(text)
        seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
        if not 1 <= seconds <= most:
            longest = language(TAGS[0]).duration(most)
            raise RequestInvalid(
                f"ttl must be a time like 90s, 45m, 2h or 7d, at most {longest}.", field="ttl"
            )
        return seconds

    def _max_downloads(self, text: str) -> int:
        most = self._settings.max_max_downloads
        number = int(text) if _NUMBER.fullmatch(text) else 0
        if not 1 <= number <= most:
            raise RequestInvalid(
                f"max_downloads must be a whole number from 1 to {most}.", field="max_downloads"
            )
        return number


def _password(text: str) -> str:
    if not 1 <= len(text.encode(errors="surrogatepass")) <= PASSWORD_MAX_BYTES:
        raise RequestInvalid(
            f"password must have 1 to {PASSWORD_MAX_BYTES} bytes.", field="password"
        )
    return text


def _resume(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise RequestInvalid("resume must be 1 or 0.", field="resume")
    return _SWITCH[text.lower()]


def _one_of(
    name: str, choices: type[IfInterrupted | Confirm], text: str
) -> IfInterrupted | Confirm:
    try:
        return choices(text)
    except ValueError:
        words = " or ".join(choices)
        raise RequestInvalid(f"{name} must be {words}.", field=name) from None


def _utf8(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        shown = name[:_SHOWN_CHARACTERS]
        raise RequestInvalid("The option is not UTF-8.", field=shown) from None
