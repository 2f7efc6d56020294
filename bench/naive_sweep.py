"""The sweep that first comes to mind: KEYS, then one look-up each, and the files likewise.

A program of its own: `python -m bench.naive_sweep REDIS_URL VOLUME`; prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import redis

from bench.servers import status_bytes
from oncedrop_common.store.keys import DROP_PREFIX


def main() -> None:
    """Look for records without a file and for files without a record; change nothing."""
    client = redis.Redis.from_url(sys.argv[1])
    blobs = Path(sys.argv[2], "blobs")
    client.ping()
    base = status_bytes(os.getpid(), "VmRSS")
    began = time.monotonic()
    keys: Any = client.keys(f"{DROP_PREFIX}*")
    orphan_records = 0
    for key in keys:
        state = client.hget(key, "state")
        drop_id = key.decode().removeprefix(DROP_PREFIX)
        if state == b"ready" and not (blobs / drop_id[:2] / drop_id).exists():
            orphan_records += 1
    orphan_files = 0
    for folder, _, names in os.walk(blobs):
        for name in names:
            if (Path(folder) / name).stat().st_size and not client.exists(DROP_PREFIX + name):
                orphan_files += 1
    told = {
        "seconds": time.monotonic() - began,
        "above_base_mib": (status_bytes(os.getpid(), "VmHWM") - base) / 2**20,
        "cpu_s": time.process_time(),
        "found": len(keys),
        "orphans": orphan_records + orphan_files,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
