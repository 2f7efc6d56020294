"""`python -m bench.bare SERVICE [hash] [fsync]`: a service without what makes it safe.

What is named is switched off, to see what it costs. No setting of the product does this: nobody
shall switch it off by mistake.
"""

from __future__ import annotations

import os
import runpy
import sys
from types import SimpleNamespace

from oncedrop_ingest import upload

HASH, FSYNC = "hash", "fsync"


class _NoDigest:
    """Looks like a SHA-256 and looks at nothing."""

    def __init__(self, data: bytes = b"") -> None:
        del data

    def update(self, data: bytes, /) -> None:
        """Do nothing."""

    def hexdigest(self) -> str:
        """As long as one."""
        return "0" * 64


def _no_fsync(_fd: int) -> None:
    pass


def main() -> None:
    """Switch off what the command line names, then be the service."""
    service, *without = sys.argv[1:]
    if HASH in without:
        vars(upload)["hashlib"] = SimpleNamespace(sha256=_NoDigest)
    if FSYNC in without:
        vars(os)["fsync"] = vars(os)["fdatasync"] = _no_fsync
    runpy.run_module(f"oncedrop_{service}", run_name="__main__")


if __name__ == "__main__":
    main()
