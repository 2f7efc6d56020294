"""Receipts that change by themselves: from any replica, bounded, and over when the drop is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oncedrop_common.drops import DropId
from oncedrop_common.errors import RateLimited
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_ingest import receipt as receipt_module
from oncedrop_ingest.app import create_app
from oncedrop_ingest.live import LISTENERS_PER_DROP, Newsroom
from support.services import RawClient, Service
from support.stack import Stack, running_stack
from support.waiting import wait_until

BODY = os.urandom(2_000_000)
IDS = [DropId(f"{n:032x}") for n in range(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


class Followed:
    """A receipt that is followed, as a program does it."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, wanted: str = "receipt") -> Any:
        """The next event of this name; those before it are passed over."""
        name = ""
        deadline = time.monotonic() + 20
        for line in self._lines:
            # A heartbeat is a line too.
            assert time.monotonic() < deadline, f"waited in vain for {wanted}"
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: ") and name == wanted:
                return json.loads(line.removeprefix("data: "))
        raise AssertionError(f"the stream ended without {wanted}")

    def until(self, state: str) -> dict[str, Any]:
        """The first receipt with this state."""
        while (document := self.next())["state"] != state:
            pass
        found: dict[str, Any] = document
        return found

    def page_with(self, text: str) -> str:
        """The first page that says this."""
        deadline = time.monotonic() + 20
        while text not in (html := self.next("page")["html"]):
            assert time.monotonic() < deadline, f"waited in vain for {text}"
        return str(html)

    def ends(self) -> bool:
        """Whether the server ends it."""
        return not list(self._lines)[1:]


@contextlib.contextmanager
def following(owner_url: str, query: str = "", **headers: str) -> Iterator[Followed]:
    with httpx.stream("GET", f"{owner_url}/events{query}", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store, no-transform"
        yield Followed(answer)


def test_the_life_of_a_drop_is_told_as_it_happens_and_then_the_stream_ends(stack: Stack) -> None:
    drop = stack.upload(BODY)
    with following(drop.owner_url) as followed:
        assert followed.next()["state"] == "waiting"
        began = time.monotonic()
        assert httpx.get(drop.url).content == BODY
        document = followed.until("gone")
        assert time.monotonic() - began < 3, "by the event, not by looking now and then"
        assert document["reason"] == "delivered"
        assert followed.next("end") == {}
        assert followed.ends()


def test_a_break_and_its_continuation_are_in_the_timeline(stack: Stack) -> None:
    drop = stack.upload(BODY)
    with following(drop.owner_url, "?page=1", **{"Accept-Language": "de"}) as followed:
        followed.page_with("Die Datei wartet")
        client = RawClient.get(stack.deliver.port, httpx.URL(drop.url).path, receive_buffer=65536)
        claim_url = client.header("content-location")
        client.read_body(600_000)
        client.close()
        assert "report.pdf" in followed.page_with("Er brach ab")
        rest = httpx.get(stack.deliver.url + claim_url, headers={"Range": "bytes=600000-"})
        assert rest.content == BODY[600_000:]
        followed.page_with("Es ging weiter")
    page = httpx.get(drop.owner_url, headers={"Accept": "text/html"}).text
    assert page.index("It broke off") < page.index("It went on") < page.index("and the file remo")


def test_a_deletion_is_seen_at_another_replica(stack: Stack, tmp_path: Path) -> None:
    drop = stack.upload(BODY)
    other = Service("ingest", stack.redis.url, stack.volume_dir, tmp_path / "log")
    try:
        other.wait_ready()
        with following(drop.owner_url.replace(stack.ingest.url, other.url)) as followed:
            assert followed.next()["state"] == "waiting"
            httpx.delete(drop.owner_url)
            assert followed.until("gone")["reason"] == "deleted"
    finally:
        if other.process.poll() is None:
            other.stop()


def test_an_open_page_does_not_hold_up_a_stop(stack: Stack, tmp_path: Path) -> None:
    drop = stack.upload(BODY)
    other = Service("ingest", stack.redis.url, stack.volume_dir, tmp_path / "log")
    other.wait_ready()
    with following(drop.owner_url.replace(stack.ingest.url, other.url)) as followed:
        followed.next()
        began = time.monotonic()
        assert other.stop() == 0
        assert time.monotonic() - began < 5


def test_following_needs_the_owner_key_and_head_ends_at_once(stack: Stack) -> None:
    drop = stack.upload(BODY)
    wrong = drop.owner_url[:-22] + "A" * 22
    assert httpx.get(f"{wrong}/events").status_code == 404
    assert httpx.head(f"{drop.owner_url}/events").status_code == 200


def test_pages_of_one_drop_are_few_and_places_are_given_back(stack: Stack) -> None:
    drop = stack.upload(BODY)
    with contextlib.ExitStack() as pages:
        # Kept: whose lines nobody can read any more is closed.
        opened = [pages.enter_context(following(drop.owner_url)) for _ in range(LISTENERS_PER_DROP)]
        assert {page.next()["state"] for page in opened} == {"waiting"}
        refused = httpx.get(f"{drop.owner_url}/events")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "60"
        # Others' pages are not touched by that.
        with following(stack.upload(BODY).owner_url) as followed:
            assert followed.next()["state"] == "waiting"

    def free() -> bool:
        with httpx.stream("GET", f"{drop.owner_url}/events", timeout=20) as answer:
            return answer.status_code == 200

    wait_until(free, 10, what="the places of who left")


async def test_all_pages_together_are_bounded_and_share_one_reader(store: DropStore) -> None:
    newsroom = Newsroom(store, most=20)
    async with contextlib.AsyncExitStack() as pages:
        listeners = [await pages.enter_async_context(newsroom.listening(d)) for d in IDS[:20]]
        with pytest.raises(RateLimited):
            await pages.enter_async_context(newsroom.listening(IDS[21]))
        readers = [t for t in asyncio.all_tasks() if t.get_name() == "read events"]
        assert len(readers) == 1
        await listeners[3].news(5)  # that the reader has begun
        store.record_event("claimed", IDS[3])
        store.record_event("claimed", IDS[300])
        assert await listeners[3].news(5)
        assert [event.name for event in listeners[3].events] == ["claimed"]
        assert not any(each.events for each in listeners if each is not listeners[3])
    await newsroom.close()
    _, running = await asyncio.wait(readers, timeout=0)
    assert not running


async def test_a_drops_events_are_found_among_many_others(store: DropStore) -> None:
    store.record_event("created", IDS[0], size=7)
    for n in range(1200):  # more than are read at once
        if n % 100 == 0:
            # One connection's worth: what comes after goes after.
            await store.ping()
        store.record_event("claimed", IDS[1 + n % 300])
    await store.ping()
    store.record_event("paused", IDS[0], bytes=3)
    newest = (await store.last_events(1))[0]
    # What an operator's hand, or another version, put there is passed over.
    await store.call("XADD", keys.EVENTS, "*", "\xff", "\xff")
    await store.call("XADD", keys.EVENTS, "*", "event", "claimed", "drop_id", "../..", "n", "x")

    found = await store.events_of(IDS[0], 0, newest.at_ms + 60_000)
    assert [(event.name, event.numbers) for event in found] == [
        ("created", {"size": 7}),
        ("paused", {"bytes": 3}),
    ]
    assert await store.events_of(IDS[0], newest.at_ms + 1000, newest.at_ms + 60_000) == []
    assert [event.drop_id for event in await store.last_events(2)] == [None, None]


async def test_silence_is_filled_with_heartbeats(
    store: DropStore, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipt_module, "_TICK_SECONDS", 0.02)
    monkeypatch.setattr(receipt_module, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(receipt_module, "_TICKS_MOST", 30)
    app = create_app(Settings(), store, volume)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
        await client.get("/readyz")
        answer = await client.put("/x", content=b"x", headers={"Accept": "application/json"})
        # Buffered whole: it ends by itself after so many ticks.
        stream = await client.get(httpx.URL(answer.json()["owner_url"]).path + "/events")
    assert stream.text.startswith("retry: ")
    assert stream.text.count("event: receipt") == 1
    assert stream.text.count(": still here") == 6
