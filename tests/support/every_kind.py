"""One drop of each kind that a sweep knows how to treat, and what it must make of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from oncedrop_common.blob_header import HEADER_BYTES
from oncedrop_common.drops import DropId, IfInterrupted
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import claim_hash, drop_id, mint, owner_hash
from oncedrop_common.volume import Volume
from support.crashes import GRACE_SECONDS, LEASE_SECONDS
from support.valkey import let_time_pass, make_older, make_ready_drop, meta_for, write_blob

_READY = "ready; blobs/"
_CLAIMED = "claimed; claimed/"
_PAST_LEASE = LEASE_SECONDS + 1
_PAST_GRACE = GRACE_SECONDS + 1


class EveryKind:
    """Makes the drops.

    Attributes:
        expected: What each must be after a sweep: state and place, by the name of the kind.
        ids: Which drop is of which kind.
    """

    def __init__(self, store: DropStore, volume: Volume) -> None:
        self._store = store
        self._volume = volume
        self.expected: dict[str, str] = {}
        self.ids: dict[str, DropId] = {}

    async def make(self) -> None:
        """One of each."""
        kinds: list[tuple[Callable[[], Awaitable[DropId]], str]] = [
            (self._ready, _READY),
            (self._forgotten, _READY),
            (self._claimed_and_forgotten, _CLAIMED),
            (self._taken_unknown_to_the_record, _CLAIMED),
            (self._taken_by_a_lapsed_claim, _READY),
            (self._uncommitted, _READY),
            (self._released, _READY),
            (self._lapsed, "gone (interrupted); no file"),
            (self._lapsed_before_the_rename, _READY),
            (self._lapsed_restorable, _READY),
            (self._expired, "gone (expired); no file"),
            (self._abandoned, "gone (abandoned); no file"),
            (self._orphan_file, "no record; no file"),
            (self._orphan_part, "no record; no file"),
            (self._deleted_with_its_file, "gone (deleted); no file"),
            (self._without_its_file, "gone (lost); no file"),
            (self._uploading, "uploading; incoming/"),
            (self._claimed, _CLAIMED),
        ]
        for make, expected in kinds:
            name = make.__name__.strip("_")
            self.ids[name] = await make()
            self.expected[name] = expected

    async def _ready(self, **options: Any) -> DropId:
        return (await make_ready_drop(self._store, self._volume, **options)).drop_id

    async def _claimed(self, *, take: bool = True, **options: Any) -> DropId:
        wanted = await self._ready(**options)
        mine = claim_hash(mint())
        await self._store.claim(wanted, mine, "request")
        if take:
            assert self._volume.take(wanted, mine)
        return wanted

    async def _forget(self, wanted: DropId) -> DropId:
        await self._store.call("DEL", keys.drop(wanted))
        return wanted

    async def _forgotten(self) -> DropId:
        return await self._forget(await self._ready())

    async def _claimed_and_forgotten(self) -> DropId:
        return await self._forget(await self._claimed())

    async def _taken_unknown_to_the_record(self) -> DropId:
        wanted = await self._ready()
        assert self._volume.take(wanted, claim_hash(mint()))
        return wanted

    async def _taken_by_a_lapsed_claim(self) -> DropId:
        wanted = await self._ready()
        mine = claim_hash(mint())
        await self._store.claim(wanted, mine, "request")
        await self._store.lapse(wanted, mine, revision=None, place="blobs", at_once=True)
        assert self._volume.take(wanted, mine)
        return wanted

    async def _uncommitted(self) -> DropId:
        wanted, owner_key = drop_id(mint()), mint()
        await self._store.open_upload(wanted, owner_hash(owner_key), 3600)
        body = b"committed by the volume"
        write_blob(
            self._volume, wanted, meta_for(body, owner_key, await self._store.now_ms()), body
        )
        return await self._aged(wanted, _PAST_LEASE)

    async def _released(self) -> DropId:
        wanted = await self._ready()
        mine = claim_hash(mint())
        await self._store.claim(wanted, mine, "request")
        assert self._volume.take(wanted, mine)
        await self._store.release(wanted, mine, "request")
        return wanted

    async def _lapsed(self) -> DropId:
        return await self._aged(await self._claimed(), _PAST_LEASE)

    async def _lapsed_before_the_rename(self) -> DropId:
        return await self._aged(await self._claimed(take=False), _PAST_LEASE)

    async def _lapsed_restorable(self) -> DropId:
        wanted = await self._claimed(if_interrupted=IfInterrupted.RESTORE)
        return await self._aged(wanted, _PAST_LEASE)

    async def _expired(self) -> DropId:
        return await self._aged(await self._ready(ttl_seconds=10), 11)

    async def _uploading(self) -> DropId:
        wanted = drop_id(mint())
        await self._store.open_upload(wanted, owner_hash(mint()), 3600)
        self._part(wanted)
        return wanted

    async def _abandoned(self) -> DropId:
        return await self._aged(await self._uploading(), _PAST_LEASE)

    async def _orphan_part(self) -> DropId:
        wanted = drop_id(mint())
        self._part(wanted)
        return await self._aged(wanted, _PAST_GRACE)

    async def _orphan_file(self) -> DropId:
        wanted = await self._forgotten()
        (found,) = self._volume.find(wanted)
        with self._volume.path_of(found).open("r+b") as file:
            file.write(b"\0" * HEADER_BYTES)
        return await self._aged(wanted, _PAST_GRACE)

    async def _deleted_with_its_file(self) -> DropId:
        wanted = await self._ready()
        await self._store.delete(wanted)
        return wanted

    async def _without_its_file(self) -> DropId:
        wanted = await self._ready()
        self._volume.unlink(wanted)
        return await self._aged(wanted, _PAST_GRACE)

    def _part(self, wanted: DropId) -> None:
        part = self._volume.create_part(wanted)
        part.write_at(HEADER_BYTES, b"some")
        part.close()

    async def _aged(self, wanted: DropId, seconds: float) -> DropId:
        await let_time_pass(self._store, wanted, seconds)
        make_older(self._volume, wanted, seconds)
        return wanted
