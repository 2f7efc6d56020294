"""Whether this volume and this Redis belong together; until they do, every request is a 503.

| marker | oncedrop:volume | |
| --- | --- | --- |
| none | none | folder empty: both are made; else the guard |
| there | none | Redis adopts the marker |
| none | there | the guard; with an ephemeral volume that is empty both are made anew |
| there | same | paired |
| there | another | the guard |
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from oncedrop_common.errors import DependencyError, StoreUnavailable, VolumeUnavailable
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import mint
from oncedrop_common.volume import Marker, Volume

_log = structlog.get_logger()

CHECK_SECONDS = 2.0


class Pairing:
    """Watches the pairing of one store and one volume."""

    def __init__(self, store: DropStore, volume: Volume, *, ephemeral: bool) -> None:
        self._store = store
        self._volume = volume
        self._ephemeral = ephemeral
        self._problem: DependencyError | None = VolumeUnavailable("The volume is not checked yet.")
        self._layout_made = False

    @property
    def problem(self) -> DependencyError | None:
        """Why requests are refused, as of the last check."""
        return self._problem

    def require(self) -> None:
        """Refuse to go on unless the last check found the pair in order.

        Raises:
            VolumeUnavailable, StoreUnavailable: What the last check found.
        """
        if self._problem is not None:
            raise type(self._problem)(self._problem.detail)

    async def check(self) -> Marker:
        """Compare marker and Redis, adopting or making what is missing as the table says.

        Raises:
            VolumeUnavailable: The guard: they do not belong together; says why.
            StoreUnavailable: Redis did not answer.
        """
        try:
            marker = await self._check()
        except DependencyError as exc:
            if self._problem is None or self._problem.detail != exc.detail:
                _log.warning("pairing_failed", problem=exc.slug, detail=exc.detail)
            self._problem = exc
            raise
        had_problem, self._problem = self._problem is not None, None
        if had_problem:
            _log.info("volume_paired")
            # Advice: a server that will not tell is no reason to refuse requests.
            with contextlib.suppress(StoreUnavailable):
                for warning in await self._store.server_warnings():
                    _log.warning("redis_endangers_drops", warning=warning)
        return marker

    async def ready(self) -> None:
        """The /readyz check: paired, and the volume can be written.

        Raises:
            VolumeUnavailable, VolumeFull, StoreUnavailable: It is not.
        """
        await self.check()
        await asyncio.to_thread(self._volume.probe_clock_ms)

    async def force(self) -> Marker:
        """Make Redis and the volume a pair, at the operator's word.

        Raises:
            VolumeUnavailable, VolumeFull, StoreUnavailable: It cannot be done.
        """
        marker = await asyncio.to_thread(self._volume.read_marker)
        if marker is None:
            marker = await self._make()
        await self._store.pair(marker.volume_id, replace=True)
        self._layout_made = False
        return await self.check()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Check every CHECK_SECONDS while the block runs."""
        with contextlib.suppress(DependencyError):
            await self.check()
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with contextlib.suppress(DependencyError):
                await self.check()

    async def _check(self) -> Marker:
        # The store first: a volume is not taken into use while nobody knows whether it is ours.
        paired_id = await self._store.volume_id()
        marker, empty = await asyncio.to_thread(self._volume.read_marker), False
        if marker is None:
            empty = await asyncio.to_thread(self._volume.is_empty)
            # Another start may have made it between the two looks.
            marker = await asyncio.to_thread(self._volume.read_marker)
        if marker is None:
            if not empty:
                raise VolumeUnavailable(
                    "The volume has files but no marker; see POST /sweep?force=1."
                )
            if paired_id is not None and not self._ephemeral:
                raise VolumeUnavailable("Redis belongs to another volume; see POST /sweep?force=1.")
            marker = await self._make()
            self._layout_made = False
            if paired_id is not None:
                await self._store.pair(marker.volume_id, replace=True)
                paired_id = marker.volume_id
        if paired_id is None:
            paired_id = await self._store.pair(marker.volume_id)
        if paired_id != marker.volume_id:
            raise VolumeUnavailable("The volume belongs to another Redis; see POST /sweep?force=1.")
        if not self._layout_made:
            await asyncio.to_thread(self._volume.make_layout)
            self._layout_made = True
        return marker

    async def _make(self) -> Marker:
        now_ms = await self._store.now_ms()
        # The marker first: a crash between the two leaves folders to be made, not a puzzle.
        return await asyncio.to_thread(self._volume.write_marker, Marker(mint(), now_ms))
