"""What cannot work ends in a message that says what to do."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.compose import Compose, require_engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    require_engine()
    compose = Compose(tmp_path)
    yield compose
    compose.down()


def up(compose: Compose, override: str = "services: {}") -> str:
    """`deploy/up.sh` fails; what it says."""
    (compose.folder / "compose.override.yaml").write_text(override)
    answer = subprocess.run(
        ["sh", "deploy/up.sh"],
        cwd=compose.folder,
        env={**compose.environment(), "COMPOSE_PROJECT_NAME": compose.project},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 1, answer.stderr
    return answer.stderr


def test_without_env_both_ways_to_start_say_how_to_make_it(compose: Compose) -> None:
    hidden = compose.env_file.rename(compose.folder / "hidden")

    assert "sh deploy/make-env.sh .env.example >.env" in up(compose)
    plain = compose.try_run("up", "--detach")
    hidden.rename(compose.env_file)

    assert plain.returncode != 0
    assert "in .env (see .env.example)" in plain.stderr


def test_a_taken_port_names_the_setting(compose: Compose) -> None:
    with socket.create_server(("127.0.0.1", compose.port)):
        said = up(compose)

    assert "set another GATEWAY_PORT" in said


def test_a_missing_image_is_named(compose: Compose) -> None:
    said = up(compose, "services: {gateway: {image: 'oncedrop.invalid/nginx:0'}}")

    assert "oncedrop.invalid" in said
    assert "could not be fetched" in said


def test_a_read_only_volume_is_named_by_the_services_that_need_it(compose: Compose) -> None:
    mounts = "".join(
        f"  {name}: {{volumes: ['drops:/volume:ro']}}\n"
        for name in ("ingest", "deliver", "janitor")
    )

    said = up(compose, f"services:\n{mounts}")

    assert "is not ready" in said
    assert "volume" in said
    assert "docs/operations.md" in said
