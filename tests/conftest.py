"""Fixtures and checks for every test; the heavier ones only where a test asks for them."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from oncedrop_common import tokens
from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support import long_form
from support.valkey import admin, image_from_environment, leaks, make_store, running_redis

_IMAGE = image_from_environment()
for _name in [name for name in os.environ if name.startswith("ONCEDROP_")]:
    # A developer's own settings are none of a test's business.
    del os.environ[_name]

# HYPOTHESIS_PROFILE=thorough looks longer; timing is never a failure, the machine may be busy.
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_TO_END_SECONDS = 5.0


def pytest_report_header() -> str:
    """What repeats the dice of the fault tests."""
    form = "long form" if long_form.LONG else "short form (make faults LONG=1 looks longer)"
    return f"faults: {form}, SEED={long_form.SEED} repeats it"


@pytest.fixture(autouse=True)
def minted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every secret that this process mints during the test."""
    texts: list[str] = []

    def remembering(count: int) -> bytes:
        random = secrets.token_bytes(count)
        texts.append(base64.urlsafe_b64encode(random).rstrip(b"=").decode())
        return random

    # Not tokens.mint itself: other modules have it under a name of their own.
    monkeypatch.setattr(tokens, "secrets", SimpleNamespace(token_bytes=remembering))
    return texts


@pytest.fixture(autouse=True)
def _nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No thread, process or open file of the test outlives it."""
    threads, children = set(threading.enumerate()), _children()
    folder = str(tmp_path_factory.getbasetemp())
    files = _open_files(folder)
    yield
    deadline = time.monotonic() + _TO_END_SECONDS
    while left := _left(threads, children, folder, files):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {', '.join(left)}")
        time.sleep(0.01)


def _left(
    threads: set[threading.Thread], children: set[str], folder: str, files: set[str]
) -> list[str]:
    return [
        *(f"thread {t.name}" for t in threading.enumerate() if t not in threads and not t.daemon),
        *(f"process {pid}" for pid in _children() - children),
        *(f"open file {path}" for path in _open_files(folder) - files),
    ]


def _children() -> set[str]:
    pids: set[str] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            # A thread may end while we look.
            with contextlib.suppress(OSError):
                pids.update((task / "children").read_text().split())
    return pids


def _open_files(folder: str) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = str(Path(f"/proc/self/fd/{fd}").readlink())
                if target.startswith(folder):
                    found.add(f"{fd} {target}")
    return found


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of the session's Redis; most tests want redis_url."""
    with running_redis(_IMAGE) as url:
        yield url


@pytest.fixture(scope="module")
def module_redis_url(redis_server: str) -> str:
    """URL of the session's Redis, empty when a module's process starts.

    The process of the module before may have paired it with its own volume after its last test.
    """
    with admin(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def redis_url(redis_server: str, minted: list[str]) -> Iterator[str]:
    """URL of an empty Redis; afterwards what the test left in it is checked."""
    with admin(redis_server) as client:
        client.flushall()
        client.script_flush()
        yield redis_server
        problems = leaks(client, minted)
        client.flushall()
    assert not problems, problems


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[DropStore]:
    """The records' API on an empty Redis."""
    store = make_store(redis_url)
    yield store
    await store.close()


@pytest.fixture
async def volume(store: DropStore, tmp_path: Path) -> Volume:
    """An empty volume, paired with the store."""
    volume = Volume(tmp_path / "volume")
    volume.make_root()
    await Pairing(store, volume, ephemeral=False).check()
    return volume
