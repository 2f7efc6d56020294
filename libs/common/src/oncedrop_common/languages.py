"""The languages that pages speak: their words from gettext catalogs, numbers and dates by Babel.

Sizes are decimal (1 MB is 1,000,000 bytes), as on the labels of disks; times are UTC (a script in
the page makes them local where there is one).
"""

from __future__ import annotations

from functools import cache
from gettext import NullTranslations
from importlib.resources import files
from io import BytesIO
from typing import Literal

from babel import Locale, negotiate_locale
from babel.dates import format_date
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations
from babel.units import format_unit

from oncedrop_common.accept import weight_of
from oncedrop_common.times import utc

DOMAIN = "oncedrop"
# English is what the messages themselves are in; of its kinds, the one with the day first.
_LOCALES = {"en": "en_GB", "de": "de", "fr": "fr"}
TAGS = tuple(_LOCALES)
"""Language tags (BCP 47) as in `lang` attributes; the first is for who asks for none of them."""

_SIZE_STEP = 1000
_SIZE_UNITS = ("kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte")
# A unit is used from two of it on, so that "119 minutes" does not become "1 hour".
_DURATION_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Language:
    """One language.

    Attributes:
        tag: One of TAGS.
        translations: The catalog; of English there is none.
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.translations = _catalog(tag) if tag != TAGS[0] else NullTranslations()
        self._locale = Locale.parse(_LOCALES[tag])

    def size(self, count: int) -> str:
        """A number of bytes for people: `512 bytes`, `1.4 MB`."""
        if count < _SIZE_STEP:
            return self._unit(count, "digital-byte", "long")
        values = [round(count / _SIZE_STEP**power, 1) for power in range(1, len(_SIZE_UNITS) + 1)]
        value, unit = next(
            ((v, u) for v, u in zip(values, _SIZE_UNITS, strict=True) if v < _SIZE_STEP),
            (values[-1], _SIZE_UNITS[-1]),
        )
        # As for five: in German CLDR writes "1 Mbyte" and "5 MB".
        five = self._unit(5, f"digital-{unit}", "short")
        return five.replace("5", format_decimal(value, locale=self._locale))

    def duration(self, seconds: float) -> str:
        """A duration for people, rounded to the unit that suits it: `23 hours`, `90 seconds`."""
        whole = max(0, round(seconds))
        for length, unit in _DURATION_UNITS:
            if whole >= 2 * length:
                return self._unit((whole + length // 2) // length, f"duration-{unit}", "long")
        return self._unit(whole, "duration-second", "long")

    def time(self, ms: int) -> str:
        """A Unix time in milliseconds for people, to the minute: `1 March 2026, 12:00 UTC`."""
        moment = utc(ms)
        return f"{format_date(moment, 'long', self._locale)}, {moment:%H:%M} UTC"

    def _unit(self, value: float, unit: str, length: Literal["long", "short"]) -> str:
        return format_unit(value, unit, length, locale=self._locale)


@cache
def language(tag: str) -> Language:
    """The language with this tag, its catalog read once.

    Raises:
        KeyError: It is none of TAGS.
    """
    return Language(tag)


def wanted_tag(header: str) -> str:
    """Which of TAGS an Accept-Language header wants most (RFC 9110 section 12.5.4).

    A region is given up before the language is: `de-AT` is `de`. What cannot be read is ignored.
    """
    ranges: list[tuple[float, str]] = []
    for element in header.lower().split(","):
        tag, *parameters = (part.strip() for part in element.split(";"))
        weight = weight_of(parameters)
        if tag and weight:
            ranges.append((weight, tag))
    # The order of the header decides between equals: sorting is stable.
    preferred = [tag for _, tag in sorted(ranges, key=lambda pair: -pair[0])]
    return negotiate_locale(preferred, TAGS, sep="-") or TAGS[0]


def catalog_text(tag: str) -> bytes:
    """The language's catalog as translators keep it: a `.po` file."""
    place = files("oncedrop_common").joinpath("locale", tag, "LC_MESSAGES", f"{DOMAIN}.po")
    return place.read_bytes()


def _catalog(tag: str) -> Translations:
    # Compiled here and not when installing: an editable install has no step for it.
    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(catalog_text(tag)), locale=tag))
    compiled.seek(0)
    return Translations(compiled)
