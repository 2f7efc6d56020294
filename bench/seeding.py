"""Drops in bulk: files by the product's own header and places, records by its own scripts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.servers import BenchError
from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader, pack
from oncedrop_common.drops import DropId, DropMeta
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.records import meta_fields
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint, owner_hash
from oncedrop_common.volume import FoundFile, Place, Volume
from oncedrop_ingest.upload import BLOCK_BYTES

_TTL_MS = 24 * 3600 * 1000
_BATCH = 1000
_POOL_BATCH = 5000
_REWRITE_SECONDS = 60
_POLL_SECONDS = 0.05
_TOMBSTONE_SECONDS: int = Settings.model_fields["tombstone_seconds"].default


class Body(NamedTuple):
    """What the drops hold."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Body:
        """Of these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Body:
        """Of this file."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@contextlib.contextmanager
def redis_client(url: str) -> Iterator[redis.Redis]:
    """A plain, blocking client."""
    client = redis.Redis.from_url(url, socket_timeout=60)
    try:
        yield client
    finally:
        client.close()


class _Drop(NamedTuple):
    token: str
    drop_id: DropId
    meta: DropMeta


def _new_drop(body: Body) -> _Drop:
    token, now_ms = mint(), time.time_ns() // 1_000_000
    meta = DropMeta(
        name="bench.bin",
        content_type="application/octet-stream",
        size=body.size,
        sha256=body.sha256,
        created_ms=now_ms,
        expires_ms=now_ms + _TTL_MS,
        owner_hash=owner_hash(token),
    )
    return _Drop(token, drop_id_of(token), meta)


def small_drops(volume: Volume, client: redis.Redis, count: int, data: bytes) -> list[str]:
    """So many ready drops with this body; on disk when this returns.

    Returns:
        Their tokens.
    """
    body = Body.of(data)
    tokens: list[str] = []
    for start in range(0, count, _BATCH):
        drops = [_new_drop(body) for _ in range(min(_BATCH, count - start))]
        for drop in drops:
            with _blob_file(volume, drop) as fd:
                os.write(fd, pack(BlobHeader(drop.drop_id, drop.meta)) + data)
        commit_records(client, drops)
        tokens += [drop.token for drop in drops]
    settle(client)
    return tokens


def many_drops(volume: Volume, redis_url: str, count: int, size: int) -> None:
    """So many ready drops whose bodies are zeros that take no space; on disk when this returns."""
    with ProcessPoolExecutor() as processes:
        batches = range(0, count, _POOL_BATCH)
        tasks = [
            processes.submit(_sparse_drops, volume, redis_url, min(_POOL_BATCH, count - n), size)
            for n in batches
        ]
        for task in tasks:
            task.result()
    with redis_client(redis_url) as client:
        settle(client)


def _sparse_drops(volume: Volume, redis_url: str, count: int, size: int) -> None:
    body = Body.of(bytes(size))
    with redis_client(redis_url) as client:
        drops = [_new_drop(body) for _ in range(count)]
        for drop in drops:
            with _blob_file(volume, drop) as fd:
                os.write(fd, pack(BlobHeader(drop.drop_id, drop.meta)).rstrip(b"\0"))
                os.ftruncate(fd, HEADER_BYTES + size)
        commit_records(client, drops)


def large_drops(volume: Volume, client: redis.Redis, count: int, source: Path) -> list[str]:
    """So many ready drops that hold this file; on disk when this returns.

    Returns:
        Their tokens.
    """
    body = Body.of_file(source)
    drops = [_new_drop(body) for _ in range(count)]
    for drop in drops:
        with source.open("rb") as file, _blob_file(volume, drop) as fd:
            os.write(fd, pack(BlobHeader(drop.drop_id, drop.meta)))
            # As ingest does: what sendfile copies lies in small folios, dear to send and to free.
            while block := file.read(BLOCK_BYTES):
                os.write(fd, block)
    commit_records(client, drops)
    settle(client)
    return [drop.token for drop in drops]


def blob_path(volume: Volume, token: str) -> Path:
    """Where the ready drop of this token lies."""
    return volume.path_of(FoundFile(Place.BLOBS, drop_id_of(token), None, 0, 0))


def records_only(client: redis.Redis, count: int, size: int) -> list[DropId]:
    """Records of drops whose files nobody will look for.

    Returns:
        Their drop ids.
    """
    body = Body.of(bytes(size))
    drops = [_new_drop(body) for _ in range(count)]
    commit_records(client, drops)
    settle(client)
    return [drop.drop_id for drop in drops]


def settle(client: redis.Redis) -> None:
    """Wait until all is on disk, and until valkey's child that rewrites its file has ended.

    Raises:
        BenchError: It had not after a minute.
    """
    os.sync()
    deadline = time.monotonic() + _REWRITE_SECONDS
    while True:
        told: Any = client.info("persistence")
        if not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
            return
        if time.monotonic() > deadline:
            raise BenchError("valkey is still rewriting its append-only file")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _blob_file(volume: Volume, drop: _Drop) -> Iterator[int]:
    fd = os.open(
        blob_path(volume, drop.token), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
    )
    try:
        yield fd
    finally:
        os.close(fd)


def commit_records(client: redis.Redis, drops: Sequence[_Drop]) -> None:
    """Make the records as `commit` does where Redis forgot them, and list when they are due.

    The commands are made once and then only filled in, and answers are not asked for: a million
    records take half a minute, not two.
    """
    client.script_load(scripts.COMMIT.source)
    connection: Any = client.connection_pool.get_connection()
    try:
        form = drops[0]
        commands = b"".join(connection.pack_commands(_commands(form)))
        send = connection.send_packed_command
        send(connection.pack_command("CLIENT", "REPLY", "OFF"))
        for start in range(0, len(drops), _BATCH):
            batch = drops[start : start + _BATCH]
            send([_filled_in(commands, form, drop) for drop in batch])
        send(connection.pack_command("CLIENT", "REPLY", "ON"))
        connection.read_response()
    finally:
        client.connection_pool.release(connection)
    if not client.exists(keys.drop(drops[-1].drop_id)):
        raise BenchError("valkey did not take the records")


def _commands(drop: _Drop) -> list[tuple[str | int, ...]]:
    meta = drop.meta
    return [
        (
            "EVALSHA", scripts.COMMIT.sha, 1, keys.drop(drop.drop_id),
            _TOMBSTONE_SECONDS, meta.expires_ms, meta.max_downloads, *meta_fields(meta),
        ),
        ("ZADD", keys.due(drop.drop_id), meta.expires_ms, drop.drop_id),
    ]  # fmt: skip


def _filled_in(commands: bytes, form: _Drop, drop: _Drop) -> bytes:
    """The commands of one drop made those of another: what differs is equally long."""
    for old, new in (
        (keys.due(form.drop_id), keys.due(drop.drop_id)),
        (form.drop_id, drop.drop_id),
        (form.meta.owner_hash, drop.meta.owner_hash),
        (f"{form.meta.created_ms}", f"{drop.meta.created_ms}"),
        (f"{form.meta.expires_ms}", f"{drop.meta.expires_ms}"),
    ):
        commands = commands.replace(old.encode(), new.encode())
    return commands
