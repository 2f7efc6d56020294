"""Programs that some tests need beside Python."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(program: str) -> None:
    """Skip on a machine without it; CI has all of them, so that there its test fails."""
    if shutil.which(program) is None and os.environ.get("CI") != "true":
        pytest.skip(f"there is no {program} here")
