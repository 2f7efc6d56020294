"""oncedrop as it is shipped: valkey and the three services, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.ports import free_port
from bench.servers import Server, answers, running
from oncedrop_common.embedded import valkey
from oncedrop_common.settings import PREFIX
from oncedrop_common.volume import Volume

ADMIN_TOKEN = "token of the bench"  # noqa: S105 - of a stack on loopback that ends with the bench


class Stack:
    """A valkey and a volume, and any services on them.

    Attributes:
        folder: Where everything of it lies.
        redis_url: Where its valkey listens.
        valkey: Its valkey.
        volume_dir: Where its volume is.
        ingest, deliver, janitor: The services as they are shipped, once start_all has run.
    """

    ingest: Server
    deliver: Server
    janitor: Server

    def __init__(
        self, folder: Path, redis_url: str, server: Server, stack: contextlib.ExitStack
    ) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.valkey = server
        self.volume_dir = folder / "volume"
        self._stack = stack
        self._started = 0

    @property
    def volume(self) -> Volume:
        """Its volume."""
        return Volume(self.volume_dir)

    def start_all(self) -> None:
        """Start all three services with their default settings."""
        self.ingest, self.deliver, self.janitor = map(self.start, ("ingest", "deliver", "janitor"))

    def start(self, service: str, *without: str, **settings: str | int) -> Server:
        """Start one more process of a service; ended with the stack.

        Args:
            service: ingest, deliver or janitor.
            *without: What bench.bare shall switch off.
            **settings: What differs from the defaults.
        """
        return self._stack.enter_context(self.running(service, *without, **settings))

    @contextlib.contextmanager
    def running(self, service: str, *without: str, **settings: str | int) -> Iterator[Server]:
        """As start, ended with the block."""
        port = free_port()
        self._started += 1
        url = f"http://127.0.0.1:{port}"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(PREFIX)},
            "ONCEDROP_DATA_DIR": str(self.folder),
            "ONCEDROP_VOLUME_DIR": str(self.volume_dir),
            "ONCEDROP_REDIS_URL": self.redis_url,
            "ONCEDROP_ADMIN_TOKEN": ADMIN_TOKEN,
            **{f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()},
            f"{PREFIX}{service.upper()}_PORT": str(port),
        }
        module = ["bench.bare", service, *without] if without else [f"oncedrop_{service}"]
        with running(
            f"oncedrop {service}",
            [sys.executable, "-m", *module],
            self.folder / f"{service}-{self._started}.log",
            lambda: answers(f"{url}/readyz"),
            url=url,
            environment=environment,
            workers_serve=settings.get("workers", 1) != 1,
        ) as server:
            yield server


@contextlib.contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """A valkey with the shipped configuration and an empty volume; services are started on it."""
    (folder / "volume").mkdir(parents=True)
    redis_folder = folder / "redis"
    url = valkey.embedded_url(redis_folder)
    config = valkey.write_config(redis_folder, url)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running(
                "valkey",
                [valkey.find_server(), config],
                folder / "valkey.log",
                lambda: valkey.answers(url),
            )
        )
        yield Stack(folder, url, server, stack)
