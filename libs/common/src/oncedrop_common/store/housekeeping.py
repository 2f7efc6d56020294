"""What lies beside the records: scans, the due index, pairing, usage, the janitor's own keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import RedisCluster

from oncedrop_common.drops import DropId, DropState
from oncedrop_common.store import keys, scripts
from oncedrop_common.store.connection import StoreConnection
from oncedrop_common.tokens import is_drop_id

_OLDEST_REDIS = 6
_GLANCE_FIELDS = ("state", "size", "expires_ms", "upload_deadline_ms", "claimed_ms")
_STATES = {state.value.encode(): state for state in DropState}


@dataclass(frozen=True, slots=True)
class Glance:
    """As much of a record as a sweep needs to see that all is well.

    Attributes:
        due_ms: When the janitor must look at it, as far as these fields tell; claims are not
            among them, so a drop that was ever claimed and is not gone is due at once.
        size: Body length in bytes; 0 while uploading.
    """

    state: DropState
    size: int
    due_ms: int


class Housekeeping(StoreConnection):
    """For the janitor, and for what ingest and deliver leave to it."""

    # Scans, for the janitor.

    async def scan(self, page: int = 1000) -> AsyncIterator[list[DropId]]:
        """The ids of all records, page by page; one may come twice, none that stays is left out."""
        found = self.client.scan_iter(match=keys.DROP_PREFIX + "*", count=page)
        while ids := await self._scan_page(found, page):
            yield ids

    async def _scan_page(self, found: AsyncIterator[bytes], most: int) -> list[DropId]:
        ids: list[DropId] = []
        async with self.answering():
            async for key in found:
                name = bytes(key).decode(errors="replace").removeprefix(keys.DROP_PREFIX)
                if is_drop_id(name):
                    ids.append(DropId(name))
                if len(ids) >= most:
                    break
        return ids

    async def glance(self, drop_ids: Sequence[DropId]) -> list[Glance | None]:
        """A few fields of many records, in one round trip; None where there is no record."""
        names = [keys.drop(drop_id).encode() for drop_id in drop_ids]
        if isinstance(self.client, RedisCluster):
            rows = await self.pipeline([("HMGET", name, *_GLANCE_FIELDS) for name in names])
        else:
            # One script instead of many commands: most of a command's cost is the client's.
            rows = await self.evaluate(scripts.GLANCE, *names)
        return [_glance(row) for row in rows]

    # The due index: which drops the janitor must look at, and when.

    async def note_due_times(
        self, due: Mapping[DropId, int], *, only_missing: bool = False
    ) -> None:
        """List these drops at these times (ms).

        Args:
            due: When the janitor must look at which drop.
            only_missing: Leave entries alone that are there: they may be newer than these.
        """
        shards: dict[str, list[bytes]] = {}
        for drop_id, at_ms in due.items():
            shards.setdefault(keys.due(drop_id), []).extend((b"%d" % at_ms, drop_id.encode()))
        options = ["NX"] if only_missing else []
        await self.pipeline([("ZADD", key, *options, *pairs) for key, pairs in shards.items()])

    async def due(self, now_ms: int, limit: int) -> list[DropId]:
        """Up to limit drops of each shard that are due, the longest due first."""
        rows = await self.pipeline(
            [
                ("ZRANGEBYSCORE", shard, "-inf", now_ms, "LIMIT", 0, limit)
                for shard in keys.DUE_SHARDS
            ]
        )
        names = [bytes(name).decode(errors="replace") for row in rows for name in row]
        return [DropId(name) for name in names if is_drop_id(name)]

    async def forget_due(self, drop_ids: Sequence[DropId]) -> None:
        """Take drops off the index that nothing more is to be done for."""
        await self.pipeline([("ZREM", keys.due(d), d) for d in drop_ids])

    # Volume pairing, usage, events, the janitor's own keys.

    async def volume_id(self) -> str | None:
        """The id of the volume these records belong to."""
        value = await self.call("GET", keys.VOLUME)
        return None if value is None else bytes(value).decode(errors="replace")

    async def pair(self, volume_id: str, *, replace: bool = False) -> str:
        """Adopt a volume, unless another one was adopted already (or replace).

        Returns:
            The volume id that stands afterwards.
        """
        await self.call("SET", keys.VOLUME, volume_id, *([] if replace else ["NX"]))
        return await self.volume_id() or ""

    async def usage(self) -> tuple[int, int]:
        """Stored bytes and files, as last counted; a guide for the quota, mended by each sweep."""
        size, files = await self.call("HMGET", keys.USAGE, "bytes", "files")
        return int(size or 0), int(files or 0)

    async def reserve(self, size: int) -> int:
        """Add size (bytes, may be negative) to the usage.

        Returns:
            Stored bytes afterwards.
        """
        return int(await self.call("HINCRBY", keys.USAGE, "bytes", size))

    async def set_usage(self, size: int, files: int) -> None:
        """Write what a sweep has counted."""
        await self.call("HSET", keys.USAGE, "bytes", size, "files", files)

    def freed(self, size: int) -> None:
        """Take a file that was unlinked off the usage, when there is time."""
        if size:
            self._batch.add(keys.USAGE, "bytes", -size)
            self._batch.add(keys.USAGE, "files", -1)

    async def lead(self, janitor_id: str, lease_seconds: int) -> bool:
        """Whether this janitor leads; whoever leads keeps leading while it asks."""
        taken = await self.call("SET", keys.LEADER, janitor_id, "NX", "PX", lease_seconds * 1000)
        if taken:
            return True
        leader = await self.call("GET", keys.LEADER)
        if leader is None or bytes(leader).decode(errors="replace") != janitor_id:
            return False
        await self.call("SET", keys.LEADER, janitor_id, "XX", "PX", lease_seconds * 1000)
        return True

    async def save_pass(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep a janitor pass's result for /status."""
        await self.call("SET", keys.PASS_PREFIX + name, json.dumps(result))

    async def load_pass(self, name: str) -> dict[str, Any]:
        """A janitor pass's last result; empty when there is none or it cannot be read."""
        value = await self.call("GET", keys.PASS_PREFIX + name)
        try:
            document = json.loads(value or b"{}")
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    async def server_warnings(self) -> list[str]:
        """What of the server's configuration endangers drops, in words for the operator."""
        async with self.answering():
            if isinstance(self.client, RedisCluster):
                told: Any = await self.client.info(target_nodes=RedisCluster.PRIMARIES)
                # One primary alone answers for itself, without its name.
                infos = list(told.values()) if "redis_version" not in told else [told]
            else:
                infos = [await self.client.info()]
        return list(dict.fromkeys(warning for info in infos for warning in _warnings(info)))


def _warnings(info: Mapping[str, Any]) -> list[str]:
    warnings = []
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        warnings.append("Redis may evict records: set maxmemory-policy noeviction")
    if not info.get("aof_enabled"):
        warnings.append("Redis keeps no append-only file: set appendonly yes")
    if int(str(info.get("redis_version", "0")).partition(".")[0]) < _OLDEST_REDIS:
        warnings.append(f"Redis is older than version {_OLDEST_REDIS}")
    return warnings


def _glance(row: Sequence[bytes | None]) -> Glance | None:
    try:
        state, size, expires_ms, upload_deadline_ms, claimed_ms = row
        if state is None:
            return None
        drop_state = _STATES[state]
        due_ms = 0
        if drop_state is DropState.READY and not claimed_ms:
            due_ms = int(expires_ms or 0)
        elif drop_state is DropState.UPLOADING:
            due_ms = int(upload_deadline_ms or 0)
        return Glance(drop_state, int(size or 0), due_ms)
    except (ValueError, KeyError):
        # Damaged: due at once, so that the full look reports it.
        return Glance(DropState.CLAIMED, 0, 0)
