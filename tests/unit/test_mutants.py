"""The table of mutants can be applied: it does not rot while the product changes."""

import re
from pathlib import Path

import pytest

from support import fault_docs
from support.mutants import MUTANTS, ROOT, Edit, Mutant, mutant_table

EDITS = [edit for mutant in MUTANTS for edit in mutant.edits]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{Path(edit.file).name} {edit.old[:40]}")
def test_what_a_mutant_changes_stands_in_its_file_exactly_once(edit: Edit) -> None:
    text = (ROOT / edit.file).read_text()

    assert text.count(edit.old) == 1
    assert edit.new != edit.old


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_catch_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.caught_by
    for test in mutant.caught_by:
        file, _, name = test.partition("[")[0].partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_table_in_the_docs_is_the_one_that_was_tried() -> None:
    """When this fails: `make mutants` writes it, once all are caught."""
    assert fault_docs.read("mutants") == mutant_table()
