"""A browser and a stack for all tests of this folder; each visitor is watched to the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.browser import Visitor, chromium, require_chromium
from support.stack import Stack, running_stack
from support.stories import Visit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The module's browser: other modules' tests may be asynchronous."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The session's services; no stack where there is no browser."""
    require_chromium()
    with running_stack(tmp_path_factory.mktemp("stack"), max_file_bytes="20MiB") as stack:
        yield stack


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Makes visitors; at the end none has asked another host for anything, or met an error."""
    visitors: list[Visitor] = []

    def made(**options: Any) -> Visitor:
        visitors.append(Visitor(browser, **options))
        return visitors[-1]

    yield made
    for visitor in visitors:
        visitor.context.close()
    assert [text for visitor in visitors for text in visitor.complaints] == []
    assert set().union(*(visitor.hosts for visitor in visitors)) <= {"127.0.0.1"}
