"""The promise: one client gets the file, nobody else a byte, and then it is gone."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from oncedrop_common.drops import Confirm, DropState, GoneReason, IfInterrupted
from oncedrop_common.passwords import Passwords
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.programs import needs
from support.services import BROWSER, CuttingProxy, RawClient, Service
from support.valkey import ReadyDrop, make_ready_drop, record_fields
from support.waiting import wait_until_async

BODY = os.urandom(300_000)
LARGE = os.urandom(24 * 1024 * 1024)


def link(deliver: Service, drop: ReadyDrop) -> str:
    return f"{deliver.url}/d/{drop.token}"


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30, follow_redirects=False) as client:
        return await client.get(url, headers=headers)


async def assert_gone(
    store: DropStore, volume: Volume, drop: ReadyDrop, reason: GoneReason
) -> None:
    async def gone() -> bool:
        record = await store.read(drop.drop_id)
        return (
            record is not None and record.state is DropState.GONE and not volume.find(drop.drop_id)
        )

    await wait_until_async(gone, 10, what="the drop to be gone")
    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.reason is reason


async def test_the_second_visitor_gets_410_with_reason_and_time(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY)

    first = await get(link(deliver, drop))
    second = await get(link(deliver, drop))

    assert first.status_code == 200
    assert first.content == BODY
    assert second.status_code == 410
    assert second.headers["content-type"] == "application/problem+json"
    assert second.json()["reason"] == "delivered"
    assert second.json()["gone_at"].endswith("Z")
    assert volume.find(drop.drop_id) == []


async def test_one_of_100_simultaneous_visitors_gets_the_file(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY)

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=100)) as client:
        answers = await asyncio.gather(*(client.get(link(deliver, drop)) for _ in range(100)))

    winners = [a for a in answers if a.status_code == 200]
    losers = [a for a in answers if a.status_code == 410]
    assert (len(winners), len(losers)) == (1, 99)
    assert winners[0].content == BODY
    assert not any(BODY[i : i + 64] in a.content for a in losers for i in range(0, 300_000, 999))
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_an_empty_file_is_delivered_once(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, b"")

    assert (await get(link(deliver, drop))).content == b""
    assert (await get(link(deliver, drop))).status_code == 410


async def test_a_download_carries_what_resuming_and_checking_need(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY, name='a"b\u202eé.pdf')

    answer = await get(link(deliver, drop))

    assert answer.headers["etag"].startswith('"')
    assert answer.headers["content-location"].startswith(f"/c/{drop.drop_id}.")
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["repr-digest"].startswith("sha-256=:")
    assert answer.headers["content-disposition"].startswith("attachment;")
    cookie = answer.headers["set-cookie"]
    assert f"Path=/d/{drop.token}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


# Looking is free.

LOOKERS = {
    "browser": BROWSER,
    "prefetch": {"Sec-Purpose": "prefetch;prerender"},
    "old prefetch": {"Purpose": "prefetch"},
    "slack": {"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
    "whatsapp": {"User-Agent": "WhatsApp/2.23.20.0"},
    "facebook": {"User-Agent": "facebookexternalhit/1.1"},
    "telegram": {"User-Agent": "TelegramBot (like TwitterBot)"},
}


@pytest.mark.parametrize("headers", LOOKERS.values(), ids=LOOKERS)
async def test_looking_changes_neither_record_nor_volume(
    deliver: Service, store: DropStore, volume: Volume, headers: dict[str, str]
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    record, files = await record_fields(store, drop.drop_id), volume.find(drop.drop_id)

    for _ in range(3):
        answer = await get(link(deliver, drop), **headers)
        assert answer.status_code == 200
        assert "<form" in answer.text

    assert await record_fields(store, drop.drop_id) == record
    assert volume.find(drop.drop_id) == files
    assert (await get(link(deliver, drop))).content == BODY


async def test_head_changes_nothing(deliver: Service, store: DropStore, volume: Volume) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    record = await record_fields(store, drop.drop_id)

    async with httpx.AsyncClient() as client:
        answer = await client.head(link(deliver, drop))

    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(BODY))
    assert await record_fields(store, drop.drop_id) == record


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=300000-"}, 416),
        ({"Range": "bytes=-0"}, 416),
        ({"If-Match": '"other"'}, 412),
        ({"If-None-Match": "*"}, 304),
    ],
)
async def test_what_can_be_answered_without_the_file_claims_nothing(
    deliver: Service,
    store: DropStore,
    volume: Volume,
    headers: dict[str, str],
    status: int,
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    record = await record_fields(store, drop.drop_id)

    assert (await get(link(deliver, drop), **headers)).status_code == status

    assert await record_fields(store, drop.drop_id) == record


async def test_confirm_always_gives_programs_the_page_too(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY, confirm=Confirm.ALWAYS)

    assert "<form" in (await get(link(deliver, drop))).text
    async with httpx.AsyncClient(follow_redirects=True) as client:
        assert (await client.post(link(deliver, drop))).content == BODY


# The landing page's form.


async def test_a_double_click_is_one_claim(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    page = await get(link(deliver, drop), **BROWSER)
    claim = page.text.partition('name="claim" value="')[2][:22]

    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(
            *(client.post(link(deliver, drop), data={"claim": claim}) for _ in range(5))
        )
    stranger = await get(link(deliver, drop))

    assert {a.status_code for a in answers} == {303}
    assert len({a.headers["location"] for a in answers}) == 1
    assert stranger.status_code == 410
    assert stranger.json()["reason"] == "claimed"
    taken = await get(deliver.url + answers[0].headers["location"], **BROWSER)
    assert taken.content == BODY


async def test_a_drop_id_alone_is_no_link(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY)

    answer = await get(f"{deliver.url}/c/{drop.drop_id}.{'A' * 22}/x")

    assert answer.status_code == 404
    assert (await get(link(deliver, drop))).content == BODY


# Coming back.


async def interrupted(deliver: Service, drop: ReadyDrop, count: int) -> RawClient:
    """A client that read count bytes of the body and left."""
    client = RawClient.get(deliver.port, f"/d/{drop.token}", receive_buffer=65536)
    await asyncio.to_thread(client.read_body, count)
    client.close()
    return client


async def test_the_claimant_resumes_over_the_claim_url(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE)
    client = await interrupted(deliver, drop, 1_000_000)

    stranger = await get(link(deliver, drop), Range="bytes=1000000-")
    rest = await get(deliver.url + client.header("content-location"), Range="bytes=1000000-")

    assert stranger.status_code == 410
    assert LARGE[1_000_000:1_000_064] not in stranger.content
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes 1000000-{len(LARGE) - 1}/{len(LARGE)}"
    assert rest.content == LARGE[1_000_000:]
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_the_claimant_is_known_by_if_range_and_by_cookie(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE)
    client = await interrupted(deliver, drop, 1_000_000)
    etag, cookie = client.header("etag"), client.header("set-cookie").partition(";")[0]

    by_tag = await get(link(deliver, drop), **{"If-Range": etag, "Range": "bytes=0-99"})
    by_cookie = await get(link(deliver, drop), Cookie=cookie, Range="bytes=100-199")
    wrong = await get(link(deliver, drop), **{"If-Range": f'"{"A" * 22}"', "Range": "bytes=0-99"})

    assert (by_tag.status_code, by_tag.content) == (206, LARGE[:100])
    assert (by_cookie.status_code, by_cookie.content) == (206, LARGE[100:200])
    assert wrong.status_code == 410


async def test_ranges_from_several_connections_make_one_delivery(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE)
    client = await interrupted(deliver, drop, 10)
    url = deliver.url + client.header("content-location")
    edges = [i * len(LARGE) // 8 for i in range(9)]

    parts = await asyncio.gather(
        *(get(url, Range=f"bytes={a}-{b - 1}") for a, b in itertools.pairwise(edges))
    )

    assert b"".join(p.content for p in parts) == LARGE
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_a_cut_wget_finishes_by_itself(
    deliver: Service, store: DropStore, volume: Volume, tmp_path: Path
) -> None:
    needs("wget")
    drop = await make_ready_drop(store, volume, LARGE)
    with CuttingProxy(deliver.port, cuts=[3_000_000, 9_000_000]) as proxy:
        await asyncio.to_thread(
            subprocess.run,
            ["wget", "-q", "--tries=5", "--waitretry=0", "--retry-connrefused", "-O", "out",
             f"http://127.0.0.1:{proxy.port}/d/{drop.token}"],
            cwd=tmp_path, check=True, timeout=60,
        )  # fmt: skip
        assert proxy.connections == 3

    assert (
        hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(LARGE).digest()
    )
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_curl_continues_over_the_claim_url(
    deliver: Service, store: DropStore, volume: Volume, tmp_path: Path
) -> None:
    needs("curl")
    drop = await make_ready_drop(store, volume, LARGE)
    with CuttingProxy(deliver.port, cuts=[5_000_000]) as proxy:
        cut = await asyncio.to_thread(
            subprocess.run,
            ["curl", "-s", "-D", "head", "-o", "out", f"http://127.0.0.1:{proxy.port}/d/{drop.token}"],
            cwd=tmp_path, check=False, timeout=60,
        )  # fmt: skip
    assert cut.returncode != 0
    lines = (tmp_path / "head").read_text().splitlines()
    path = next(line.split(" ")[1] for line in lines if line.startswith("content-location:"))

    await asyncio.to_thread(
        subprocess.run,
        ["curl", "-sf", "-C", "-", "-o", "out", deliver.url + path],
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip

    assert (tmp_path / "out").read_bytes() == LARGE
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_what_the_client_did_not_acknowledge_is_not_delivered(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    """A reader that stalls: `send` has long returned, but the file must stay."""
    drop = await make_ready_drop(store, volume, LARGE)
    client = RawClient.get(deliver.port, f"/d/{drop.token}", receive_buffer=65536)
    await asyncio.to_thread(client.read_head)

    async def noted() -> bool:
        record = await store.read(drop.drop_id)
        return record is not None and record.acknowledged_bytes > 0

    await wait_until_async(noted, 10, what="the first renewal")
    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.state is DropState.CLAIMED
    assert record.acknowledged_bytes < len(LARGE)
    assert [f.place for f in volume.find(drop.drop_id)] == ["claimed"]
    await asyncio.to_thread(client.read_body, len(LARGE))
    client.close()
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_what_the_servers_kernel_took_is_not_delivered(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    """A small file lies whole in the server's socket; its client has not got it yet."""
    body = BODY[:40_000]
    drop = await make_ready_drop(store, volume, body)
    client = RawClient.get(deliver.port, f"/d/{drop.token}", receive_buffer=1024)
    await asyncio.to_thread(client.socket.recv, 1)
    await asyncio.sleep(1.5)

    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.state is DropState.CLAIMED
    assert record.acknowledged_bytes < len(body)
    assert [f.place for f in volume.find(drop.drop_id)] == ["claimed"]
    client.close()


async def test_a_restorable_drop_answers_409_while_it_is_held(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE, if_interrupted=IfInterrupted.RESTORE)
    client = await interrupted(deliver, drop, 1000)

    held = await get(link(deliver, drop))

    assert held.status_code == 409
    assert int(held.headers["retry-after"]) > 0
    url = deliver.url + client.header("content-location")
    assert (await get(url)).content == LARGE


async def test_resume_0_gives_no_second_chance(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE, resume=False)
    client = await interrupted(deliver, drop, 1000)

    await assert_gone(store, volume, drop, GoneReason.INTERRUPTED)
    answer = await get(deliver.url + client.header("content-location"))
    assert answer.status_code == 410


async def test_three_downloads_are_three_and_the_file_goes_with_the_last(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY, max_downloads=3)

    answers = await asyncio.gather(*(get(link(deliver, drop)) for _ in range(20)))

    assert sorted(a.status_code for a in answers) == [200] * 3 + [410] * 17
    assert all(a.content == BODY for a in answers if a.status_code == 200)
    await assert_gone(store, volume, drop, GoneReason.DELIVERED)


async def test_a_deletion_cuts_a_running_download(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, LARGE)
    client = RawClient.get(deliver.port, f"/d/{drop.token}", receive_buffer=65536)
    await asyncio.to_thread(client.read_body, 1000)

    await store.delete(drop.drop_id)
    await asyncio.to_thread(volume.unlink, drop.drop_id)
    # Running streams see it at their next renewal.
    await asyncio.sleep(1.5)

    assert await asyncio.wait_for(asyncio.to_thread(client.ends), 5)
    client.close()


async def test_a_damaged_blob_is_never_served_and_not_used_up(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    path = volume.path_of(volume.find(drop.drop_id)[0])
    os.truncate(path, 100_000)

    answer = await get(link(deliver, drop))

    assert answer.status_code == 503
    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.state is DropState.READY
    assert path.exists()


async def test_a_file_cut_short_while_it_is_sent_cuts_the_answer(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    """Nothing stands in for the missing bytes, nothing is delivered, and what is left stays."""
    drop = await make_ready_drop(store, volume, LARGE)
    client = RawClient.get(deliver.port, f"/d/{drop.token}", receive_buffer=65536)
    await asyncio.to_thread(client.read_body, 1000)
    path = volume.path_of(volume.find(drop.drop_id)[0])
    os.truncate(path, path.stat().st_size - len(LARGE) // 4)

    await asyncio.to_thread(client.drain, 10)

    body = client.received.partition(b"\r\n\r\n")[2]
    assert len(body) <= len(LARGE) * 3 // 4
    assert LARGE.startswith(body)
    client.close()
    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.state is DropState.CLAIMED
    assert path.exists()
    assert deliver.status_of("/healthz") == 200


async def test_pipelined_requests_on_one_connection_are_answered_in_order(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    one = await make_ready_drop(store, volume, BODY)
    two = await make_ready_drop(store, volume, BODY[::-1])
    head = "HTTP/1.1\nHost: localhost\n\n"
    client = RawClient(
        deliver.port,
        f"GET /d/{one.token} {head}GET /d/{two.token} {head}GET /healthz HTTP/1.1\nHost: localhost",
    )

    await asyncio.to_thread(client.read_until, b'{"alive":true}')
    client.close()

    assert client.received.index(BODY) < client.received.index(BODY[::-1])


TOKENS = {
    "short": lambda t: t[:-1],
    "long": lambda t: t + "A",
    "alphabet": lambda t: "!" + t[1:],
    "case": lambda t: t.swapcase(),
    "padding": lambda t: t + "==",
    "slash": lambda t: t + "/",
    "encoded": lambda t: t[:-1] + "%00",
    "other": lambda _: "A" * 22,
}


@pytest.mark.parametrize("change", TOKENS.values(), ids=TOKENS)
async def test_a_token_that_is_not_the_token_is_404(
    deliver: Service, store: DropStore, volume: Volume, change: object
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    assert callable(change)

    assert (await get(f"{deliver.url}/d/{change(drop.token)}")).status_code == 404
    assert (await get(link(deliver, drop))).content == BODY


# Passwords.


@pytest.fixture(scope="session")
def password_hash() -> str:
    return asyncio.run(Passwords().hash("corréct horse"))


async def test_a_password_protects_without_using_the_drop_up(
    deliver: Service, store: DropStore, volume: Volume, password_hash: str
) -> None:
    drop = await make_ready_drop(
        store, volume, BODY, password_hash=password_hash, name="secret.pdf"
    )
    async with httpx.AsyncClient(timeout=30) as client:
        none = await client.get(link(deliver, drop))
        wrong = await client.get(link(deliver, drop), auth=("", "wrong"))
        page = await client.get(link(deliver, drop), headers=BROWSER)
        wrong_form = await client.post(
            link(deliver, drop), data={"password": "wrong"}, headers=BROWSER
        )
        right = await client.get(link(deliver, drop), auth=("", "corréct horse"))

    assert none.status_code == 401
    assert none.headers["www-authenticate"].startswith("Basic")
    assert wrong.status_code == 401
    assert 'type="password"' in page.text
    assert "secret.pdf" not in page.text
    assert wrong_form.status_code == 401
    assert "The password is wrong" in wrong_form.text
    assert right.content == BODY


async def test_five_wrong_passwords_pause_and_parallel_guesses_do_not_slip_through(
    deliver: Service, store: DropStore, volume: Volume, password_hash: str
) -> None:
    drop = await make_ready_drop(store, volume, BODY, password_hash=password_hash)
    async with httpx.AsyncClient(timeout=60) as client:
        answers = await asyncio.gather(
            *(client.get(link(deliver, drop), auth=("", f"guess {i}")) for i in range(12))
        )
        right = await client.get(link(deliver, drop), auth=("", "corréct horse"))

    assert sorted(a.status_code for a in answers) == [401] * 5 + [429] * 7
    assert right.status_code == 429
    assert int(right.headers["retry-after"]) > 0


async def test_a_password_in_the_form_leads_to_the_file(
    deliver: Service, store: DropStore, volume: Volume, password_hash: str
) -> None:
    drop = await make_ready_drop(store, volume, BODY, password_hash=password_hash)
    async with httpx.AsyncClient(timeout=30, follow_redirects=True) as client:
        answer = await client.post(
            link(deliver, drop), data={"password": "corréct horse"}, headers=BROWSER
        )

    assert answer.content == BODY


async def test_no_secret_reaches_the_log(
    deliver: Service, store: DropStore, volume: Volume, password_hash: str
) -> None:
    drop = await make_ready_drop(store, volume, BODY, password_hash=password_hash)
    answer = await get(link(deliver, drop))
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(link(deliver, drop), auth=("", "corréct horse"))
    claim_id = answer.headers["etag"].strip('"')

    log = deliver.logged()

    assert drop.drop_id in log
    for secret in (drop.token, claim_id, "corréct horse", password_hash, "report.pdf"):
        assert secret not in log
