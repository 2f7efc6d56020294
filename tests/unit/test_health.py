"""A probe always gets its answer in time, and it names what is wrong."""

import asyncio
from collections.abc import Mapping

import httpx
from starlette.applications import Starlette

from oncedrop_common.errors import StoreUnavailable
from oncedrop_common.health import Check, Readiness, observability_routes
from oncedrop_common.metrics import JanitorMetrics, Metrics


async def well() -> None:
    pass


async def unwell() -> None:
    raise StoreUnavailable("Redis did not answer.")


async def get(
    path: str, checks: Mapping[str, Check], metrics: Metrics | None = None
) -> httpx.Response:
    routes = observability_routes(metrics or Metrics("test"), checks, check_seconds=0.01)
    transport = httpx.ASGITransport(Starlette(routes=routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_a_living_process_says_so_whatever_its_dependencies_do() -> None:
    response = await get("/healthz", {"store": unwell})
    assert (response.status_code, response.json()) == (200, {"alive": True})


async def test_ready_when_every_check_is_well() -> None:
    response = await get("/readyz", {"store": well, "volume": well})
    assert response.status_code == 200
    assert response.json() == {"ready": True, "checks": {"store": "ok", "volume": "ok"}}


async def test_ready_without_any_check() -> None:
    assert (await get("/readyz", {})).json() == {"ready": True, "checks": {}}


async def test_a_failed_check_is_named_with_its_reason() -> None:
    response = await get("/readyz", {"store": unwell, "volume": well})
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "checks": {"store": "Redis did not answer.", "volume": "ok"},
    }


async def test_a_hanging_check_is_bounded_and_started_once() -> None:
    started = 0
    release = asyncio.Event()

    async def hang() -> None:
        nonlocal started
        started += 1
        await release.wait()

    readiness = Readiness({"volume": hang, "store": well}, 0.01)
    for _ in range(3):
        assert await readiness.outcomes() == {
            "volume": "No answer within 0.01 seconds.",
            "store": "ok",
        }
    assert started == 1
    release.set()
    await asyncio.sleep(0)
    assert await readiness.outcomes() == {"volume": "ok", "store": "ok"}


async def test_metrics_of_one_application_are_its_own() -> None:
    metrics, other = Metrics("janitor"), Metrics("janitor")
    metrics.arrow("claim", "CLAIMED")
    metrics.looked("browser")
    metrics.claimed(0.002)
    metrics.claims_synced()
    metrics.transferred("out", 3.0)
    janitor = JanitorMetrics(metrics)
    janitor.usage(drops=3, stored_bytes=5, free_bytes=7)
    janitor.guard(active=True)
    janitor.passed(
        "sweep",
        started_ms=1500,
        duration_seconds=0.25,
        scanned=10,
        removed=4,
        rebuilt=3,
        kept=2,
        errors=1,
    )
    text = (await get("/metrics", {}, metrics)).text
    for line in (
        'oncedrop_service{service="janitor"} 1.0',
        'oncedrop_arrows_total{arrow="claim",result="claimed"} 1.0',
        'oncedrop_looked_total{why="browser"} 1.0',
        "oncedrop_claim_seconds_count 1.0",
        "oncedrop_claim_syncs_total 1.0",
        'oncedrop_transfer_seconds_sum{direction="out"} 3.0',
        "oncedrop_drops 3.0",
        "oncedrop_stored_bytes 5.0",
        "oncedrop_volume_free_bytes 7.0",
        "oncedrop_guard_active 1.0",
        'oncedrop_pass_last_start_timestamp_seconds{pass="sweep"} 1.5',
        'oncedrop_pass_duration_seconds{pass="sweep"} 0.25',
        'oncedrop_pass_scanned{pass="sweep"} 10.0',
        'oncedrop_pass_removed{pass="sweep"} 4.0',
        'oncedrop_pass_rebuilt{pass="sweep"} 3.0',
        'oncedrop_pass_kept{pass="sweep"} 2.0',
        'oncedrop_pass_errors{pass="sweep"} 1.0',
    ):
        assert line in text.splitlines()
    assert 'arrow="claim"' not in (await get("/metrics", {}, other)).text
