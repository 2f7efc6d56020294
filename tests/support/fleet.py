"""Several of each service over one Redis and one volume, which may have several mounts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from support.services import Service, files_in
from support.stack import ADMIN_TOKEN, NAMES


@dataclass
class Fleet:
    """The running services.

    Attributes:
        volume_dir: The volume, as the first mount shows it.
    """

    ingests: list[Service]
    delivers: list[Service]
    janitors: list[Service]
    volume_dir: Path

    @property
    def services(self) -> list[Service]:
        """All of them."""
        return [*self.ingests, *self.delivers, *self.janitors]

    def wait_ready(self) -> None:
        """Wait until all can do their work."""
        for service in self.services:
            service.wait_ready()

    def sweep(self, janitor: int = 0, **query: str) -> dict[str, Any]:
        """Sweep now; this janitor's answer."""
        answer = httpx.post(
            f"{self.janitors[janitor].url}/sweep",
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
def running_fleet(
    folder: Path,
    redis_url: str,
    volume_dirs: Sequence[Path],
    *,
    sizes: tuple[int, int, int] = (1, 2, 3),
    **settings: str | int,
) -> Iterator[Fleet]:
    """So many of each, ready; ended with the block.

    Args:
        folder: For their logs.
        redis_url: Their Redis.
        volume_dirs: Mounts of one volume; replicas take them in turn.
        sizes: How many ingests, delivers and janitors.
        **settings: For all of them.
    """
    counts = dict(zip(NAMES, sizes, strict=True))
    started: dict[str, list[Service]] = {name: [] for name in counts}
    try:
        for name, count in counts.items():
            for number in range(count):
                started[name].append(
                    Service(
                        name,
                        redis_url,
                        volume_dirs[number % len(volume_dirs)],
                        folder / f"{name}-{number + 1}.log",
                        admin_token=ADMIN_TOKEN,
                        **settings,
                    )
                )
        fleet = Fleet(
            started["ingest"], started["deliver"], started["janitor"], Path(volume_dirs[0])
        )
        fleet.wait_ready()
        yield fleet
    finally:
        for service in (s for services in started.values() for s in services):
            if service.process.poll() is None:
                service.stop()
