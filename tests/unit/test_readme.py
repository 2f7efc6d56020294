"""What the README and the documents say of the code, held against the code."""

import re
from pathlib import Path

import pytest
from pydantic import ByteSize

from oncedrop_common.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]

# What the image sets, or what makes no sense in a container of one's own.
NOT_FOR_COMPOSE = {
    "crash_at", "data_dir", "host", "volume_dir", "ingest_port", "deliver_port", "janitor_port",
}  # fmt: skip

_TABLE = re.compile(r"<!-- settings:[^>]*-->\n(.*?)\n?<!-- /settings -->", re.DOTALL)
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*", re.MULTILINE)
_ROW = re.compile(r"^\| (`[^|]*) \|", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)")


def settings_table() -> str:
    """The README's table: a row per setting, in the order of the class."""
    rows = ["| name | default | |", "| --- | --- | --- |"]
    rows += [
        f"| `{PREFIX}{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows)


def _shown(default: object) -> str:
    match default:
        case None:
            return "unset"
        case bool():
            return f"`{int(default)}`"
        case ByteSize() if default:
            return f"`{default.human_readable()}`".replace(".0", "")
        case _:
            return f"`{default}`"


def test_the_readme_lists_every_setting_as_it_is() -> None:
    """When this fails: put what settings_table() returns between the two comments."""
    found = _TABLE.search(README)

    assert found is not None
    assert found[1] == settings_table()


def test_the_readme_says_why_each_dependency_is_there() -> None:
    explained = README.partition("## Why each dependency")[2].partition("\n## ")[0]
    told = {name for row in _ROW.findall(explained) for name in _NAME.findall(row)}
    files = ROOT.glob("requirements*.in")
    needed = {name for file in files for name in _REQUIREMENT.findall(file.read_text())}

    assert needed
    assert told == needed


def test_compose_passes_every_setting_on() -> None:
    text = (ROOT / "compose.yaml").read_text()
    passed = set(re.findall(rf"^ +{PREFIX}([A-Z_]+):", text, re.MULTILINE))

    assert passed == {name.upper() for name in Settings.model_fields.keys() - NOT_FOR_COMPOSE}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = _LINK.findall(document.read_text())

    # Those that start with ../../ are the hosting site's own pages.
    inside = [link for link in links if not link.startswith("../../commits")]
    assert [link for link in inside if not (document.parent / link).exists()] == []
