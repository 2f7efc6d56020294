"""The gateway of the compose stack as a process of this machine: nginx with the same rules."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx

from support.services import free_port
from support.stack import Stack
from support.waiting import wait_until

_CONF = Path(__file__).parents[2] / "deploy" / "gateway" / "nginx.conf"


def _adapted(stack: Stack, folder: Path, port: int) -> str:
    """The rules as they are, with places of this machine."""
    text = _CONF.read_text()
    for service in stack.services:
        text, count = re.subn(rf"http://{service.name}:\d+", service.url, text)
        assert count == 1
    text, count = re.subn(r"listen 8080;", f"listen 127.0.0.1:{port};", text)
    assert count == 1
    return text.replace("/tmp/", f"{folder}/")  # noqa: S108  the container's, not this machine's


@contextlib.contextmanager
def running_gateway(stack: Stack, folder: Path) -> Iterator[int]:
    """Its port; ended with the block."""
    folder.mkdir()
    # Started by root, its workers are nobody.
    folder.chmod(0o777)
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(_adapted(stack, folder, port))
    process = subprocess.Popen(["nginx", "-e", "stderr", "-p", str(folder), "-c", str(conf)])

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{port}/gateway/healthz"
            return httpx.get(url).status_code == 200
        return False

    try:
        wait_until(answers, 10, what="nginx")
        yield port
    finally:
        process.terminate()
        process.wait(20)
