"""A drop that ends between two steps of a request is 410: neither a server error nor a 503."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from oncedrop_common.drops import ClaimHash, DropId
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.arrows import Intervals
from oncedrop_common.store.client import connect
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_deliver.app import create_app
from support.valkey import TEST_LEASES, make_ready_drop


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


async def answer_of(store: DropStore, volume: Volume, token: str) -> httpx.Response:
    app = create_app(Settings(volume_dir=volume.root), store, volume)
    transport = httpx.ASGITransport(with_extensions(app))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        return await client.get(f"/d/{token}")


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
