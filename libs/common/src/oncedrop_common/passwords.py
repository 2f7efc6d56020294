"""Passwords of drops: hashed with Argon2id, never kept.

The parameters are OWASP's second choice for Argon2id (19 MiB, two passes, one lane): a guess costs
an attacker tens of milliseconds and as much memory. It costs us the same, so it happens in a
thread, and at most two at a time.
"""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from oncedrop_common.errors import RequestInvalid

PASSWORD_MAX_BYTES = 1024
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1
_AT_A_TIME = 2


class Passwords:
    """Hashes and verifies, for one application.

    Args:
        at_a_time: How many hashes may be computed at once; the others wait.
    """

    def __init__(self, at_a_time: int = _AT_A_TIME) -> None:
        self._hasher = PasswordHasher(
            time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES
        )
        self._turn = asyncio.Semaphore(at_a_time)

    async def hash(self, password: str) -> str:
        """The encoded hash of a new password: algorithm, parameters, a salt of its own, digest.

        Raises:
            RequestInvalid: Longer than PASSWORD_MAX_BYTES of UTF-8; names the field.
        """
        secret = password.encode()
        if len(secret) > PASSWORD_MAX_BYTES:
            raise RequestInvalid(
                f"A password has at most {PASSWORD_MAX_BYTES} bytes.", field="password"
            )
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, secret)

    async def verify(self, stored: str, password: str) -> bool:
        """Whether this is the password that was hashed.

        False as well for one that is too long, and when the stored hash cannot be read: a damaged
        hash lets nobody in.
        """
        secret = password.encode(errors="surrogatepass")
        if len(secret) > PASSWORD_MAX_BYTES:
            return False
        async with self._turn:
            return await asyncio.to_thread(self._matches, stored, secret)

    def _matches(self, stored: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(stored, secret)
        except (VerificationError, InvalidHashError):
            return False
