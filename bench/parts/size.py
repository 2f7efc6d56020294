"""Cost as files grow and as connections grow; memory with 64 transfers at once."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from bench import load
from bench.comparing import MIB, Bench, Contender
from bench.load import Send
from bench.nginx import Nginx, running_nginx
from bench.results import Case, Sample
from bench.servers import Server
from bench.stack import Stack, running_stack
from bench.transfers import download_once, download_static, upload_drops, upload_kept

GIB = 1024 * MIB
_SIZES = [1024, 64 * 1024, MIB, 16 * MIB, 256 * MIB, GIB, 8 * GIB]
_QUICK_SIZES = [1024, MIB, 256 * MIB]
# Small ones often, so that their time can be told.
_MOST_FILES = 256
_BYTES_A_ROUND = 16 * MIB
_ONCE_FROM = GIB
_CONNECTIONS = [1, 4, 16, 64, 256]
_QUICK_CONNECTIONS = [1, 16, 256]
_MOST_CONNECTIONS = 256
_AT_ONCE = 64
# The payload and one copy; the rest is somebody else's.
_FREE_FOR_EACH_BYTE = 3


def measure(bench: Bench) -> None:
    """Compare with nginx, size by size and then connections by connections."""
    with (
        running_nginx(bench.folder / "nginx") as nginx,
        running_stack(bench.folder / "stack") as stack,
    ):
        stack.start_all()
        for size in _QUICK_SIZES if bench.quick else _SIZES:
            _sizes(bench, nginx, stack, size)
        _connections(bench, nginx, stack)
        _memory(bench, nginx, stack)


def size_name(size: int) -> str:
    """A power of two, as people write it."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def _sizes(bench: Bench, nginx: Nginx, stack: Stack, size: int) -> None:
    name = size_name(size)
    down = Case("size", f"download, {name}", series="download, by file size", point=name)
    up = Case("size", f"PUT, {name}", series="PUT, by file size", point=name)
    free = shutil.disk_usage(bench.folder).free
    if free < _FREE_FOR_EACH_BYTE * size:
        for case in (down, up):
            case.skipped["all"] = f"only {free // GIB} GiB are free"
            bench.run.cases.append(case)
        return
    payload = bench.payload(size)
    count = max(1, min(_MOST_FILES, _BYTES_A_ROUND // size))
    rounds = 1 if size >= _ONCE_FROM else 3
    downloads = _downloads(nginx, stack, payload, count, 1)
    bench.compare(down, _told(downloads, size), rounds=rounds)
    server, ingest = nginx.server, stack.ingest
    put_urls = [f"{server.url}/put/{n}" for n in range(count)]
    drop_urls = [f"{ingest.url}/{n}.bin" for n in range(count)]
    uploads: dict[str, Contender] = {
        "nginx": partial(upload_kept, server, load.put, put_urls, payload, nginx.put),
        "oncedrop": partial(upload_drops, stack, ingest, load.put, drop_urls, payload),
    }
    bench.compare(up, _told(uploads, size), rounds=rounds)
    payload.unlink()


def _told(contenders: dict[str, Contender], size: int) -> dict[str, Contender]:
    """What small files cost is told by file, not by byte."""
    if size >= MIB:
        return contenders

    def by_file(contender: Contender) -> Sample:
        sample = dict(contender())
        cpu_seconds = sample.pop("cpu_s_per_gib") * size / GIB
        del sample["both_cpu_s_per_gib"]
        return {
            "ms_per_file": size / MIB / sample["mib_per_s"] * 1000,
            "cpu_ms_per_file": cpu_seconds * 1000,
            **sample,
        }

    return {name: partial(by_file, contender) for name, contender in contenders.items()}


def _downloads(
    nginx: Nginx, stack: Stack, payload: Path, count: int, connections: int
) -> dict[str, Contender]:
    served = nginx.root / "file"
    served.unlink(missing_ok=True)
    os.link(payload, served)
    size = payload.stat().st_size
    return {
        "nginx": partial(
            download_static, nginx.server, f"{nginx.server.url}/file", size, count, connections
        ),
        "oncedrop": partial(download_once, stack, stack.deliver, payload, count, connections),
    }


def _connections(bench: Bench, nginx: Nginx, stack: Stack) -> None:
    size = (1 if bench.quick else 4) * MIB
    payload = bench.payload(size)
    for connections in _QUICK_CONNECTIONS if bench.quick else _CONNECTIONS:
        bench.compare(
            Case(
                "size",
                f"{connections} connections, {_MOST_CONNECTIONS} × {size_name(size)}",
                series="download, by connections",
                point=str(connections),
            ),
            _downloads(nginx, stack, payload, _MOST_CONNECTIONS, connections),
            rounds=3,
        )
    payload.unlink()


def _memory(bench: Bench, nginx: Nginx, stack: Stack) -> None:
    size = (8 if bench.quick else 64) * MIB
    payload = bench.payload(size)
    bench.compare(
        Case("size", f"{_AT_ONCE} downloads at once, {size_name(size)} each"),
        _downloads(nginx, stack, payload, _AT_ONCE, _AT_ONCE),
        rounds=2,
    )

    def drops(ingest: Server, send: Send, path: str) -> Sample:
        return upload_drops(stack, ingest, send, [ingest.url + path] * _AT_ONCE, payload)

    server = nginx.server
    urls = [f"{server.url}/put/{n}" for n in range(_AT_ONCE)]
    bench.compare(
        Case("size", f"{_AT_ONCE} uploads at once, {size_name(size)} each"),
        {
            "nginx": partial(upload_kept, server, load.put_at_once, urls, payload, nginx.put),
            "oncedrop, PUT": partial(drops, stack.ingest, load.put_at_once, "/big.bin"),
            "oncedrop, form": partial(drops, stack.ingest, load.post_form_at_once, "/upload"),
        },
        rounds=2,
    )
    payload.unlink()
