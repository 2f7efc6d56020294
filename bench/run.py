"""`make bench`: run the parts that were asked for, print tables, write results and plots."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import machine, plots, tables
from bench.comparing import Bench
from bench.memory import fill_page_cache
from bench.parts import claims, download, latency, size, sweep, upload, workers
from bench.results import RESULTS, Run
from bench.servers import BenchError
from bench.tools import require_tools

ROOT = Path(__file__).parents[1]
PARTS: dict[str, Callable[[Bench], None]] = {
    "download": download.measure,
    "upload": upload.measure,
    "claims": claims.measure,
    "latency": latency.measure,
    "sweep": sweep.measure,
    "size": size.measure,
    "workers": workers.measure,
}
_ROUNDS = 5
_QUICK_ROUNDS = 2


def main() -> int:
    """Run it; Ctrl-C leaves nothing behind."""
    arguments = _arguments()
    # `kill` unwinds as Ctrl-C does, so that servers and files go away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.dir)).absolute()
    try:
        require_tools()
        run = Run(machine.describe(folder), _settings(arguments))
        for part in arguments.parts:
            _measure(part, Bench(folder / part, run, arguments.rounds, arguments.quick))
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 128 + signal.SIGINT
    except BenchError as exc:
        sys.stderr.write(f"bench: {exc}\n")
        return 1
    finally:
        shutil.rmtree(folder)
    print(tables.text(run))
    arguments.out.mkdir(parents=True, exist_ok=True)
    run.save(arguments.out / RESULTS)
    written = [arguments.out / RESULTS, *plots.draw(run, arguments.out)]
    print(f"\nwritten: {', '.join(os.path.relpath(path) for path in written)}")
    return 1 if run.failed else 0


def _measure(part: str, bench: Bench) -> None:
    began = time.monotonic()
    sys.stderr.write(f"{part}\n")
    bench.folder.mkdir()
    if not bench.quick:
        fill_page_cache(bench.folder.parent)
    try:
        PARTS[part](bench)
    except BenchError as exc:
        # The other parts may go well.
        bench.run.failed[part] = str(exc)
        sys.stderr.write(f"{part}: {exc}\n")
    shutil.rmtree(bench.folder)
    sys.stderr.write(f"{part}: {time.monotonic() - began:.0f} s\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all", default=[]
    )
    parser.add_argument(
        "--rounds", type=int, default=int(os.environ.get("ROUNDS") or 0), help=f"({_ROUNDS})"
    )
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: 2.5 minutes")
    parser.add_argument(
        "--dir",
        type=Path,
        default=ROOT / "data",
        help="where to work; needs 26 GiB, better that much more than memory (data)",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build/bench", help="where results go (build/bench)"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    arguments.parts = arguments.parts or list(PARTS)
    arguments.rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    return arguments


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    return {
        "rounds": str(arguments.rounds),
        "size": "quick" if arguments.quick else "full",
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


if __name__ == "__main__":
    sys.exit(main())
