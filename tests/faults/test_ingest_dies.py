"""ingest dies at every step of an upload and of a deletion; what was promised holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.crash_cases import INGEST, Case
from support.crashes import World, mortal_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with mortal_world(tmp_path_factory.mktemp("ingest"), "ingest") as world:
        yield world


@pytest.mark.parametrize("case", INGEST, ids=lambda case: case.name)
def test_ingest_dies(world: World, case: Case) -> None:
    """3, 4, 5: what was not answered does not stay for ever; what was answered is kept."""
    assert case.run(world) == case.expected
