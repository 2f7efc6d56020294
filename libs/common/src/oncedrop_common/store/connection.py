"""How the store talks to Redis: scripts, single commands, pipelines; failures become one error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from oncedrop_common.drops import Drop, DropId
from oncedrop_common.errors import BlobDamaged, StoreUnavailable
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.batch import Batch, exchange
from oncedrop_common.store.client import RedisClient, close
from oncedrop_common.store.records import parse_drop
from oncedrop_common.store.scripts import Code, ResultT, Script

# How Redis words that a script met a field, or a key, that is not what it must be.
_DAMAGE_SIGNS = ("DAMAGED", "WRONGTYPE", "user_script")


@dataclass(frozen=True, slots=True)
class Leases:
    """The times the scripts need, in seconds; see Settings for their meaning."""

    upload: int
    claim: int
    claim_max: int
    linger: int
    tombstone: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Leases:
        """The leases an operator chose."""
        return cls(
            upload=settings.upload_lease_seconds,
            claim=settings.claim_lease_seconds,
            claim_max=settings.claim_max_seconds,
            linger=settings.linger_seconds,
            tombstone=settings.tombstone_seconds,
        )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """RedisError, a dead connection and a time that is up become StoreUnavailable."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as exc:
        raise StoreUnavailable("Redis does not answer.") from exc


class StoreConnection:
    """A client with its batch.

    Every method may raise StoreUnavailable: nothing is known to have changed then.

    Args:
        client: Connects when first used.
        leases: What the scripts need.
        timeout_seconds: How long a call may take, all tries included.
    """

    def __init__(self, client: RedisClient, leases: Leases, timeout_seconds: float) -> None:
        self.client = client
        self.leases = leases
        self.timeout_seconds = timeout_seconds
        self._batch = Batch(client, timeout_seconds)

    async def close(self) -> None:
        """Send what waits and give the connections back."""
        await self._batch.drain()
        with contextlib.suppress(RedisError, OSError):
            await close(self.client)

    async def ping(self) -> None:
        """Whether Redis answers.

        Raises:
            StoreUnavailable: It does not.
        """
        await self.call("PING")

    async def now_ms(self) -> int:
        """Redis' clock."""
        async with self.answering():
            seconds, micros = await self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """For a use of the client past the batch: failures become one error, and so does lateness.

        Raises:
            StoreUnavailable: Redis failed, or the block took longer than timeout_seconds.
        """
        with translated():
            async with asyncio.timeout(self.timeout_seconds):
                yield

    def note_due(self, drop: Drop | None) -> None:
        """List a drop in the due index at the time its record tells, when there is time."""
        if drop is not None:
            self.cast("ZADD", keys.due(drop.drop_id), drop.due_ms, drop.drop_id)

    def record_event(self, event: str, drop_id: DropId | None = None, **numbers: int) -> None:
        """Append to the stream of events, when there is time; no names, no secrets."""
        fields: list[str | int] = ["event", event]
        if drop_id is not None:
            fields += ["drop_id", drop_id]
        for name, number in numbers.items():
            fields += [name, number]
        self.cast("XADD", keys.EVENTS, "MAXLEN", "~", keys.EVENTS_KEPT, "*", *fields)

    def cast(self, *command: str | bytes | float) -> None:
        """Send this command when there is time; for what sweeps can mend."""
        self._batch.cast(*command)

    async def run(
        self, script: Script[ResultT], drop_id: DropId, *args: str | int
    ) -> tuple[ResultT, Drop | None]:
        """The word a script answers for this drop, and the record as it is afterwards."""
        key = keys.drop(drop_id)
        with translated():
            try:
                reply = await self._evaluate(script, 1, key, *args)
            except ResponseError as exc:
                if any(sign in str(exc) for sign in _DAMAGE_SIGNS):
                    raise BlobDamaged("The record is damaged.", drop_id=drop_id) from exc
                raise
        word, now_ms, flat = reply
        drop = parse_drop(drop_id, int(now_ms), flat) if flat else None
        return script.results(bytes(word).decode()), drop

    async def evaluate(self, code: Code, *keys_named: str | bytes) -> Any:
        """What this code answers for these keys; a server that does not know it gets the source."""
        with translated():
            return await self._evaluate(code, len(keys_named), *keys_named)

    async def _evaluate(self, code: Code, *arguments: str | bytes | int) -> Any:
        try:
            return await self._batch.call("EVALSHA", code.sha, *arguments)
        except NoScriptError:
            return await self._batch.call("EVAL", code.source, *arguments)

    async def call(self, *command: str | bytes | float) -> Any:
        """Redis' reply to one command."""
        with translated():
            return await self._batch.call(*command)

    async def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Redis' replies to many commands, in one round trip."""
        if not commands:
            return []
        async with self.answering():
            replies = await exchange(self.client, commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise StoreUnavailable("Redis refused a command.") from reply
            if isinstance(reply, Exception):
                raise StoreUnavailable("Redis does not answer.") from reply
        return replies
