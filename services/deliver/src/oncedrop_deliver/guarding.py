"""Passwords at the door: every attempt is counted before it is verified."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid

from starlette.requests import Request

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.credentials import credentials
from oncedrop_common.drops import Drop, DropId
from oncedrop_common.errors import BlobMissing, PasswordNeeded, PasswordWrong, RateLimited
from oncedrop_common.metrics import Metrics
from oncedrop_common.passwords import Passwords
from oncedrop_common.store.arrows import PASSWORD_PAUSE_SECONDS
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import TryPassword
from oncedrop_common.volume import Volume
from oncedrop_deliver.claiming import Claiming, refusal

# More than Redis loses its memory during one request.
_TRIES = 3


class PasswordGuard:
    """Lets in who knows a drop's password, and locks the drop against who guesses."""

    def __init__(
        self,
        store: DropStore,
        volume: Volume,
        claiming: Claiming,
        passwords: Passwords,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._volume = volume
        self._claiming = claiming
        self._passwords = passwords
        self._metrics = metrics

    async def verify(self, drop: Drop, stored_hash: str, password: str | None) -> None:
        """Return if this is the drop's password.

        Raises:
            PasswordNeeded: None was given.
            PasswordWrong: It is another one.
            RateLimited: Too many wrong ones lately.
            DropGone: Too many in all; the file is removed. Or the drop has ended.
            LinkUnknown: Redis forgot the drop, and nothing of it is in the volume.
            BlobMissing: Redis keeps forgetting it.
        """
        drop_id = drop.drop_id
        if password is None:
            raise PasswordNeeded("The file has a password.", drop_id=drop_id)
        result, after = await self._attempt(drop_id, stored_hash, password)
        self._metrics.arrow("try_password", result)
        match result:
            case TryPassword.RIGHT:
                return
            case TryPassword.WRONG:
                raise PasswordWrong("The password is wrong.", drop_id=drop_id)
            case TryPassword.WAIT:
                raise RateLimited(
                    "Too many wrong passwords.",
                    retry_after_seconds=PASSWORD_PAUSE_SECONDS,
                    drop_id=drop_id,
                )
            case TryPassword.LOCKED:
                await self._remove(drop_id)
        raise refusal(after or drop)

    async def _attempt(
        self, drop_id: DropId, stored_hash: str, password: str
    ) -> tuple[TryPassword, Drop | None]:
        """Count, then verify; where Redis forgot the drop it is told again, for it must count."""
        for _ in range(_TRIES):
            attempt_id = uuid.uuid4().hex
            result, after = await self._store.count_password_attempt(drop_id, attempt_id)
            if result is TryPassword.TRY:
                right = await self._passwords.verify(stored_hash, password)
                result, after = await self._store.settle_password_attempt(
                    drop_id, attempt_id, right=right
                )
            if result is not TryPassword.UNKNOWN:
                return result, after
            await self._claiming.rebuild(drop_id)
        raise BlobMissing("The drop keeps changing.", drop_id=drop_id)

    async def _remove(self, drop_id: DropId) -> None:
        CrashPoint.LOCK_BEFORE_UNLINK.reached()
        self._store.freed(await asyncio.to_thread(self._volume.unlink, drop_id))
        CrashPoint.LOCK_AFTER_UNLINK.reached()


def basic_password(request: Request) -> str | None:
    """The password of `Authorization: Basic` (RFC 7617, UTF-8); the user name does not matter."""
    value = credentials(request, "basic")
    if value is None:
        return None
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text.partition(":")[2]
