"""The programs that the comparison needs and that are not ours."""

from __future__ import annotations

import os
import shutil

from bench.servers import BenchError

# Program -> Debian's package.
_PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "curl": "curl"}
# nginx is in sbin, which is not on every user's PATH.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def tool(name: str) -> str:
    """Where this program is.

    Raises:
        BenchError: It is not installed; names the package.
    """
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise BenchError(f"{name} is missing: apt-get install {_PACKAGES[name]}")
    return found


def require_tools() -> None:
    """Check that all are there.

    Raises:
        BenchError: Some are not; names their packages.
    """
    missing = [
        package for name, package in _PACKAGES.items() if not shutil.which(name, path=SEARCHED)
    ]
    if missing:
        raise BenchError(f"missing programs: apt-get install {' '.join(missing)}")
