"""`oncedrop` as people run it: a process of its own, with or without a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Answers = Sequence[tuple[str, str]]
COMMAND = str(Path(sys.executable).with_name("oncedrop"))
_SECONDS = 60
AT_TERMINAL = [
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
]
"""Runs the command that follows at a terminal; a process of its own, for tests have threads."""


def environment(server: str) -> dict[str, str]:
    """Nobody's own settings, and this server."""
    names = {n: v for n, v in os.environ.items() if not n.startswith(("ONCEDROP_", "FORCE_"))}
    return names | {"ONCEDROP_SERVER": server, "TERM": "xterm", "COLUMNS": "100"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """The one line on standard output."""
        text = self.out.decode()
        assert text.count("\n") == 1, self
        return text.rstrip("\n")

    @property
    def document(self) -> dict[str, Any]:
        """The one line on standard output, as JSON."""
        document: dict[str, Any] = json.loads(self.line)
        return document


class CommandLine:
    """Runs it in one folder, for one server."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> Ended:
        """Run it to its end, without a terminal."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=environment(self.server) | dict(env or {}),
            input=stdin,
            capture_output=True,
            # Without a terminal to fall back on, wherever the tests run.
            start_new_session=True,
            timeout=_SECONDS,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in ended.err, ended.err
        return ended

    @contextlib.contextmanager
    def begun(
        self, *arguments: str | Path, stdin: int = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Running while the block does, unless the block ends it before."""
        with subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=environment(self.server),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def at_terminal(self, *arguments: str | Path, answers: Answers = ()) -> tuple[int, str]:
        """Run it at a terminal.

        Args:
            *arguments: Of the command.
            answers: What is typed once this text has appeared, one after the other. Prompts throw
                away what was typed before them.

        Returns:
            Exit code, and all that the terminal showed.
        """
        shown, seen_to, waiting = b"", 0, list(answers)
        with subprocess.Popen(
            [*AT_TERMINAL, COMMAND, *arguments],
            cwd=self.folder,
            env=environment(self.server),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            late = threading.Timer(_SECONDS, process.kill)
            late.start()
            try:
                while chunk := process.stdout.read(65536):
                    shown += chunk
                    if waiting and (at := shown.find(waiting[0][0].encode(), seen_to)) >= 0:
                        seen_to = at + len(waiting[0][0])
                        process.stdin.write(f"{waiting.pop(0)[1]}\n".encode())
            finally:
                late.cancel()
                late.join()
                process.kill()
        return process.returncode, shown.decode(errors="replace")
