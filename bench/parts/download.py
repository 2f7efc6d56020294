"""Large files out: one connection, and eight at once; each drop is downloaded once."""

from __future__ import annotations

import os
from functools import partial

from bench.comparing import MIB, Bench
from bench.nginx import running_nginx
from bench.results import Case
from bench.stack import running_stack
from bench.starlette_app import running_usual
from bench.transfers import download_once, download_static


def measure(bench: Bench) -> None:
    """Compare with nginx's sendfile and with Starlette's FileResponse."""
    mib = 64 if bench.quick else 256
    payload = bench.payload(mib * MIB)
    with (
        running_nginx(bench.folder / "nginx") as nginx,
        running_stack(bench.folder / "stack") as stack,
        running_usual(bench.folder / "usual") as usual,
    ):
        stack.start_all()
        through_python = stack.start("deliver", zero_copy=0)
        for folder in (nginx.root, bench.folder / "usual"):
            os.link(payload, folder / "file")
        for connections in (1, 8):
            static = partial(
                download_static, size=mib * MIB, count=connections, connections=connections
            )
            once = partial(
                download_once, stack, source=payload, count=connections, connections=connections
            )
            bench.compare(
                Case("download", f"{connections} × {mib} MiB"),
                {
                    "nginx": partial(static, nginx.server, f"{nginx.server.url}/file"),
                    "oncedrop": partial(once, stack.deliver),
                    "oncedrop, zero copy off": partial(once, through_python),
                    "FileResponse": partial(static, usual, f"{usual.url}/file"),
                },
            )
