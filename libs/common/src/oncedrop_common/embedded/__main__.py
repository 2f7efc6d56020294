"""Start the stack, and say in one line why not when it cannot start."""

from __future__ import annotations

import asyncio
import sys

from oncedrop_common.embedded.stack import run_stack
from oncedrop_common.errors import OncedropError
from oncedrop_common.settings import load_settings


def main() -> int:
    """Run until Ctrl-C.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 when a process ended by itself, 2 when the
        stack could not start.
    """
    try:
        return asyncio.run(run_stack(load_settings()))
    except OncedropError as exc:
        print(f"oncedrop: {exc.detail}", file=sys.stderr)  # noqa: T201 - the operator's answer
        return 2
    except KeyboardInterrupt:  # before anything was started
        return 0


if __name__ == "__main__":
    sys.exit(main())
