"""Two mounts of one network file system: those in NETFS_A and NETFS_B, else of GlusterFS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fleet import Fleet, running_fleet
from support.stack import OwnRedis

_SCRIPT = Path(__file__).parents[3] / "shared" / "netfs" / "with-gluster.sh"
LEASE_SECONDS = 8
SETTINGS: dict[str, str | int] = {
    "claim_lease_seconds": LEASE_SECONDS,
    "upload_lease_seconds": LEASE_SECONDS,
    "grace_seconds": LEASE_SECONDS + 61,
    "due_interval_seconds": 1,
    "sweep_interval_seconds": 3,
    "claim_max_seconds": 3600,
    "leader_lock": 0,
    "log_level": "warning",
    # In a guest with one slow processor even an idle valkey answers late.
    "redis_timeout_seconds": 10,
}


@pytest.fixture(scope="session")
def mounts() -> Iterator[tuple[Path, Path]]:
    """Both mounts, as two hosts have them."""
    if "NETFS_A" in os.environ:
        yield Path(os.environ["NETFS_A"]), Path(os.environ["NETFS_B"])
        return
    if missing := _missing():
        pytest.skip(missing)
    with _gluster() as found:
        yield found


def _missing() -> str | None:
    if not _SCRIPT.exists():
        return "no ../shared/netfs beside the repository"
    if os.environ.get("CI") == "true":
        return None
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        return "mounting needs root and /dev/fuse"
    return None if shutil.which("glusterfsd") else "no glusterfs-server installed"


@contextlib.contextmanager
def _gluster() -> Iterator[tuple[Path, Path]]:
    hold = 'echo "$NETFS_A" "$NETFS_B"; exec cat'
    with subprocess.Popen(
        [str(_SCRIPT), "sh", "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert len(words) == 2, "no mounts"
            yield Path(words[0]), Path(words[1])
        finally:
            # The script unmounts when its command ends.
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def redis() -> Iterator[OwnRedis]:
    """Redis of the fleet."""
    with tempfile.TemporaryDirectory(prefix="oncedrop-") as folder:
        server = OwnRedis(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def fleet(
    mounts: tuple[Path, Path], redis: OwnRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Two of each service: the first on one host, the second on the other."""
    volumes = [mount / "volume" for mount in mounts]
    volumes[0].mkdir()
    # Seen by the other host, whatever it remembers of a folder that was not there.
    os.listdir(mounts[1])
    with running_fleet(
        tmp_path_factory.mktemp("logs"), redis.url, volumes, sizes=(2, 2, 2), **SETTINGS
    ) as fleet:
        yield fleet
