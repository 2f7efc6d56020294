"""How long a small request takes while large transfers run, their files not in memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import load
from bench.comparing import MIB, Bench
from bench.memory import forget, warm_memory
from bench.nginx import Nginx, running_nginx
from bench.probing import Latencies, probed
from bench.results import Case, Sample
from bench.seeding import blob_path, large_drops, redis_client, small_drops
from bench.servers import Server, Usage, watched
from bench.stack import Stack, running_stack
from bench.starlette_app import running_usual
from bench.transfers import delete_drops, remove_stored

TRANSFERS = 4
_EVERY_MS = 2
_IDLE_SECONDS = 1


def measure(bench: Bench) -> None:
    """Compare with nginx and with FileResponse; nginx without transfers tells the probe's share."""
    mib = 128 if bench.quick else 512
    payload = bench.payload(mib * MIB)
    with (
        running_nginx(bench.folder / "nginx") as nginx,
        running_stack(bench.folder / "stack") as stack,
        running_usual(bench.folder / "usual") as usual,
        redis_client(stack.redis_url) as client,
    ):
        stack.start_all()
        token = small_drops(stack.volume, client, 1, b"looked at, never taken")[0]
        files = [nginx.root / f"file-{n}" for n in range(TRANSFERS)]
        for file in files:
            shutil.copyfile(payload, file)
            os.link(file, bench.folder / "usual" / file.name)
        static = partial(_while_static, files)
        once = partial(_while_once, stack, payload)
        bench.compare(
            Case("latency", f"during {TRANSFERS} downloads of {mib} MiB, cold"),
            {
                "nginx, idle": partial(_idle, nginx.server, "GET", "/ready"),
                "nginx": partial(static, nginx.server, "GET", "/ready"),
                "oncedrop, GET /healthz": partial(once, "GET", "/healthz"),
                "oncedrop, HEAD of a drop": partial(once, "HEAD", f"/d/{token}"),
                "FileResponse": partial(static, usual, "GET", "/ready"),
            },
        )
        bench.compare(
            Case("latency", f"during {TRANSFERS} uploads of {mib} MiB"),
            {
                "nginx": partial(_while_put, nginx, payload),
                "oncedrop, GET /healthz": partial(_while_uploaded, stack, payload),
            },
        )


def _sample(seen: Latencies, usage: Usage) -> Sample:
    return {
        "p50_ms": seen.p50,
        "p99_ms": seen.p99,
        "worst_ms": seen.worst,
        "other_cores": usage.other_cores,
    }


def _idle(server: Server, *request: str) -> Sample:
    with watched(server) as usage, probed(server.url, *request, every_ms=_EVERY_MS) as seen:
        time.sleep(_IDLE_SECONDS)
    return _sample(seen, usage)


def _while_downloading(
    server: Server, urls: Sequence[str], files: Sequence[Path], size: int, *request: str
) -> Sample:
    os.sync()
    for file in files:
        forget(file)
    with watched(server) as usage, probed(server.url, *request, every_ms=_EVERY_MS) as seen:
        load.download(urls, size)
    return _sample(seen, usage)


def _while_static(files: Sequence[Path], server: Server, *request: str) -> Sample:
    urls = [f"{server.url}/{file.name}" for file in files]
    return _while_downloading(server, urls, files, files[0].stat().st_size, *request)


def _while_once(stack: Stack, source: Path, *request: str) -> Sample:
    with redis_client(stack.redis_url) as client:
        tokens = large_drops(stack.volume, client, TRANSFERS, source)
    urls = [f"{stack.deliver.url}/d/{token}" for token in tokens]
    files = [blob_path(stack.volume, token) for token in tokens]
    return _while_downloading(stack.deliver, urls, files, source.stat().st_size, *request)


def _while_put(nginx: Nginx, source: Path) -> Sample:
    server = nginx.server
    warm_memory(source.parent, TRANSFERS * source.stat().st_size)
    urls = [f"{server.url}/put/{n}" for n in range(TRANSFERS)]
    with watched(server) as usage, probed(server.url, "GET", "/ready", every_ms=_EVERY_MS) as seen:
        load.put_at_once(source, urls)
    remove_stored(nginx.put, TRANSFERS, source.stat().st_size)
    return _sample(seen, usage)


def _while_uploaded(stack: Stack, source: Path) -> Sample:
    ingest = stack.ingest
    warm_memory(source.parent, TRANSFERS * source.stat().st_size)
    urls = [f"{ingest.url}/big-{n}.bin" for n in range(TRANSFERS)]
    with (
        watched(ingest) as usage,
        probed(ingest.url, "GET", "/healthz", every_ms=_EVERY_MS) as seen,
    ):
        answers = load.put_at_once(source, urls).answers
    delete_drops(answers, source.stat().st_size)
    return _sample(seen, usage)
