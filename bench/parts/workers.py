"""What a second worker process brings."""

from __future__ import annotations

import contextlib
import os
from functools import partial

from bench.comparing import MIB, Bench, Contender
from bench.nginx import Nginx, running_nginx
from bench.parts.claims import BODY_BYTES, CONNECTIONS, OnceRate, static_rate
from bench.results import Case
from bench.stack import running_stack
from bench.transfers import download_once, download_static

_COUNTS = (1, 2)
_DOWNLOADS = 8


def measure(bench: Bench) -> None:
    """Compare one process with two, and both with nginx's workers of the same number."""
    mib = 64 if bench.quick else 256
    seconds = 2 if bench.quick else 4
    payload = bench.payload(mib * MIB)
    body = os.urandom(BODY_BYTES)
    many: dict[str, Contender] = {}
    large: dict[str, Contender] = {}
    with contextlib.ExitStack() as stacked:
        stack = stacked.enter_context(running_stack(bench.folder / "stack"))
        stack.start_all()
        for workers in _COUNTS:
            nginx: Nginx = stacked.enter_context(
                running_nginx(bench.folder / f"nginx-{workers}", workers=workers)
            )
            (nginx.root / "small").write_bytes(body)
            os.link(payload, nginx.root / "file")
            deliver = stack.start("deliver", workers=workers)
            many[f"nginx, {workers}"] = partial(
                static_rate, nginx.server, "/small", seconds=seconds, folder=bench.folder
            )
            many[f"oncedrop, {workers}"] = OnceRate(stack, deliver, body, seconds=seconds)
            large[f"nginx, {workers}"] = partial(
                download_static,
                nginx.server,
                f"{nginx.server.url}/file",
                mib * MIB,
                _DOWNLOADS,
                _DOWNLOADS,
            )
            large[f"oncedrop, {workers}"] = partial(
                download_once, stack, deliver, payload, _DOWNLOADS, _DOWNLOADS
            )
        name = f"{CONNECTIONS} connections, {BODY_BYTES // 1024} KiB, by processes"
        bench.compare(Case("workers", name, baseline="oncedrop, 1"), many)
        name = f"{_DOWNLOADS} × {mib} MiB, by processes"
        bench.compare(Case("workers", name, baseline="oncedrop, 1"), large)
