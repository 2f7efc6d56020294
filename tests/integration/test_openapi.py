"""What the services answer is what docs/openapi.yaml says, whatever they are asked.

schemathesis makes requests of the description, valid ones and others; HYPOTHESIS_PROFILE=thorough
makes more. What it makes up finds no drop, so where a path leads to one it is asked for real ones
as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    positive_data_acceptance,
)

from support.services import BROWSER, Service
from support.stack import ADMIN_TOKEN, Stack, running_stack

DOCS = Path(__file__).parents[2] / "docs" / "openapi.yaml"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
UPLOADS = {"PUT /", "PUT /{name}", "POST /upload"}
ONE_SEGMENT = re.compile(r"/[a-z.]+")
OPTIONS: dict[str, dict[str, str]] = {
    "waiting": {},
    "empty": {},
    "password": {"password": "correct horse"},
    "confirm": {"confirm": "always"},
    "claimed": {},
    "held": {"if_interrupted": "restore"},
    "gone": {},
}
ASKERS: dict[str, dict[str, str]] = {"program": {}, "browser": BROWSER}
ASKER = st.sampled_from(sorted(ASKERS))
Case: TypeAlias = schemathesis.Case[Any]
KIND = st.sampled_from(sorted(OPTIONS))


def description_of(service: str, *parameters: str) -> dict[str, Any]:
    """What the document says of one service: of all its paths, or of those with a parameter."""
    document: dict[str, Any] = yaml.safe_load(DOCS.read_text())
    found = {}
    for path, item in document["paths"].items():
        operations = {
            name: value
            for name, value in item.items()
            if name == "parameters" or service in value["tags"]
        }
        chosen = not parameters or any(f"{{{name}}}" in path for name in parameters)
        if chosen and operations.keys() - {"parameters"}:
            found[path] = operations
    return {**document, "paths": found}


def config(mode: str = "all", **phases: Any) -> SchemathesisConfig:
    # A request may be right in itself and the drop not be, or not any more, what it asks for.
    answered = ["2xx", "3xx", "401", "404", "409", "410", "412", "416", "429"]
    acceptance = {"positive_data_acceptance": {"expected-statuses": answered}}
    examples = {"mode": mode, "max-examples": settings().max_examples // 5}
    return SchemathesisConfig.from_dict({"checks": acceptance, "generation": examples, **phases})


def anything(service: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(description_of(service), config=config())


def for_a_drop(service: str, *parameters: str) -> schemathesis.BaseSchema:
    off = {"enabled": False}  # their cases come without what given() adds
    only_valid = config(generation={"mode": "positive"}, phases={"examples": off, "coverage": off})
    return schemathesis.openapi.from_dict(description_of(service, *parameters), config=only_valid)


INGEST, DELIVER, JANITOR = (anything(name) for name in ("ingest", "deliver", "janitor"))
RECEIPTS = for_a_drop("ingest", "receipt")
LINKS = for_a_drop("deliver", "token", "claim")
DROPS = for_a_drop("janitor", "drop_id")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("openapi"), upload_lease_seconds=5) as stack:
        yield stack
        for service in stack.services:
            assert "request_crashed" not in service.logged()


def check(case: Case, service: Service, headers: dict[str, str]) -> None:
    excluded: list[CheckFunction] = []
    if case.operation.label in UPLOADS:
        # Options may be valid each and not together: no description can say "given only once".
        excluded.append(positive_data_acceptance)
    if service.name == "ingest" and ONE_SEGMENT.fullmatch(case.operation.path):
        # These are files' names too, so PUT is allowed there as it is at /{name}.
        excluded.append(allow_header_conformance)
    case.call_and_validate(
        base_url=service.url, headers=headers, excluded_checks=excluded, allow_redirects=False
    )


def made(stack: Stack, kind: str) -> dict[str, str]:
    """The path parameters that lead to a new drop of this kind."""
    drop = stack.upload(b"" if kind == "empty" else b"once", **OPTIONS[kind])
    claim_id = "A" * 22
    if kind in ("claimed", "held"):
        answer = httpx.post(drop.url, data={"claim": claim_id})
        assert answer.status_code == 303, answer.text
    elif kind == "gone":
        assert httpx.delete(drop.owner_url).status_code == 200
    return {
        "token": drop.url.rpartition("/")[2],
        "receipt": drop.owner_url.rpartition("/")[2],
        "claim": f"{drop.id}.{claim_id}",
        "drop_id": drop.id,
    }


def lead_to(case: Case, parameters: dict[str, str]) -> None:
    case.path_parameters = {
        name: parameters.get(name, value) for name, value in case.path_parameters.items()
    }


@pytest.mark.parametrize("asker", ASKERS)
@INGEST.parametrize()
def test_ingest_answers_as_described(case: Case, stack: Stack, asker: str) -> None:
    check(case, stack.ingest, ASKERS[asker])


@pytest.mark.parametrize("asker", ASKERS)
@DELIVER.parametrize()
def test_deliver_answers_as_described(case: Case, stack: Stack, asker: str) -> None:
    check(case, stack.deliver, ASKERS[asker])


@pytest.mark.parametrize("asker", [*ASKERS, "operator"])
@JANITOR.parametrize()
def test_janitor_answers_as_described(case: Case, stack: Stack, asker: str) -> None:
    check(case, stack.janitor, ADMIN if asker == "operator" else ASKERS[asker])


@RECEIPTS.given(kind=KIND, asker=ASKER)
@RECEIPTS.parametrize()
def test_receipts_are_as_described(case: Case, stack: Stack, kind: str, asker: str) -> None:
    # The events of another would not end.
    followed = case.operation.label == "GET /o/{receipt}/events"
    lead_to(case, made(stack, "gone" if followed else kind))
    check(case, stack.ingest, ASKERS[asker])


@LINKS.given(kind=KIND, asker=ASKER)
@LINKS.parametrize()
def test_links_are_as_described(case: Case, stack: Stack, kind: str, asker: str) -> None:
    lead_to(case, made(stack, kind))
    check(case, stack.deliver, ASKERS[asker])


@DROPS.given(kind=KIND)
@DROPS.parametrize()
def test_operators_drops_are_as_described(case: Case, stack: Stack, kind: str) -> None:
    lead_to(case, made(stack, kind))
    check(case, stack.janitor, ADMIN)
