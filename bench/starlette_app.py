"""Programs to compare with, each as a running server."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.ports import free_port
from bench.servers import Server, answers, running

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def running_usual(folder: Path, redis_url: str = "redis://127.0.0.1:1") -> Iterator[Server]:
    """`bench.usual` under uvicorn, one process; ended with the block.

    Args:
        folder: Made; what it serves from and stores in.
        redis_url: For the links that work once.
    """
    folder.mkdir(parents=True)
    (folder / "ready").write_text("ready\n")
    settings = {"BENCH_FOLDER": str(folder), "BENCH_REDIS_URL": redis_url, "TMPDIR": str(folder)}
    with running_uvicorn("bench.usual:create_app", folder, "--factory", **settings) as server:
        yield server


@contextlib.contextmanager
def running_uvicorn(app: str, folder: Path, *options: str, **settings: str) -> Iterator[Server]:
    """An application of the bench under uvicorn, one process; ended with the block.

    Args:
        app: Where it is, `module:name`; answers `/ready`.
        folder: Its log goes beside it.
        *options: Of uvicorn.
        **settings: For its environment.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    uvicorn = [sys.executable, "-m", "uvicorn", app, "--port", str(port), *options]
    with running(
        app,
        [*uvicorn, "--loop", "uvloop", "--http", "httptools", "--no-access-log"],
        folder.with_suffix(".log"),
        lambda: answers(f"{url}/ready"),
        url=url,
        environment={**os.environ, "PYTHONPATH": str(ROOT), **settings},
    ) as server:
        yield server
