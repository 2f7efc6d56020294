"""One round of moving large files, for any contender."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench import load
from bench.load import Transfer
from bench.memory import warm_memory
from bench.results import Sample
from bench.seeding import large_drops, redis_client
from bench.servers import BenchError, Server, Usage, watched
from bench.stack import Stack

_GONE_SECONDS = 5
_POLL_SECONDS = 0.01


def _sample(transfer: Transfer, usage: Usage, seconds: float | None = None) -> Sample:
    seconds = transfer.seconds if seconds is None else seconds
    return {
        "mib_per_s": transfer.bytes / 2**20 / seconds,
        "cpu_s_per_gib": usage.cpu_seconds / (transfer.bytes / 2**30),
        "peak_mib": usage.peak_bytes / 2**20,
        "client_cpu": transfer.client_cpu,
    }


def download_static(server: Server, url: str, size: int, connections: int) -> Sample:
    """The same file over and over, from a server that keeps it."""
    with watched(server) as usage:
        transfer = load.download([url] * connections, size)
    return _sample(transfer, usage)


def download_once(stack: Stack, deliver: Server, source: Path, connections: int) -> Sample:
    """A drop for each connection, made beforehand; until the last file is removed.

    Raises:
        BenchError: A file was still there after five seconds.
    """
    with redis_client(stack.redis_url) as client:
        tokens = large_drops(stack.volume, client, connections, source)
    urls = [f"{deliver.url}/d/{token}" for token in tokens]
    with watched(deliver, stack.valkey) as usage:
        transfer = load.download(urls, source.stat().st_size)
        _wait_until_gone(stack)
    return _sample(transfer, usage)


def _wait_until_gone(stack: Stack) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while any(os.scandir(stack.volume.claimed_folder)):
        if time.monotonic() > deadline:
            raise BenchError("delivered files are still there")
        time.sleep(_POLL_SECONDS)


def upload_kept(
    server: Server,
    send: Callable[[Path, str], Transfer],
    url: str,
    source: Path,
    folder: Path,
    *,
    sync: bool = False,
) -> Sample:
    """An upload to a server that puts it into a folder; the file is removed afterwards.

    Args:
        server: Where it goes.
        send: `load.put` or `load.post_form`.
        url: What it is sent to.
        source: The file.
        folder: Where the server puts it; nothing else of this size is in there.
        sync: Count the time of an fsync of the stored file too.

    Raises:
        BenchError: It is not there, or not whole.
    """
    # A form is stored twice: as a temporary file, then in its place.
    copies = 2 if send is load.post_form else 1
    warm_memory(source.parent, copies * source.stat().st_size)
    with watched(server) as usage:
        transfer = send(source, url)
    stored = [path for path in folder.iterdir() if path != source and path.name != "ready"]
    if [path.stat().st_size for path in stored] != [source.stat().st_size]:
        raise BenchError(f"{server.name} did not store the file")
    seconds = transfer.seconds
    if sync:
        began = time.monotonic()
        fd = os.open(stored[0], os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        seconds += time.monotonic() - began
    stored[0].unlink()
    os.sync()
    return _sample(transfer, usage, seconds)


def upload_drop(
    stack: Stack, ingest: Server, send: Callable[[Path, str], Transfer], url: str, source: Path
) -> Sample:
    """An upload that becomes a drop; the drop is deleted afterwards.

    Raises:
        BenchError: It was not deleted, or not whole.
    """
    warm_memory(source.parent, source.stat().st_size)
    with watched(ingest, stack.valkey) as usage:
        transfer = send(source, url)
    told = json.loads(transfer.answer)
    if told["size"] != source.stat().st_size:
        raise BenchError("the drop has not the size of its file")
    request = urllib.request.Request(told["owner_url"], method="DELETE")  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http on loopback
        if not json.load(response)["file_deleted"]:
            raise BenchError("the drop's file was not deleted")
    os.sync()
    return _sample(transfer, usage)
