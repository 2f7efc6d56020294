"""Pages for people: Jinja templates, always escaped, because file names are hostile.

No page has an inline script or style, or asks any other host for anything. Each is in the
language that its reader asks for.
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

from oncedrop_common.languages import TAGS, Language, language, wanted_tag
from oncedrop_common.times import iso_utc

_OWN_PACKAGE = "oncedrop_common"


class Pages:
    """The templates of one service, in front of those that all share.

    Args:
        packages: Packages with a `templates` folder of their own, the first to be asked first.
    """

    def __init__(self, packages: Sequence[str] = ()) -> None:
        loader = ChoiceLoader([PackageLoader(p) for p in (*packages, _OWN_PACKAGE)])
        self._environments = {tag: _environment(loader, language(tag)) for tag in TAGS}

    def render(
        self, request: Request, template: str, status: int = 200, /, **context: object
    ) -> Response:
        """The page that this template makes of this context, in the reader's language.

        Raises:
            jinja2.UndefinedError: The template uses a name that the context does not have.
        """
        return Response(
            self.text(request, template, **context),
            status,
            {"Content-Language": _tag(request), "Vary": "Accept, Accept-Language"},
            media_type="text/html",
        )

    def text(self, request: Request, template: str, /, **context: object) -> str:
        """As render, without a response around it; for a part of a page.

        Raises:
            jinja2.UndefinedError: As render.
        """
        page = self._environments[_tag(request)].get_template(template)
        return page.render(request=request, **context)


def _tag(request: Request) -> str:
    return wanted_tag(",".join(request.headers.getlist("accept-language")))


def _environment(loader: ChoiceLoader, spoken: Language) -> Environment:
    environment = Environment(
        loader=loader,
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.install_gettext_translations(  # type: ignore[attr-defined]
        spoken.translations, newstyle=True
    )
    # Lines of a template are broken for who edits it, not for who translates it.
    environment.policies["ext.i18n.trimmed"] = True
    environment.globals["lang"] = spoken.tag

    def time_element(ms: int) -> Markup:
        return Markup('<time datetime="{}">{}</time>').format(iso_utc(ms), spoken.time(ms))

    environment.filters.update(
        size=spoken.size,
        duration=spoken.duration,
        time=time_element,
        iso=iso_utc,
        filename=name_element,
    )
    return environment


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
