"""Pages for people: Jinja templates, always escaped, because file names are hostile.

No page has an inline script or style, or asks any other host for anything. Sizes are decimal
(1 MB is 1,000,000 bytes), as on the labels of disks.
"""

from __future__ import annotations

import mimetypes
import unicodedata
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from oncedrop_common.times import iso_utc, utc

_OWN_PACKAGE = "oncedrop_common"
_SIZE_STEP = 1000
_SIZE_UNITS = ("kB", "MB", "GB", "TB", "PB")
# A unit is used from two of it on, so that "119 minutes" does not become "1 hour".
_DURATION_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Pages:
    """The templates of one service, in front of those that all share.

    Args:
        packages: Packages with a `templates` folder of their own, the first to be asked first.
    """

    def __init__(self, packages: Sequence[str] = ()) -> None:
        self._environment = Environment(
            loader=ChoiceLoader([PackageLoader(p) for p in (*packages, _OWN_PACKAGE)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            size=size_text, duration=duration_text, time=time_element, filename=name_element
        )

    def render(
        self, request: Request, template: str, status: int = 200, /, **context: object
    ) -> Response:
        """The page that this template makes of this context.

        Raises:
            jinja2.UndefinedError: The template uses a name that the context does not have.
        """
        html = self._environment.get_template(template).render(request=request, **context)
        return Response(html, status, media_type="text/html")


def static_routes() -> list[BaseRoute]:
    """The shared style sheet, icon and scripts, kept in memory, at `/static/<name>`.

    Behind a gateway `/static/` leads to ingest, whichever service's page asks: so every service
    serves the same files, those of this package.
    """
    served = {
        entry.name: (entry.read_bytes(), mimetypes.guess_type(entry.name)[0])
        for entry in files(_OWN_PACKAGE).joinpath("static").iterdir()
        if entry.is_file()
    }

    async def static(request: Request) -> Response:
        found = served.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        content, media_type = found
        return Response(content, media_type=media_type)

    return [Route("/static/{name}", static)]


def size_text(count: int) -> str:
    """A number of bytes for people: `512 bytes`, `1.4 MB`."""
    if count < _SIZE_STEP:
        return _counted(count, "byte")
    values = [round(count / _SIZE_STEP**power, 1) for power in range(1, len(_SIZE_UNITS) + 1)]
    value, unit = next(
        ((v, u) for v, u in zip(values, _SIZE_UNITS, strict=True) if v < _SIZE_STEP),
        (values[-1], _SIZE_UNITS[-1]),
    )
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def duration_text(seconds: float) -> str:
    """A duration for people, rounded to the unit that suits it: `23 hours`, `90 seconds`."""
    whole = max(0, round(seconds))
    for length, unit in _DURATION_UNITS:
        if whole >= 2 * length:
            return _counted((whole + length // 2) // length, unit)
    return _counted(whole, "second")


def time_element(ms: int) -> Markup:
    """A Unix time in milliseconds as a `<time>` that programs can read too."""
    moment = utc(ms)
    text = f"{moment.day} {moment:%B %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(iso_utc(ms), text)


def name_element(name: str) -> Markup:
    """A file's name, kept apart from the text around it.

    What is invisible or turns the writing direction (Unicode categories Cc, Cf, Zl, Zp) is shown
    as a replacement character, so that `gpj.exe` cannot pose as `exe.jpg`.
    """
    visible = "".join(
        "\N{REPLACEMENT CHARACTER}" if _deceives(character) else character for character in name
    )
    return Markup('<bdi class="filename">{}</bdi>').format(visible)


def _deceives(character: str) -> bool:
    # The zero-width joiner (Cf too) holds emoji together.
    return (
        unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"}
        and character != "\N{ZERO WIDTH JOINER}"
    )


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
