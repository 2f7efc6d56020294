"""A drop that ends between two steps of a request is 410: neither a server error nor a 503."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.passwords import Passwords
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.arrows import Intervals
from oncedrop_common.store.client import connect
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_deliver.app import create_app
from support.valkey import TEST_LEASES, make_ready_drop, record_fields


class DeletedBeforeItSends(DropStore):
    """The owner deletes between the claim and the first byte."""

    async def renew_claim(
        self, drop_id: DropId, claim_hash: ClaimHash, acknowledged: Intervals, *, progressed: bool
    ) -> Any:
        """As the store's, after the deletion."""
        await self.delete(drop_id)
        return await super().renew_claim(drop_id, claim_hash, acknowledged, progressed=progressed)


class DeletedBeforeItsFileIsTaken(DropStore):
    """The owner deletes between the claim and the rename."""

    volume: Volume

    async def claim(self, drop_id: DropId, *args: Any, **options: Any) -> Any:
        """As the store's, before the deletion."""
        answer = await super().claim(drop_id, *args, **options)
        await self.delete(drop_id)
        self.volume.unlink(drop_id)
        return answer


class EndedAndForgottenBeforeItIsTold(DropStore):
    """Another range of the claimant was the last; then Redis is wiped."""

    volume: Volume

    async def deliver(self, drop_id: DropId, claim_hash: ClaimHash, acknowledged: Intervals) -> Any:
        """Not known any more."""
        self.volume.unlink(drop_id)
        await self.call("DEL", keys.drop(drop_id))
        return await super().deliver(drop_id, claim_hash, acknowledged)


def with_extensions(app: ASGIApp) -> ASGIApp:
    """As a server that offers none."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    return wrapped


async def answer_of(
    store: DropStore, volume: Volume, token: str, password: str | None = None
) -> httpx.Response:
    app = create_app(Settings(volume_dir=volume.root), store, volume)
    transport = httpx.ASGITransport(with_extensions(app))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        auth = None if password is None else ("", password)
        return await client.get(f"/d/{token}", auth=auth)


async def test_one_of_several_downloads_whose_drop_is_deleted_before_its_first_byte_is_410(
    redis_url: str, store: DropStore, volume: Volume
) -> None:
    """It was a 500: the response ended before it had begun."""
    drop = await make_ready_drop(store, volume, max_downloads=2)
    deleting = DeletedBeforeItSends(connect(redis_url, 5), TEST_LEASES, 5)

    answer = await answer_of(deleting, volume, drop.token)

    await deleting.close()
    assert (answer.status_code, answer.json()["reason"]) == (410, "deleted")


async def test_a_drop_that_is_deleted_before_its_file_is_taken_is_410(
    redis_url: str, store: DropStore, volume: Volume
) -> None:
    """It was a 503, as if the file might come back."""
    drop = await make_ready_drop(store, volume)
    deleting = DeletedBeforeItsFileIsTaken(connect(redis_url, 5), TEST_LEASES, 5)
    deleting.volume = volume

    answer = await answer_of(deleting, volume, drop.token)

    await deleting.close()
    assert (answer.status_code, answer.json()["reason"]) == (410, "deleted")


async def test_a_drop_of_several_downloads_that_is_over_and_forgotten_is_not_made_again(
    redis_url: str, store: DropStore, volume: Volume
) -> None:
    """It was: a record without a file, and so 503 until grace had gone by."""
    drop = await make_ready_drop(store, volume, max_downloads=2)
    forgetting = EndedAndForgottenBeforeItIsTold(connect(redis_url, 5), TEST_LEASES, 5)
    forgetting.volume = volume

    assert (await answer_of(forgetting, volume, drop.token)).status_code == 200

    await forgetting.close()
    assert await store.read(drop.drop_id) is None
    assert (await answer_of(store, volume, drop.token)).status_code == 404


class ForgottenWhileVerifying(DropStore):
    """Redis is wiped between an attempt's count and its end, once."""

    wiped = False

    async def settle_password_attempt(
        self, drop_id: DropId, attempt_id: str, *, right: bool
    ) -> Any:
        """Not known any more."""
        if not self.wiped:
            self.wiped = True
            await self.call("DEL", keys.drop(drop_id))
        return await super().settle_password_attempt(drop_id, attempt_id, right=right)


async def test_a_drop_with_a_password_that_redis_forgot_is_given_to_who_knows_it(
    store: DropStore, volume: Volume
) -> None:
    """It was a 410 for everybody, as if somebody had taken it, until the next sweep."""
    password_hash = await Passwords().hash("right")
    drop = await make_ready_drop(store, volume, password_hash=password_hash)
    await store.call("DEL", keys.drop(drop.drop_id))

    wrong = [(await answer_of(store, volume, drop.token, f"{n}")).status_code for n in range(2)]
    fields = await record_fields(store, drop.drop_id)
    answer = await answer_of(store, volume, drop.token, "right")

    assert wrong == [401, 401]
    assert len(fields["wrong_passwords"].split()) == 2
    assert answer.status_code == 200


async def test_a_password_that_redis_forgot_while_it_was_verified_is_verified_again(
    redis_url: str, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, password_hash=await Passwords().hash("right"))
    forgetting = ForgottenWhileVerifying(connect(redis_url, 5), TEST_LEASES, 5)

    answer = await answer_of(forgetting, volume, drop.token, "right")

    await forgetting.close()
    assert answer.status_code == 200
