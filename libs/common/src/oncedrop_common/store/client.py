"""The only place a Redis client is built.

A lost connection is tried twice more, quickly: every script is safe to repeat, so a repeated
command is harmless, and a visitor waits for little before a 503 tells to come back. redis-py's
default (ten tries with growing pauses) would hold a request for many seconds. How long all tries
may take together, name look-ups included, is bounded where commands are sent (connection.py), once
for a whole pipeline: redis-py's own `socket_timeout` would set a timer for each reply.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff

from oncedrop_common.errors import ConfigurationError

RedisClient: TypeAlias = Redis | RedisCluster

MAX_CONNECTIONS = 32
_MAX_CLUSTER_CONNECTIONS = 1024
_RETRIES = 2
_SENTINEL_PORT = 26379
# A sentinel that does not answer must leave time to ask the others, and then the primary.
_SENTINEL_SHARE = 0.25
# Longer than the half of the time that a listener for events blocks.
_NODE_SHARE = 0.6


def connect(url: str, timeout_seconds: float) -> RedisClient:
    """A client for any of the URL kinds; connects when first used.

    redis://, rediss:// and unix:// are redis-py's own; redis+cluster:// is redis:// to any node
    of a cluster; redis+sentinel://[:password@]host[:port],host…/service[/db][?sentinel_password=…]
    asks the sentinels for the primary at each new connection.

    Raises:
        ConfigurationError: The URL is of no known kind; it is not repeated, it may hold a password.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.05), _RETRIES),
        "protocol": 2,
    }
    try:
        if url.startswith("redis+cluster://"):
            # A node that is silent must leave time to ask the others who has its slots now.
            options["socket_timeout"] = timeout_seconds * _NODE_SHARE
            options["socket_connect_timeout"] = timeout_seconds * _NODE_SHARE
            return RedisCluster.from_url(
                url.replace("redis+cluster://", "redis://", 1),
                # There none waits for a free one; who asks a silent node gets a new one each time.
                max_connections=_MAX_CLUSTER_CONNECTIONS,
                **options,
            )
        if url.startswith("redis+sentinel://"):
            return _sentinel(url, timeout_seconds, options)
        if url.startswith("unix://"):
            del options["socket_connect_timeout"]
        pool = BlockingConnectionPool.from_url(
            url, max_connections=MAX_CONNECTIONS, timeout=timeout_seconds, **options
        )
    except ValueError as exc:
        raise ConfigurationError(f"ONCEDROP_REDIS_URL: {exc}") from None
    return Redis.from_pool(pool)


def _sentinel(url: str, timeout_seconds: float, options: dict[str, Any]) -> RedisClient:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("redis+sentinel:// needs hosts and the service's name")
    nodes = [(h.partition(":")[0], int(h.partition(":")[2] or _SENTINEL_PORT))
             for h in hosts.split(",")]  # fmt: skip
    query = dict(parse_qsl(parts.query))
    sentinel_options: dict[str, Any] = {
        "socket_timeout": timeout_seconds * _SENTINEL_SHARE,
        "socket_connect_timeout": timeout_seconds * _SENTINEL_SHARE,
        "retry": Retry(NoBackoff(), 0),
        "password": query.get("sentinel_password"),
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        nodes, sentinel_kwargs=sentinel_options, **options
    )
    client: Redis = sentinel.master_for(
        service,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        max_connections=MAX_CONNECTIONS,
    )
    return client


async def close(client: RedisClient) -> None:
    """Close its connections, those to the sentinels too, which redis-py leaves open.

    Raises:
        RedisError, OSError: One of them failed.
    """
    await client.aclose()
    pool = None if isinstance(client, RedisCluster) else client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
