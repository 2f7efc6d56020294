"""One round of moving large files, for any contender."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench import load
from bench.load import Send, Transfer
from bench.memory import warm_memory
from bench.results import Sample
from bench.seeding import large_drops, redis_client
from bench.servers import BenchError, Server, Usage, watched
from bench.stack import Stack
from oncedrop_common.volume import Place

_GONE_SECONDS = 10
_POLL_SECONDS = 0.01


def measured(transfer: Transfer, usage: Usage, seconds: float | None = None) -> dict[str, float]:
    """A round's numbers.

    Args:
        transfer: What the client did.
        usage: What the servers used.
        seconds: How long it took, where not just the client's time counts.
    """
    seconds = transfer.seconds if seconds is None else seconds
    gib = transfer.bytes / 2**30
    return {
        "mib_per_s": gib * 1024 / seconds,
        "cpu_s_per_gib": usage.cpu_seconds / gib,
        "both_cpu_s_per_gib": (usage.cpu_seconds + transfer.client_cpu_seconds) / gib,
        "peak_mib": usage.peak_bytes / 2**20,
        "client_cores": transfer.client_cores,
        "other_cores": usage.other_cores,
    }


# Down.


def download_static(server: Server, url: str, size: int, count: int, connections: int) -> Sample:
    """The same file over and over, from a server that keeps it."""
    with watched(server) as usage:
        transfer = load.download([url] * count, size, connections)
    return measured(transfer, usage)


def download_once(
    stack: Stack, deliver: Server, source: Path, count: int, connections: int
) -> Sample:
    """So many drops, made beforehand, each downloaded; until the last file is removed.

    Raises:
        BenchError: A file was still there after ten seconds.
    """
    with redis_client(stack.redis_url) as client:
        tokens = large_drops(stack.volume, client, count, source)
    urls = [f"{deliver.url}/d/{token}" for token in tokens]
    held_before = held_files(stack)
    with watched(deliver, stack.valkey) as usage:
        transfer = load.download(urls, source.stat().st_size, connections)
        wait_until_gone(stack, held_before)
    return measured(transfer, usage)


def held_files(stack: Stack) -> int:
    """How many files are in claimed/: under way, or left by who went away."""
    return len(os.listdir(stack.volume.root / Place.CLAIMED))


def wait_until_gone(stack: Stack, most: int) -> None:
    """Wait until at most so many files are in claimed/.

    Raises:
        BenchError: There were more after ten seconds.
    """
    deadline = time.monotonic() + _GONE_SECONDS
    while held_files(stack) > most:
        if time.monotonic() > deadline:
            raise BenchError("delivered files are still there")
        time.sleep(_POLL_SECONDS)


# Up.


def upload_kept(
    server: Server,
    send: Send,
    urls: Sequence[str],
    source: Path,
    folder: Path,
    *,
    sync: bool = False,
) -> Sample:
    """An upload to a server that puts it into a folder; it is removed afterwards.

    Args:
        server: Where it goes.
        send: One of bench.load.
        urls: What it is sent to.
        source: The file.
        folder: Where the server puts it.
        sync: Count the time of an fsync of what was stored, too.

    Raises:
        BenchError: It is not there, or not whole.
    """
    size = source.stat().st_size
    # A form is stored twice: as a temporary file, then in its place.
    warm_memory(source.parent, len(urls) * size * (2 if send is load.post_form else 1))
    with watched(server) as usage:
        transfer = send(source, urls)
    seconds = transfer.seconds
    if sync:
        seconds += _fsync_seconds(stored_in(folder, size))
    remove_stored(folder, len(urls), size)
    return measured(transfer, usage, seconds)


def _fsync_seconds(files: Sequence[Path]) -> float:
    began = time.monotonic()
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return time.monotonic() - began


def stored_in(folder: Path, size: int) -> list[Path]:
    """What a server has stored here: the files of this size that nobody else knows."""
    return [
        path
        for path in folder.iterdir()
        if (status := path.stat()).st_size == size and status.st_nlink == 1
    ]


def remove_stored(folder: Path, count: int, size: int) -> None:
    """Remove what a server has stored.

    Raises:
        BenchError: There are not so many files of this size.
    """
    stored = stored_in(folder, size)
    for path in stored:
        path.unlink()
    os.sync()
    if len(stored) != count:
        raise BenchError(f"{len(stored)} of {count} uploads were stored")


def upload_drops(
    stack: Stack, ingest: Server, send: Send, urls: Sequence[str], source: Path
) -> Sample:
    """Uploads that become drops; they are deleted afterwards.

    Raises:
        BenchError: One was not deleted, or not whole.
    """
    size = source.stat().st_size
    warm_memory(source.parent, len(urls) * size)
    with watched(ingest, stack.valkey) as usage:
        transfer = send(source, urls)
    delete_drops(transfer.answers, size)
    return measured(transfer, usage)


def delete_drops(answers: Sequence[str], size: int) -> None:
    """Delete what was uploaded, as its owner.

    Args:
        answers: Ingest's answers.
        size: What each must have.

    Raises:
        BenchError: One is not deleted, or had another size.
    """
    for answer in answers:
        told = json.loads(answer)
        if told["size"] != size:
            raise BenchError(f"the drop has {told['size']} of {size} bytes")
        url = urllib.request.Request(told["owner_url"], method="DELETE")  # noqa: S310 - loopback
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - loopback
            if not json.load(response)["file_deleted"]:
                raise BenchError("the drop's file was not deleted")
    os.sync()
