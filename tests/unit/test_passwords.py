"""Passwords: hashed slowly, two at a time, verified without surprises."""

import asyncio
import threading
from typing import Any

import pytest

from oncedrop_common.errors import RequestInvalid
from oncedrop_common.passwords import PASSWORD_MAX_BYTES, Passwords


async def test_a_password_matches_its_own_hash_and_no_other() -> None:
    passwords = Passwords()
    stored = await passwords.hash("pässwörd ✓")
    assert await passwords.verify(stored, "pässwörd ✓")
    assert not await passwords.verify(stored, "pässwörd")
    assert not await passwords.verify(stored, "")


async def test_the_hash_is_argon2id_with_the_documented_parameters_and_a_salt_of_its_own() -> None:
    passwords = Passwords()
    first, second = await passwords.hash("same"), await passwords.hash("same")
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second


async def test_a_password_over_the_cap_is_refused_and_never_matches() -> None:
    passwords = Passwords()
    with pytest.raises(RequestInvalid) as refused:
        await passwords.hash("ü" * (PASSWORD_MAX_BYTES // 2) + "x")
    assert refused.value.field == "password"
    stored = await passwords.hash("x" * PASSWORD_MAX_BYTES)
    assert not await passwords.verify(stored, "x" * (PASSWORD_MAX_BYTES + 1))


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$v=19$m=19456,t=2,p=1$", "$argon2id$x"])
async def test_a_damaged_hash_lets_nobody_in(stored: str) -> None:
    assert not await Passwords().verify(stored, "plain")


async def test_a_lone_surrogate_is_a_wrong_password() -> None:
    passwords = Passwords()
    assert not await passwords.verify(await passwords.hash("x"), "\ud800")


async def test_no_more_than_two_are_hashed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most = threading.Lock(), 0, 0

    class Slow:
        def hash(self, _password: Any) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.02)
            with lock:
                running -= 1
            return "hash"

    passwords = Passwords()
    monkeypatch.setattr(passwords, "_hasher", Slow())
    await asyncio.gather(*(passwords.hash("x") for _ in range(8)))
    assert most == 2
