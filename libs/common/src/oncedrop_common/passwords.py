"""Argon2id for drops' passwords, by argon2-cffi, in threads and never many at a time."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MAX_BYTES = 1024
_AT_A_TIME = 2
# OWASP's recommendation for Argon2id: 19 MiB, two passes, one lane.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1


class Passwords:
    """Hashes and verifies; bounded, so that guessing costs the guesser and not the server."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES
        )
        self._places = asyncio.Semaphore(_AT_A_TIME)

    async def hash(self, password: str) -> str:
        """The encoded hash to store.

        Raises:
            ValueError: The password is longer than MAX_BYTES of UTF-8.
        """
        if len(password.encode(errors="surrogatepass")) > MAX_BYTES:
            raise ValueError("the password is too long")
        async with self._places:
            return await asyncio.to_thread(
                self._hasher.hash, password.encode(errors="surrogatepass")
            )

    async def verify(self, stored: str, password: str) -> bool:
        """Whether this password made this hash; False for one that is too long to be it."""
        given = password.encode(errors="surrogatepass")
        if len(given) > MAX_BYTES:
            return False
        async with self._places:
            return await asyncio.to_thread(self._verify, stored, given)

    def _verify(self, stored: str, given: bytes) -> bool:
        try:
            return self._hasher.verify(stored, given)
        except (VerificationError, InvalidHashError):
            return False
