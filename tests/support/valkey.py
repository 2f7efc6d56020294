"""A real Redis for tests, drops in it, and a look at what a test left there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import redis

from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader
from oncedrop_common.drops import DropId, DropMeta
from oncedrop_common.embedded.valkey import find_server
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.client import connect
from oncedrop_common.store.connection import Leases
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint, owner_hash
from oncedrop_common.volume import Volume
from support.waiting import wait_until

IMAGE_SETTING = "ONCEDROP_TEST_REDIS_IMAGE"
DEFAULT_IMAGE = "valkey/valkey:9"
START_SECONDS = 20
# Long enough for a slow machine to finish a test in; `let_time_pass` makes them lapse.
TEST_LEASES = Leases(upload=30, claim=30, claim_max=300, linger=0, tombstone=1000)
TTL_SECONDS = 600
_LIFE = {"created_ms", "expires_ms"}


# The server.


@contextlib.contextmanager
def running_redis(image: str | None) -> Iterator[str]:
    """A server for the session; yields its URL.

    Args:
        image: Container image to run; None: the engine's own copy of DEFAULT_IMAGE, if there is
            one. Without an engine a valkey-server process does the same job.
    """
    if _docker_can_run(image):
        with _container(image or DEFAULT_IMAGE) as url:
            yield url
    else:
        with _process() as url:
            yield url


def _docker_can_run(image: str | None) -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    question = ["version"] if image else ["image", "inspect", DEFAULT_IMAGE]
    try:
        return (
            subprocess.run(
                [docker, *question], capture_output=True, timeout=START_SECONDS, check=False
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def _container(image: str) -> Iterator[str]:
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - slow, often unused
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415

    # The reaper is an image more; the container is stopped below.
    testcontainers_config.ryuk_disabled = True
    with RedisContainer(image) as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
        yield f"redis://{host}:{port}/0"


@contextlib.contextmanager
def _process() -> Iterator[str]:
    # Not below pytest's folders: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="oncedrop-") as folder:
        path = f"{folder}/s"
        options = {"port": "0", "unixsocket": path, "dir": folder, "appendonly": "no", "save": ""}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        log = Path(folder, "log")
        with (
            log.open("wb") as output,
            subprocess.Popen([find_server(), *arguments], stdout=output, stderr=output) as server,
        ):
            try:
                url = f"unix://{path}"
                wait_until(
                    lambda: server.poll() is not None or _answers(url),
                    START_SECONDS,
                    what="valkey-server to answer",
                )
                assert server.poll() is None, log.read_text(errors="replace")
                yield url
            finally:
                server.terminate()
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    server.kill()


def _answers(url: str) -> bool:
    try:
        with admin(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextlib.contextmanager
def admin(url: str) -> Iterator[redis.Redis]:
    """A plain client, for what the store has no method for: wiping, damaging, looking."""
    client = redis.Redis.from_url(url, socket_timeout=10)
    try:
        yield client
    finally:
        client.close()


def make_store(url: str, leases: Leases = TEST_LEASES, *, timeout_seconds: float = 5) -> DropStore:
    """A store of one's own at this URL; close it."""
    return DropStore(connect(url, timeout_seconds), leases, timeout_seconds)


# Drops.


class ReadyDrop(NamedTuple):
    """What the uploader knows of a drop."""

    token: str
    drop_id: DropId
    owner_key: str


def meta_for(body: bytes, owner_key: str, now_ms: int, **options: Any) -> DropMeta:
    """Metadata of a drop with this body.

    Args:
        body: The file.
        owner_key: Its uploader's key.
        now_ms: Redis' clock.
        **options: Fields of DropMeta that shall differ, and ttl_seconds.
    """
    fields: dict[str, Any] = {
        "name": "report.pdf",
        "content_type": "application/pdf",
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "created_ms": now_ms,
        "expires_ms": now_ms + 1000 * options.pop("ttl_seconds", TTL_SECONDS),
        "owner_hash": owner_hash(owner_key),
    }
    return DropMeta(**{**fields, **options})


def write_blob(volume: Volume, drop_id: DropId, meta: DropMeta, body: bytes) -> None:
    """Put a file into blobs/, as an upload does."""
    part = volume.create_part(drop_id)
    try:
        part.write_at(HEADER_BYTES, body)
        volume.commit_part(part, BlobHeader(drop_id, meta))
    finally:
        part.close()


async def make_ready_drop(
    store: DropStore, volume: Volume, body: bytes = b"once and never again", **options: Any
) -> ReadyDrop:
    """Upload a drop by the real sequence: open_upload, part, header, rename, commit.

    Args:
        store: Redis.
        volume: Its volume.
        body: The file.
        **options: Fields of DropMeta that shall differ, and ttl_seconds.
    """
    token, owner_key = mint(), mint()
    drop_id = drop_id_of(token)
    ttl_seconds = options.get("ttl_seconds", TTL_SECONDS)
    opened = await store.open_upload(drop_id, owner_hash(owner_key), ttl_seconds)
    assert opened is scripts.OpenUpload.OPENED
    meta = meta_for(body, owner_key, await store.now_ms(), **options)
    write_blob(volume, drop_id, meta, body)
    assert await store.commit(drop_id, meta) is scripts.Commit.COMMITTED
    return ReadyDrop(token, drop_id, owner_key)


async def let_time_pass(store: DropStore, drop_id: DropId, seconds: float) -> None:
    """Make a record as old as if this time had passed; Redis' own TTL stays."""
    past_ms = round(seconds * 1000)
    aged: dict[str, str] = {}
    for field, value in (await record_fields(store, drop_id)).items():
        if field.startswith("claim:"):
            claim = json.loads(value)
            for time in ("started", "deadline"):
                claim[time] = str(int(claim[time]) - past_ms)
            aged[field] = json.dumps(claim)
        elif field == "wrong_passwords":
            attempts = (attempt.split(":") for attempt in value.split())
            aged[field] = " ".join(f"{name}:{int(ms) - past_ms}" for name, ms in attempts)
        elif field.endswith("_ms") or field.startswith("lapsed:"):
            aged[field] = str(int(value) - past_ms)
    await set_fields(store, drop_id, aged)


async def let_leases_pass(
    store: DropStore, volume: Volume, drop_id: DropId, seconds: float
) -> None:
    """As let_time_pass, but the drop's life is as long as before: its header says how long.

    Its files become older, too.
    """
    before = await record_fields(store, drop_id)
    await let_time_pass(store, drop_id, seconds)
    life = {name: value for name, value in before.items() if name in _LIFE}
    await set_fields(store, drop_id, life)
    make_older(volume, drop_id, seconds)


def make_older(volume: Volume, drop_id: DropId, seconds: float) -> None:
    """Make this drop's files as old as if they had not been touched for so long."""
    for found in volume.find(drop_id):
        path = volume.path_of(found)
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))


async def record_fields(store: DropStore, drop_id: DropId) -> dict[str, str]:
    """The record as it lies in Redis; empty when there is none."""
    row: Any = await store.call("HGETALL", keys.drop(drop_id))
    pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=True)
    return {bytes(field).decode(): bytes(value).decode() for field, value in pairs}


async def set_fields(store: DropStore, drop_id: DropId, fields: Mapping[str, str | int]) -> None:
    """Write these fields behind the scripts' back; the revision stays."""
    if fields:
        flat = [item for pair in fields.items() for item in pair]
        await store.call("HSET", keys.drop(drop_id), *flat)


# What a test left behind.

_TABLE = {
    re.compile(re.escape(keys.DROP_PREFIX) + r"[0-9a-f]{32}"): b"hash",
    re.compile("|".join(map(re.escape, keys.DUE_SHARDS))): b"zset",
    re.compile(re.escape(keys.EVENTS)): b"stream",
    re.compile(re.escape(keys.VOLUME)): b"string",
    re.compile(re.escape(keys.USAGE)): b"hash",
    re.compile(re.escape(keys.LEADER)): b"string",
    re.compile(re.escape(keys.PASS_PREFIX) + r"[a-z_]+"): b"string",
    re.compile(re.escape(keys.SAMPLES)): b"stream",
}


def leaks(client: Any, secrets: Iterable[str]) -> list[str]:
    """What is wrong with the keys in Redis: unknown, endless, or holding one of these secrets."""
    volume_id = (client.get(keys.VOLUME) or b"").decode(errors="replace")
    needles = [secret.encode() for secret in secrets if secret != volume_id]
    problems = []
    for name in client.scan_iter(count=1000):
        key = name.decode(errors="replace")
        kind = client.type(name)
        expected = next((k for pattern, k in _TABLE.items() if pattern.fullmatch(key)), None)
        if expected is None:
            problems.append(f"{key} is not in the table of store/keys.py")
        elif kind != expected:
            problems.append(f"{key} is a {kind.decode()}, not a {expected.decode()}")
        elif key.startswith(keys.DROP_PREFIX) and client.ttl(name) < 0:
            problems.append(f"{key} has no TTL")
        content = name + b"\n" + _content(client, name, kind)
        problems += [f"{key} holds a secret" for needle in needles if needle in content]
    return problems


def _content(client: Any, name: bytes, kind: bytes) -> bytes:
    match kind:
        case b"hash":
            value = [item for pair in client.hgetall(name).items() for item in pair]
        case b"zset":
            value = client.zrange(name, 0, -1)
        case b"stream":
            value = [i for _, row in client.xrange(name) for pair in row.items() for i in pair]
        case _:
            value = [client.get(name) or b""]
    return b"\n".join(bytes(item) for item in value)


def image_from_environment() -> str | None:
    """The image to test with, if one is named; taken out, for services refuse unknown settings."""
    return os.environ.pop(IMAGE_SETTING, None)
