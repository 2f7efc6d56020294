"""deliver dies at every step of a claim and of serving; what was promised holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.crash_cases import DELIVER, Case
from support.crashes import World, mortal_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with mortal_world(tmp_path_factory.mktemp("deliver"), "deliver") as world:
        yield world


@pytest.mark.parametrize("case", DELIVER, ids=lambda case: case.name)
def test_deliver_dies(world: World, case: Case) -> None:
    """1 to 5: one claimant at most was fed, whole or not; the drop is gone, or the next one's."""
    assert case.run(world) == case.expected
