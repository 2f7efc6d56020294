"""What a run ran on, as far as it can be seen from here."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.tools import tool
from oncedrop_common.embedded.valkey import find_server

_PROBE_MIB = 512


def describe(folder: Path) -> dict[str, str]:
    """Property to value; measures the disk and SHA-256 for a few seconds.

    Args:
        folder: On the file system that is used.
    """
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "write and fsync": f"{_disk_mib_per_s(folder):.0f} MiB/s",
        "SHA-256, one core": f"{_sha256_mib_per_s():.0f} MiB/s",
        "Python": platform.python_version(),
        "uvicorn": version("uvicorn"),
        "nginx": _told([tool("nginx"), "-v"], r"nginx/(\S+)"),
        "valkey": _told([find_server(), "--version"], r"v=(\S+)"),
        "curl": _told([tool("curl"), "--version"], r"curl (\S+)"),
        "wrk": _told([tool("wrk"), "-v"], r"wrk (\S+)"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _file_system(folder: Path) -> str:
    parts = [p for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)]
    return max(parts, key=lambda p: len(p.mountpoint)).fstype if parts else "unknown"


def _disk_mib_per_s(folder: Path) -> float:
    path = folder / "disk-probe"
    block = os.urandom(2**20)
    began = time.monotonic()
    with path.open("wb") as file:
        for _ in range(_PROBE_MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.monotonic() - began
    path.unlink()
    return _PROBE_MIB / seconds


def _sha256_mib_per_s() -> float:
    digest, block = hashlib.sha256(), bytes(2**20)
    began = time.monotonic()
    for _ in range(_PROBE_MIB):
        digest.update(block)
    return _PROBE_MIB / (time.monotonic() - began)


def _told(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"
