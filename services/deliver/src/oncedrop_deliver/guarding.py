"""Passwords at the door: every attempt is counted before it is verified."""

from __future__ import annotations

import asyncio
import base64
import binascii

from starlette.requests import Request

from oncedrop_common.crash_points import CrashPoint
from oncedrop_common.credentials import credentials
from oncedrop_common.drops import Drop, DropId
from oncedrop_common.errors import PasswordNeeded, PasswordWrong, RateLimited
from oncedrop_common.metrics import Metrics
from oncedrop_common.passwords import Passwords
from oncedrop_common.store.arrows import PASSWORD_PAUSE_SECONDS
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import TryPassword
from oncedrop_common.tokens import mint
from oncedrop_common.volume import Volume
from oncedrop_deliver.claiming import refusal


class PasswordGuard:
    """Lets in who knows a drop's password, and locks the drop against who guesses."""

    def __init__(
        self, store: DropStore, volume: Volume, passwords: Passwords, metrics: Metrics
    ) -> None:
        self._store = store
        self._volume = volume
        self._passwords = passwords
        self._metrics = metrics

    async def verify(self, drop: Drop, stored_hash: str, password: str | None) -> None:
        """Return if this is the drop's password.

        Raises:
            PasswordNeeded: None was given.
            PasswordWrong: It is another one.
            RateLimited: Too many wrong ones lately.
            DropGone: Too many in all; the file is removed.
        """
        drop_id = drop.drop_id
        if password is None:
            raise PasswordNeeded("The file has a password.", drop_id=drop_id)
        attempt_id = mint()
        result, after = await self._store.count_password_attempt(drop_id, attempt_id)
        if result is TryPassword.TRY:
            right = await self._passwords.verify(stored_hash, password)
            result, after = await self._store.settle_password_attempt(
                drop_id, attempt_id, right=right
            )
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
