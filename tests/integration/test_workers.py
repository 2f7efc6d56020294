"""A service of several processes: one port, one set of numbers, no process left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.services import Service, files_in, running, strangers
from support.valkey import make_ready_drop
from support.waiting import wait_until

WORKERS = 2


@pytest.fixture
def deliver(redis_url: str, volume: Volume, tmp_path: Path) -> Iterator[Service]:
    log = tmp_path / "log"
    with running("deliver", redis_url, volume.root, log, workers=WORKERS) as service:
        yield service


def workers_of(service: Service) -> set[int]:
    return {child.pid for child in psutil.Process(service.process.pid).children()}


def requests_counted(service: Service) -> int:
    """GETs of links, as whichever worker answers tells."""
    text = httpx.get(f"{service.url}/metrics").text
    found = re.findall(r'oncedrop_requests_total\{[^}]*route="/d/\{token\}"[^}]*\} (\d+)', text)
    return sum(map(int, found))


async def test_workers_share_links_and_numbers(
    deliver: Service, store: DropStore, volume: Volume
) -> None:
    """One winner each, whichever worker its visitors meet."""
    assert len(workers_of(deliver)) == WORKERS
    drops = [await make_ready_drop(store, volume, b"x" * 1000) for _ in range(10)]

    async def visit(token: str) -> int:
        # A connection each, so that both workers are met.
        async with httpx.AsyncClient(cookies=strangers(), timeout=60) as client:
            return (await client.get(f"{deliver.url}/d/{token}")).status_code

    visits = [visit(drop.token) for drop in drops for _ in range(10)]
    statuses = await asyncio.gather(*visits)

    assert statuses.count(200) == len(drops)
    assert statuses.count(410) == len(visits) - len(drops)
    assert files_in(volume.root) == []
    assert {requests_counted(deliver) for _ in range(8)} == {len(visits)}


def test_a_worker_that_dies_is_replaced(deliver: Service) -> None:
    # Who dies at once could not start; these have lived for a while.
    time.sleep(5.5)
    victim = min(workers_of(deliver))
    os.kill(victim, signal.SIGKILL)

    wait_until(
        lambda: victim not in workers_of(deliver) and len(workers_of(deliver)) == WORKERS,
        10,
        what="another worker",
    )
    assert "worker_replaced" in deliver.logged()
    for _ in range(8):
        assert deliver.status_of("/readyz") == 200


def test_told_to_stop_all_end(deliver: Service) -> None:
    workers = workers_of(deliver)

    assert deliver.stop() == 0, deliver.logged()
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_workers_do_not_outlive_the_one_that_watches_them(deliver: Service) -> None:
    workers = workers_of(deliver)
    deliver.kill()

    wait_until(
        lambda: not any(psutil.pid_exists(pid) for pid in workers), 20, what="the workers' end"
    )
    with socket.create_server(("127.0.0.1", deliver.port)):
        pass


def test_what_cannot_start_ends_and_says_why(tmp_path: Path) -> None:
    service = Service("deliver", "ftp://nowhere", tmp_path, tmp_path / "log", workers=WORKERS)

    assert service.process.wait(30) == 2
    assert "oncedrop deliver: ONCEDROP_REDIS_URL" in service.logged()
