"""All three services and a Redis of their own, for tests that break things."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from oncedrop_common.embedded.valkey import answers, embedded_url, find_server, write_config
from support.services import Service, files_in
from support.waiting import wait_until

ADMIN_TOKEN = "test admin token"
NAMES = ("ingest", "deliver", "janitor")


class OwnRedis:
    """A valkey-server with an append-only file, to be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = embedded_url(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it has loaded its data."""
        config = write_config(self.folder, self.url)
        self._process = subprocess.Popen([find_server(), str(config)])
        wait_until(lambda: answers(self.url), 20, what="valkey-server")

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it this signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it as an operator does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@dataclass(frozen=True)
class Uploaded:
    """What the uploader was told."""

    url: str
    owner_url: str
    id: str


@dataclass
class Stack:
    """The running stack."""

    redis: OwnRedis
    ingest: Service
    deliver: Service
    janitor: Service
    volume_dir: Path

    @property
    def services(self) -> tuple[Service, Service, Service]:
        """All three."""
        return (self.ingest, self.deliver, self.janitor)

    def wait_ready(self) -> None:
        """Wait until all can do their work."""
        for service in self.services:
            service.wait_ready()

    def upload(self, body: bytes, *, name: str = "report.pdf", **options: str) -> Uploaded:
        """Upload by PUT, options as Oncedrop-* headers."""
        headers = {f"Oncedrop-{k.replace('_', '-')}": v for k, v in options.items()}
        answer = httpx.put(
            f"{self.ingest.url}/{quote(name)}",
            content=body,
            headers={**headers, "Accept": "application/json"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text
        document = answer.json()
        return Uploaded(
            self._local(document["url"], self.deliver),
            self._local(document["owner_url"], self.ingest),
            document["id"],
        )

    @staticmethod
    def _local(url: str, service: Service) -> str:
        return service.url + httpx.URL(url).raw_path.decode()

    def sweep(self, **query: str) -> dict[str, Any]:
        """Sweep now; the janitor's answer."""
        answer = httpx.post(
            f"{self.janitor.url}/sweep",
            params=query,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=60,
        )
        document: dict[str, Any] = json.loads(answer.text)
        return document

    def files(self) -> list[Path]:
        """Every file in the volume that may hold bytes of a drop."""
        return files_in(self.volume_dir)


@contextlib.contextmanager
def running_stack(folder: Path, **settings: str | int) -> Iterator[Stack]:
    """A stack whose data lie in this folder; ended with the block."""
    volume_dir = folder / "volume"
    volume_dir.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="oncedrop-") as short:
        redis = OwnRedis(Path(short))
        services: dict[str, Service] = {}
        try:
            ports: dict[str, str | int] = {}
            for name in ("deliver", "janitor", "ingest"):
                services[name] = Service(
                    name,
                    redis.url,
                    volume_dir,
                    folder / f"{name}.log",
                    admin_token=ADMIN_TOKEN,
                    **ports,
                    **settings,
                )
                ports[f"{name}_port"] = services[name].port
            stack = Stack(redis, volume_dir=volume_dir, **{n: services[n] for n in NAMES})
            stack.wait_ready()
            yield stack
        finally:
            for service in services.values():
                if service.process.poll() is None:
                    service.stop()
            redis.stop()
