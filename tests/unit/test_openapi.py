"""The OpenAPI description and the routes of the three applications are the same set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.routing import Route

import oncedrop_deliver.app
import oncedrop_ingest.app
import oncedrop_janitor.app
from oncedrop_common import openapi
from oncedrop_common.problems import ROWS
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.valkey import make_store

DOCS = Path(__file__).parents[2] / "docs" / "openapi.yaml"
APPS = {
    "ingest": oncedrop_ingest.app.create_app,
    "deliver": oncedrop_deliver.app.create_app,
    "janitor": oncedrop_janitor.app.create_app,
}
METHODS = ("get", "head", "post", "put", "delete", "patch", "options", "trace")
# Where HEAD is more than GET without its body.
HEADS = {"/d/{token}", "/c/{claim}", "/c/{claim}/{name}"}

Creator = Callable[[Settings, DropStore, Volume], Starlette]


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DOCS.read_text())
    return document


def described(description: dict[str, Any], service: str) -> set[tuple[str, str]]:
    return {
        (path, method.upper())
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if method in METHODS and service in operation["tags"]
    }


def served(create: Creator, folder: Path) -> set[tuple[str, str]]:
    app = create(Settings(), make_store("redis://127.0.0.1:1"), Volume(folder))
    found = set()
    for route in app.routes:
        assert isinstance(route, Route)
        path = route.path.replace(":path}", "}")
        methods = route.methods or set()
        found |= {(path, method) for method in methods if method != "HEAD" or path in HEADS}
        if path == "/{name}":
            # Empty, too: a template's parameter is not (OpenAPI 3.1, section 4.8.9.1).
            found |= {("/", method) for method in methods}
    return found


@pytest.mark.parametrize("service", APPS)
def test_every_route_is_described_and_nothing_else(
    description: dict[str, Any], service: str, tmp_path: Path
) -> None:
    assert described(description, service) == served(APPS[service], tmp_path)


def test_what_is_served_is_what_the_docs_folder_has(description: dict[str, Any]) -> None:
    packaged = Path(openapi.__file__).with_name("openapi.yaml")
    assert DOCS.resolve() == packaged.resolve()
    # A list of all means something only if it is a description at all.
    assert description["openapi"].startswith("3.1.")


def test_every_reference_leads_somewhere_and_every_component_is_used(
    description: dict[str, Any],
) -> None:
    used: set[str] = set()

    def follow(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                used.add(reference)
            for value in node.values():
                follow(value)
        elif isinstance(node, list):
            for value in node:
                follow(value)

    follow(description)
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in description["components"].items()
        if kind != "securitySchemes"
        for name in components
    }
    assert used == defined
    schemes = set(description["components"]["securitySchemes"])
    operations = [o for i in description["paths"].values() for m, o in i.items() if m in METHODS]
    required = {name for o in operations for one in o.get("security", []) for name in one}
    assert required == schemes


def test_every_kind_of_error_is_named() -> None:
    text = DOCS.read_text()
    assert [error.slug for error in ROWS if f"`{error.slug}`" not in text] == []
