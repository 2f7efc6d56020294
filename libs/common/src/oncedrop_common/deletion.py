"""The files of a drop that was ended, and the answer to who ended it: its owner or the operator."""

from __future__ import annotations

import asyncio

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.drops import DropId, DropState, GoneReason
from oncedrop_common.errors import VolumeUnavailable
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume

_TRIES = 3


async def unlink_ended(store: DropStore, volume: Volume, drop_id: DropId) -> int:
    """Remove the files of a drop whose record says gone.

    Also where a claimant who came a moment too late moves the file meanwhile.

    Returns:
        Bytes freed.

    Raises:
        VolumeUnavailable: A file is still there.
    """
    CrashPoint.DELETE_BEFORE_UNLINK.reached()
    freed = await asyncio.to_thread(_unlink_all, volume, drop_id)
    CrashPoint.DELETE_AFTER_UNLINK.reached()
    store.freed(freed)
    return freed


def _unlink_all(volume: Volume, drop_id: DropId) -> int:
    freed = 0
    for _ in range(_TRIES):
        freed += volume.unlink(drop_id)
        if not volume.find(drop_id):
            # Whoever asked is told that it is gone: no power cut may bring it back, whatever
            # Redis has lost by then.
            volume.sync_unlinked(drop_id)
            return freed
    raise VolumeUnavailable("The file could not be removed yet.")


def deletion_document(reason: GoneReason, freed: int) -> dict[str, str | int]:
    """What was done, as JSON has it; freed in bytes."""
    return {
        "state": DropState.GONE.value,
        "reason": reason.value,
        "file_deleted": freed > 0,
        "bytes": freed,
    }
