"""The janitor as a service: its schedule, its status, and what operators can do."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from oncedrop_common.drops import ClaimHash, DropState, GoneReason
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint
from oncedrop_common.volume import Volume
from oncedrop_janitor import sessions
from oncedrop_janitor.app import create_app
from support.services import running
from support.valkey import make_ready_drop, make_store, set_fields
from support.waiting import wait_until, wait_until_async

TOKEN = "the operator's own"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {"Accept": "text/html"}
A = ClaimHash("a" * 32)


def settings(**chosen: Any) -> Settings:
    return Settings(**{"admin_token": SecretStr(TOKEN), **chosen})


def client_of(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://janitor")


@pytest.fixture
async def app(store: DropStore, volume: Volume) -> Starlette:
    """A janitor that has not started."""
    return create_app(settings(), store, volume)


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to a janitor whose schedule stands still; the volume is known to be its own."""
    async with client_of(app) as client:
        await client.get("/readyz")
        yield client


@contextlib.asynccontextmanager
async def started(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to a janitor that works."""
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


async def swept(client: httpx.AsyncClient) -> dict[str, Any]:
    """The start-up sweep's result, once there is one."""

    async def last() -> Any:
        return (await client.get("/status")).json()["passes"]["sweep"]["last"]

    await wait_until_async(last, 10, what="the first sweep")
    result: dict[str, Any] = await last()
    return result


# The schedule


async def test_a_start_heals_at_once(redis_url: str, volume: Volume) -> None:
    store = make_store(redis_url)
    drop = await make_ready_drop(store, volume)
    await store.call("DEL", keys.drop(drop.drop_id))
    async with started(create_app(settings(), store, volume)) as client:
        assert (await swept(client))["rebuilt"] == 1
        status = (await client.get("/status")).json()
        assert status["leading"] is True
        assert status["passes"]["due"]["next_run"] is not None
        assert (await client.get("/readyz")).json()["ready"] is True


async def test_the_first_sweep_does_not_wait_for_a_dead_janitors_lock(
    redis_url: str, volume: Volume
) -> None:
    store = make_store(redis_url)
    assert await store.lead("a dead janitor", 60)
    drop = await make_ready_drop(store, volume)
    await store.call("DEL", keys.drop(drop.drop_id))
    async with started(create_app(settings(), store, volume)) as client:
        assert (await swept(client))["rebuilt"] == 1
        assert (await client.get("/status")).json()["leading"] is False


async def test_the_due_pass_runs_by_itself(redis_url: str, volume: Volume) -> None:
    store = make_store(redis_url)
    drop = await make_ready_drop(store, volume, ttl_seconds=2)
    app = create_app(settings(due_interval_seconds=1), store, volume)

    async def gone() -> bool:
        record = await store.read(drop.drop_id)
        return record is not None and record.reason is GoneReason.EXPIRED

    async with started(app):
        await wait_until_async(gone, 10, what="the drop to expire")
        await wait_until_async(lambda: no_file(volume), 10, what="its file to be unlinked")


async def no_file(volume: Volume) -> bool:
    return not any(p.is_file() for p in (volume.root / "blobs").rglob("*"))


async def test_a_janitor_starts_without_redis_and_recovers(
    redis_url: str, volume: Volume, tmp_path: Path
) -> None:
    """The address is a link that leads to the server only later."""
    if not redis_url.startswith("unix://"):
        pytest.skip("the server has no socket that a link could lead to")
    link = tmp_path / "later"
    store = make_store(f"unix://{link}")
    async with started(create_app(settings(), store, volume)) as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["store"] == "Redis does not answer."
        status = (await client.get("/status")).json()
        assert status["guard"]["active"] is True
        assert "Redis does not answer." in status["warnings"]
        assert (await client.post("/sweep", headers=ADMIN)).status_code == 503
        link.symlink_to(redis_url.removeprefix("unix://"))

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await wait_until_async(is_ready, 15, what="the janitor to recover")
        sweep = await client.post("/sweep", headers=ADMIN)
        assert sweep.json()["error"] is None


def test_the_process_starts_and_stops_cleanly(redis_url: str, tmp_path: Path) -> None:
    volume_dir = tmp_path / "volume"
    volume_dir.mkdir()
    with running("janitor", redis_url, volume_dir, tmp_path / "log") as janitor:
        wait_until(lambda: "sweep_finished" in janitor.logged(), 10, what="the first sweep")
        assert janitor.stop() == 0
        lines = [json.loads(line) for line in janitor.logged().splitlines()]
    events = {line["event"] for line in lines}
    assert {"volume_paired", "lead_taken", "sweep_finished", "service_stopped"} <= events
    assert not [line for line in lines if line.get("logger", "").startswith("apscheduler")]
    assert "error" not in {line["level"] for line in lines}


# Status


async def test_status_is_json_for_programs_and_a_page_for_people(
    client: httpx.AsyncClient,
) -> None:
    before = (await client.get("/status")).json()
    assert before["passes"]["sweep"]["last"] is None
    assert "It has not run yet" in (await client.get("/status", headers=PAGE)).text
    await client.post("/sweep", headers=ADMIN)

    status = (await client.get("/status", headers={"Accept": "application/json"})).json()

    last = status["passes"]["sweep"]["last"]
    assert {"started_at", "duration_seconds", "scanned", "removed", "rebuilt", "errors",
            "orphan_files", "orphan_records", "kept_by_grace", "strangers", "bytes_freed",
            } <= last.keys()  # fmt: skip
    assert status["guard"] == {"active": False, "reasons": []}
    assert status["usage"]["files"] == 0
    assert status["usage"]["free_bytes"] > 0
    assert any("append-only" in warning for warning in status["warnings"])
    for path in ("/", "/status"):
        page = await client.get(path, headers=PAGE)
        assert page.headers["content-type"].startswith("text/html")
        assert "<h2>Sweep</h2>" in page.text
        assert 'href="status"' in page.text, "also behind /janitor/"


async def test_a_result_kept_by_another_version_is_shown_all_the_same(
    store: DropStore, client: httpx.AsyncClient
) -> None:
    await store.save_pass("sweep", {"started_ms": 1, "scanned": 7})
    page = await client.get("/status", headers=PAGE)
    assert page.status_code == 200


async def test_status_and_readyz_say_why_the_guard_is_active(
    volume: Volume, client: httpx.AsyncClient
) -> None:
    shutil.rmtree(volume.root)
    volume.make_root()
    swept = await client.post("/sweep", headers=ADMIN)
    assert swept.status_code == 503
    assert swept.json()["type"] == "urn:oncedrop:problem:sweep_guarded"
    assert "another volume" in swept.json()["detail"]

    status = (await client.get("/status")).json()
    assert status["paired"] is False
    assert "another volume" in status["guard"]["reasons"][0]
    assert "The guard is active" in (await client.get("/", headers=PAGE)).text
    checks = (await client.get("/readyz")).json()["checks"]
    assert "another volume" in checks["guard"]
    assert "another volume" in checks["volume"]

    forced = await client.post("/sweep?force=1", headers=ADMIN)
    assert forced.json()["guard"] is None
    assert (await client.get("/readyz")).status_code == 200


async def test_metrics_tell_of_passes(client: httpx.AsyncClient) -> None:
    await client.post("/sweep", headers=ADMIN)
    text = (await client.get("/metrics")).text
    assert 'oncedrop_pass_scanned{pass="sweep"} 0.0' in text
    assert "oncedrop_guard_active 0.0" in text
    assert "oncedrop_volume_free_bytes" in text


async def test_healthz_answers_whatever_happens(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"alive": True}


# The admin token

CALLS = [("POST", "/sweep"), ("GET", "/drops"), ("DELETE", f"/drops/{'0' * 32}")]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "given",
    [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", TOKEN, "Bearer \u00e9"],
    ids=["missing", "wrong", "another scheme", "empty", "bare", "not ASCII"],
)
async def test_without_the_admin_token_nothing_is_done(
    store: DropStore, client: httpx.AsyncClient, method: str, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    answer = await client.request(method, path, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await store.load_pass("sweep") == {}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_where_no_admin_token_is_configured_the_answer_says_so(
    store: DropStore, volume: Volume, method: str, path: str
) -> None:
    async with client_of(create_app(Settings(), store, volume)) as client:
        answer = await client.request(method, path, headers={"Authorization": "Bearer "})
        assert answer.status_code == 401
        assert "ONCEDROP_ADMIN_TOKEN" in answer.json()["detail"]
        warnings = (await client.get("/status")).json()["warnings"]
        assert any("admin token" in warning for warning in warnings)


# Sweeping


async def test_a_sweep_answers_with_its_counts(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drop = await make_ready_drop(store, volume, b"12345")
    await store.delete(drop.drop_id)

    dry = (await client.post("/sweep?dry_run=1", headers=ADMIN)).json()
    assert (dry["dry_run"], dry["leftovers"], dry["bytes_freed"]) == (True, 1, 0)
    assert dry["actions"] == [{"drop_id": drop.drop_id, "action": "unlink_gone"}]
    assert await store.load_pass("sweep") == {}

    real = (await client.post("/sweep", headers=ADMIN)).json()
    assert (real["dry_run"], real["leftovers"], real["bytes_freed"]) == (False, 1, 4101)
    assert "actions" not in real


@pytest.mark.parametrize("query", ["dry_run=maybe", "force=2"])
async def test_a_flag_that_is_none_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.post(f"/sweep?{query}", headers=ADMIN)
    assert answer.status_code == 400
    assert answer.json()["field"] == query.partition("=")[0]


async def test_sweep_takes_post_only(client: httpx.AsyncClient) -> None:
    assert (await client.get("/sweep", headers=ADMIN)).status_code == 405


# Drops


async def test_drops_are_listed_page_by_page_without_names(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drops = [await make_ready_drop(store, volume, name="secret plans.pdf") for _ in range(5)]
    await store.delete(drops[0].drop_id)
    await set_fields(store, drops[1].drop_id, {"state": "odd"})

    listed: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(3):
        answer = await client.get(f"/drops?limit=2&cursor={cursor}", headers=ADMIN)
        assert "secret plans" not in answer.text
        listed += answer.json()["drops"]
        cursor = answer.json()["next"] or ""

    assert cursor == ""
    assert [d["id"] for d in listed] == sorted(d.drop_id for d in drops)
    states = {d["id"]: d["state"] for d in listed}
    assert states[drops[0].drop_id] == "gone"
    assert states[drops[1].drop_id] == "damaged"
    assert states[drops[2].drop_id] == "ready"


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=-1", "limit"),
     ("cursor=../x", "cursor")],
)  # fmt: skip
async def test_a_page_out_of_range_is_refused(
    client: httpx.AsyncClient, query: str, field: str
) -> None:
    answer = await client.get(f"/drops?{query}", headers=ADMIN)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_deleting_a_drop_unlinks_its_file_before_it_answers(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drop = await make_ready_drop(store, volume, b"12345")
    answer = await client.delete(f"/drops/{drop.drop_id}", headers=ADMIN)
    assert answer.json() == {
        "state": "gone",
        "reason": "deleted",
        "file_deleted": True,
        "bytes": 4101,
    }
    assert volume.find(drop.drop_id) == []
    again = await client.delete(f"/drops/{drop.drop_id}", headers=ADMIN)
    assert (again.json()["file_deleted"], again.json()["reason"]) == (False, "deleted")


async def test_deleting_a_drop_that_redis_forgot_leaves_a_tombstone(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drop = await make_ready_drop(store, volume)
    volume.take(drop.drop_id, A)
    await store.call("DEL", keys.drop(drop.drop_id))
    answer = await client.delete(f"/drops/{drop.drop_id}", headers=ADMIN)
    assert answer.json()["file_deleted"] is True
    record = await store.read(drop.drop_id)
    assert record is not None
    assert (record.state, record.reason) == (DropState.GONE, GoneReason.DELETED)
    assert volume.find(drop.drop_id) == []


async def test_deleting_a_part_without_record_unlinks_it(
    volume: Volume, client: httpx.AsyncClient
) -> None:
    drop_id = drop_id_of(mint())
    part = volume.create_part(drop_id)
    part.write_at(0, b"x")
    part.close()
    answer = await client.delete(f"/drops/{drop_id}", headers=ADMIN)
    assert (answer.json()["file_deleted"], answer.json()["bytes"]) == (True, 1)


@pytest.mark.parametrize("drop_id", ["0" * 32, "0" * 31, "G" * 32])
async def test_deleting_what_is_not_there_is_404(client: httpx.AsyncClient, drop_id: str) -> None:
    assert (await client.delete(f"/drops/{drop_id}", headers=ADMIN)).status_code == 404


async def test_nothing_is_deleted_from_a_volume_that_is_not_ours(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drop = await make_ready_drop(store, volume)
    (volume.root / ".oncedrop").unlink()
    assert (await client.get("/readyz")).status_code == 503
    answer = await client.delete(f"/drops/{drop.drop_id}", headers=ADMIN)
    assert answer.status_code == 503
    record = await store.read(drop.drop_id)
    assert record is not None
    assert record.state is DropState.READY
    await Pairing(store, volume, ephemeral=False).force()


# The operator's session


async def logged_in(client: httpx.AsyncClient) -> httpx.Response:
    answer = await client.post("/login", data={"token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == "status"
    return answer


async def test_the_page_shows_events_and_curves_to_who_has_logged_in(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    drop = await make_ready_drop(store, volume, name="secret plans.pdf")
    for n in range(150):
        store.note_sample(1_772_366_400_000 + n * 300_000, n, n * 1000)
    before = (await client.get("/status", headers=PAGE)).text
    await logged_in(client)
    after = (await client.get("/status", headers=PAGE)).text

    assert "The last hundred events" not in before
    assert drop.drop_id[:8] not in before
    assert "The last hundred events" in after
    assert drop.drop_id[:8] in after
    assert "now 149, at most 149" in after
    assert "149 kB" in after
    assert after.count('<path class="curve"') == 2
    assert "secret plans" not in after
    await client.post("/logout")
    assert "The last hundred events" not in (await client.get("/status", headers=PAGE)).text


async def test_the_cookie_proves_the_token_without_holding_it(client: httpx.AsyncClient) -> None:
    cookie = (await logged_in(client)).headers["set-cookie"]

    name, value = cookie.partition(";")[0].split("=")
    assert name == "oncedrop_operator"
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert "Path" not in cookie, "it goes back to the folder it came from"
    # The value is no token: a program that found it has nothing to send.
    client.cookies.clear()
    answer = await client.post("/sweep", headers={"Authorization": f"Bearer {value}"})
    assert answer.status_code == 401


async def test_a_session_is_known_to_every_janitor_with_the_token_and_to_no_other(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    cookie = (await logged_in(client)).headers["set-cookie"].partition(";")[0]
    told = {"Cookie": cookie, **PAGE}
    another = settings(admin_token=SecretStr("another"))
    for chosen, known in ((settings(), True), (another, False), (Settings(), False)):
        async with client_of(create_app(chosen, store, volume)) as other:
            page = (await other.get("/status", headers=told)).text
            assert ("The last hundred events" in page) is known


async def test_a_session_ends_by_its_time_and_cannot_be_prolonged(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logged_in(client)
    value = client.cookies["oncedrop_operator"]
    expires, proof = value.split(".")
    client.cookies.clear()
    another = ("B" if proof[0] == "A" else "A") + proof[1:]
    forged = [f"{int(expires) + 1}.{proof}", f"{expires}.{another}", f".{proof}", "", "x"]
    for given in forged:
        page = await client.get("/status", headers={"Cookie": f"oncedrop_operator={given}", **PAGE})
        assert "The last hundred events" not in page.text
    later = {"Cookie": f"oncedrop_operator={value}", **PAGE}
    assert "The last hundred events" in (await client.get("/status", headers=later)).text
    monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda: int(expires) + 1))
    assert "The last hundred events" not in (await client.get("/status", headers=later)).text


async def test_a_session_sweeps_from_the_janitors_own_page_only(
    store: DropStore, client: httpx.AsyncClient
) -> None:
    await logged_in(client)
    foreign = await client.post("/sweep", headers={"Sec-Fetch-Site": "cross-site", **PAGE})
    assert foreign.status_code == 401
    assert "what was given is not it" in foreign.text
    assert await store.load_pass("sweep") == {}

    own = await client.post("/sweep", headers={"Sec-Fetch-Site": "same-origin", **PAGE})
    assert (own.status_code, own.headers["location"]) == (303, "status")
    assert (await store.load_pass("sweep"))["error"] is None


async def test_a_wrong_token_opens_nothing_and_a_configured_https_makes_the_cookie_secure(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    wrong = await client.post("/login", data={"token": "wrong"}, headers=PAGE)
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    assert 'action="login"' in wrong.text
    assert (await client.post("/login", content=b"x" * 9000)).status_code == 400
    assert (await client.post("/login", content=b"\xff")).status_code == 400
    app = create_app(settings(public_url="https://drop.example"), store, volume)
    async with client_of(app) as secure:
        assert "; Secure" in (await logged_in(secure)).headers["set-cookie"]
    async with client_of(create_app(Settings(), store, volume)) as closed:
        assert (await closed.post("/login", data={"token": ""})).status_code == 401
        assert 'action="login"' not in (await closed.get("/status", headers=PAGE)).text


async def test_passes_keep_one_sample_in_five_minutes(
    store: DropStore, volume: Volume, client: httpx.AsyncClient
) -> None:
    await make_ready_drop(store, volume, b"12345")
    for _ in range(3):
        await client.post("/sweep", headers=ADMIN)
    # Another janitor, that has not sampled yet.
    async with client_of(create_app(settings(), store, volume)) as other:
        await other.post("/sweep", headers=ADMIN)

    kept = await store.samples()
    # Two where the test crossed from one five minutes into the next.
    assert 1 <= len(kept) <= 2
    assert kept[-1].drops == 1
    assert kept[-1].at_ms % 300_000 == 0
