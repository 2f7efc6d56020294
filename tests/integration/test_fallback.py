"""An uvicorn that is not what http/zero_copy.py builds on: files go the plain ASGI way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from oncedrop_common.volume import Volume
from support.services import Service

BODY = bytes(range(256)) * 2000
LEASE_SECONDS = 3
_UNFIT = (
    "import runpy\n"
    "from oncedrop_common.http import zero_copy\n"
    "zero_copy._fits = lambda: False\n"
    "runpy.run_module('oncedrop_{}', run_name='__main__')\n"
)


class Unfit(Service):
    """A service whose look at uvicorn finds that something is missing."""

    def _spawn(self, settings: Mapping[str, str | int]) -> subprocess.Popen[bytes]:
        assert not settings
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-c", _UNFIT.format(self.name)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


@pytest.fixture
def services(redis_url: str, tmp_path: Path) -> Iterator[tuple[Unfit, Unfit]]:
    """Ingest and deliver."""
    volume_dir = tmp_path / "volume"
    Volume(volume_dir).make_root()
    made = [
        Unfit(name, redis_url, volume_dir, tmp_path / name, claim_lease_seconds=LEASE_SECONDS)
        for name in ("ingest", "deliver")
    ]
    try:
        for service in made:
            service.wait_ready()
        yield made[0], made[1]
    finally:
        for service in made:
            service.stop()


def test_a_file_is_had_once_by_one_claimant_who_may_resume(services: tuple[Unfit, Unfit]) -> None:
    ingest, deliver = services
    for service in services:
        assert "zero_copy_unavailable" in service.logged()
    answer = httpx.put(f"{ingest.url}/x", content=BODY, headers={"Accept": "application/json"})
    assert answer.status_code == 201, answer.text
    link = deliver.url + httpx.URL(answer.json()["url"]).path

    first = httpx.get(link)
    assert (first.status_code, first.content) == (200, BODY)
    second = httpx.get(link)
    assert (second.status_code, second.json()["reason"]) == (410, "claimed")
    # What arrived is not known, so the claim goes on until its lease ends.
    claim = deliver.url + first.headers["content-location"]
    rest = httpx.get(claim, headers={"Range": f"bytes={len(BODY) - 100}-"})
    assert (rest.status_code, rest.content) == (206, BODY[-100:])

    time.sleep(LEASE_SECONDS + 1)
    assert httpx.get(claim).status_code == 410
    assert httpx.get(link).status_code == 410
    assert "request_crashed" not in deliver.logged()
