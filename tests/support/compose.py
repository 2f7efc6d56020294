"""compose.yaml, brought up for real: from a copy of what it needs, as a project of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.services import free_port
from support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
# All that a clone needs to be brought up.
_TREE = (
    "compose.yaml",
    "compose.scale.yaml",
    "Dockerfile",
    ".dockerignore",
    ".env.example",
    "requirements.txt",
    "deploy",
    "libs",
    "services",
)
_NOT_IN_A_CLONE = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
_UP_SECONDS = 120
_COMMAND_SECONDS = 300
_JSON = {"Accept": "application/json"}


def require_engine() -> None:
    """Skip the test where no Docker engine answers; in CI that is a failure."""
    missing = _engine_missing()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI needs a Docker engine: {missing}")
    if missing:
        pytest.skip(missing)


def _engine_missing() -> str | None:
    docker = shutil.which("docker")
    if docker is None:
        return "there is no docker command"
    for question, missing in (
        (["compose", "version"], "docker has no compose plugin"),
        (["version"], "no Docker engine answers"),
    ):
        answer = subprocess.run([docker, *question], capture_output=True, check=False, timeout=60)
        if answer.returncode != 0:
            return missing
    return None


class Compose:
    """One project made of a copy of the tree.

    Args:
        folder: For the copy; its .env is made as `make up` does.
        files: The compose files, the first one first.
        **settings: More lines for .env; a name without prefix gets ONCEDROP_ and capitals.
    """

    def __init__(
        self, folder: Path, *, files: tuple[str, ...] = ("compose.yaml",), **settings: str | int
    ) -> None:
        self.project = f"oncedrop-test-{secrets.token_hex(4)}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder / "clone"
        _copy_tree(self.folder)
        self.files_used = files
        self.env_file = self.folder / ".env"
        self.env_file.write_text(
            subprocess.run(
                ["sh", "deploy/make-env.sh", ".env.example"],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
        )
        self.set(gateway_port=self.port, public_url=self.url, due_interval_seconds=1, **settings)

    def set(self, **settings: str | int) -> None:
        """Add settings to .env; the next `up` makes them true."""
        with self.env_file.open("a") as env:
            for name, value in settings.items():
                prefix = "" if name == "gateway_port" else "ONCEDROP_"
                env.write(f"{prefix}{name.upper()}={value}\n")

    def secret(self, name: str) -> str:
        """What .env has under this name."""
        lines = self.env_file.read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))

    # Commands.

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with these arguments, whatever becomes of it."""
        chosen = [word for name in self.files_used for word in ("--file", name)]
        return self._run("compose", "--project-name", self.project, *chosen, *arguments)

    def __call__(self, *arguments: str) -> str:
        """Run `docker compose` with these arguments; its output."""
        answer = self.try_run(*arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def docker(self, *arguments: str) -> str:
        """Run `docker` with these arguments; its output."""
        answer = self._run(*arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )

    def environment(self) -> dict[str, str]:
        """This process's environment, without what would go before .env."""
        hidden = ("ONCEDROP_", "GATEWAY_", "REDIS_", "COMPOSE_")
        return {k: v for k, v in os.environ.items() if not k.startswith(hidden)}

    # Life.

    def up(self, *arguments: str, build: bool = True) -> None:
        """Bring it up and wait until all is healthy."""
        waiting = ("--detach", "--wait", "--wait-timeout", str(_UP_SECONDS))
        building = "--build" if build else "--no-build"
        answer = self.try_run("up", building, *waiting, *arguments)
        if answer.returncode != 0:
            logs = self.try_run("logs", "--tail", "30").stdout
            pytest.fail(f"{answer.stderr[-3000:]}\n{logs}")

    def down(self) -> None:
        """Take it down, volumes and images included."""
        self.try_run("down", "--volumes", "--rmi", "local", "--timeout", "3")

    def containers(self, service: str) -> list[str]:
        """The names of a service's containers, stopped ones too."""
        return sorted(self("ps", "--all", "--format", "{{.Name}}", service).split())

    def inspect(self, container: str, template: str) -> str:
        """What `docker inspect` says of a container."""
        return self.docker("inspect", "--format", template, container).strip()

    def shell(self, container: str, script: str) -> str:
        """Run a shell script in a container; its output."""
        answer = self._run("exec", container, "sh", "-c", script)
        return answer.stdout

    def kill_process(self, container: str) -> None:
        """`kill -9` of the container's process, as a crash; the restart policy starts it again.

        Where the processes of the engine are not ours to see it is killed and started by hand.
        """
        pid = int(self.inspect(container, "{{.State.Pid}}"))
        began = self.inspect(container, "{{.State.StartedAt}}")
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.docker("kill", container)
            self.docker("start", container)

        def runs_again() -> bool:
            now = self.inspect(container, "{{.State.Running}} {{.State.StartedAt}}")
            return now.startswith("true") and began not in now

        wait_until(runs_again, 30, what=f"{container} to be started again")

    def wait_healthy(self, *services: str) -> None:
        """Wait until all containers of these services say that they can do their work."""

        def healthy() -> bool:
            names = [name for service in services for name in self.containers(service)]
            words = self.docker("inspect", "--format", "{{.State.Health.Status}}", *names)
            return set(words.split()) == {"healthy"}

        wait_until(healthy, 90, what=f"{', '.join(services)} to be healthy")

    # Use.

    def upload(self, body: bytes, **options: str) -> dict[str, Any]:
        """Upload by PUT through the gateway, options as headers; what the uploader is told."""
        headers = {f"Oncedrop-{k.replace('_', '-')}": v for k, v in options.items()}
        answer = httpx.put(
            f"{self.url}/report.pdf", content=body, headers={**headers, **_JSON}, timeout=120
        )
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def receipt(self, drop: dict[str, Any]) -> dict[str, Any]:
        """What the uploader sees of a drop."""
        document: dict[str, Any] = httpx.get(drop["owner_url"], headers=_JSON, timeout=30).json()
        return document

    def status(self) -> dict[str, Any]:
        """The janitor's status page."""
        answer = httpx.get(f"{self.url}/janitor/status", headers=_JSON, timeout=30)
        document: dict[str, Any] = answer.json()
        return document

    def sweep(self, **query: str) -> dict[str, Any]:
        """Sweep now; the janitor's answer."""
        answer = httpx.post(
            f"{self.url}/janitor/sweep",
            params=query,
            headers={"Authorization": f"Bearer {self.secret('ONCEDROP_ADMIN_TOKEN')}"},
            timeout=120,
        )
        document: dict[str, Any] = answer.json()
        return document

    def stored_files(self) -> list[str]:
        """Every file in the shared volume that may hold bytes of a drop."""
        container = self.containers("ingest")[0]
        return self.shell(container, "find /volume -type f ! -name .oncedrop").split()

    def valkey(self, *command: str, container: str | None = None) -> str:
        """What a Redis command answers."""
        name = container or self.containers("valkey")[0]
        return self.docker("exec", name, "valkey-cli", *command).strip()

    def let_time_pass(self, seconds: int) -> None:
        """Make all records as old as if this time had passed."""
        script = (
            "for _, key in ipairs(redis.call('KEYS', 'oncedrop:drop:*')) do "
            "for _, field in ipairs(redis.call('HKEYS', key)) do "
            "if string.sub(field, -3) == '_ms' then "
            "redis.call('HINCRBY', key, field, ARGV[1]) end end end return 'DONE'"
        )
        assert self.valkey("EVAL", script, "0", str(-seconds * 1000)) == "DONE"


def _copy_tree(folder: Path) -> None:
    folder.mkdir()
    for name in _TREE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_NOT_IN_A_CLONE)
        elif source.exists():
            shutil.copy(source, folder / name)


@contextlib.contextmanager
def running_compose(
    folder: Path,
    *arguments: str,
    files: tuple[str, ...] = ("compose.yaml",),
    **settings: str | int,
) -> Iterator[Compose]:
    """A project that is up and healthy; taken down with the block."""
    require_engine()
    compose = Compose(folder, files=files, **settings)
    try:
        compose.up(*arguments)
        yield compose
    finally:
        compose.down()
