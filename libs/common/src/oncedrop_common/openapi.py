"""The description of all services' HTTP, in OpenAPI 3.1, for programs that read such."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

# RFC 9512 section 2.1.
_MEDIA_TYPE = "application/yaml"


def openapi_routes() -> list[BaseRoute]:
    """`/openapi.yaml`, kept in memory: one description of all three, the same at each."""
    description = files(__package__).joinpath("openapi.yaml").read_bytes()

    async def openapi(_request: Request) -> Response:
        return Response(description, media_type=_MEDIA_TYPE)

    return [Route("/openapi.yaml", openapi)]
