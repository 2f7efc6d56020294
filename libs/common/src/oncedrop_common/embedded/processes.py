"""Start, watch and stop the processes of a stack.

Process types are those of a Procfile, and output looks as with `honcho start`: honcho's parser and
printer do that. Its Manager is not used, because it ends all processes at the same moment and
kills what is left after five seconds, whereas services need valkey until they have cleaned up, and
because processes that it started outlive a killed launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, TextIO

from honcho.colour import get_colours  # type: ignore[import-untyped]
from honcho.environ import parse_procfile  # type: ignore[import-untyped]
from honcho.printer import Message, Printer  # type: ignore[import-untyped]

from oncedrop_common.errors import ConfigurationError

_LONGEST_LINE = 2**20
_PR_SET_PDEATHSIG = 1


def process_types() -> dict[str, list[str]]:
    """Each process type's command, in the Procfile's order."""
    text = resources.files(__package__).joinpath("Procfile.txt").read_text()
    return {name: shlex.split(line) for name, line in parse_procfile(text).processes.items()}


@dataclass(frozen=True)
class Child:
    """A process that was started."""

    name: str
    process: asyncio.subprocess.Process
    output: asyncio.Task[None]

    def how_it_ended(self) -> str:
        """The exit code or the signal, for a person."""
        code = self.process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


class Processes:
    """The processes of one stack.

    Attributes:
        output_gone: Set when nobody reads our output any more.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.output_gone = asyncio.Event()
        self._printer = Printer(sys.stdout, width=max(map(len, names)))
        self._colours = get_colours()
        self._children: list[Child] = []

    async def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], lock: int
    ) -> None:
        """Start a process that Ctrl-C in our terminal does not reach, and that dies with us.

        Args:
            name: Its process type.
            command: Program and arguments; `python` is this interpreter.
            environment: All of its environment.
            lock: A descriptor it inherits, and so holds as long as it lives.

        Raises:
            ConfigurationError: The program cannot be started.
        """
        program, *arguments = command
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable if program == "python" else program,
                *arguments,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LONGEST_LINE,
                # A session of its own: a terminal's Ctrl-C goes to the launcher only, which then
                # stops everything in the right order.
                start_new_session=True,
                pass_fds=(lock,),
                preexec_fn=_die_with_parent(),
            )
        except OSError as exc:
            raise ConfigurationError(f"{name} cannot be started: {exc}") from exc
        colour = next(self._colours)
        self._children.append(
            Child(name, process, asyncio.create_task(self._relay(name, colour, process)))
        )

    async def _relay(self, name: str, colour: str, process: asyncio.subprocess.Process) -> None:
        stdout = process.stdout
        while stdout:
            try:
                line = await stdout.readline()
            except ValueError:  # longer than any line of ours; asyncio has thrown it away
                continue
            if not line:
                break
            with self._readers_may_leave():
                now = datetime.now().astimezone()
                self._printer.write(Message("line", line, now, name, colour))

    def say(self, text: str, file: TextIO | None = None) -> None:
        """Print something of the launcher's own."""
        with self._readers_may_leave():
            print(text, file=file or sys.stdout, flush=True)

    @contextlib.contextmanager
    def _readers_may_leave(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Later lines go nowhere, and no process hangs because its output is not taken.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            self.output_gone.set()

    async def first_end(self) -> Child:
        """Wait until one of the processes has ended."""
        waits = {asyncio.create_task(child.process.wait()): child for child in self._children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return waits[done.pop()]

    async def stop(self, grace_seconds: float, hurry: asyncio.Event, *, last: str) -> None:
        """Stop all processes but one together, and then that one, which they depend on.

        Args:
            grace_seconds: How long each of the two steps may take; what is left is killed.
            hurry: When set, nothing is waited for.
            last: The one that is stopped last, if it is there.
        """
        hurried = asyncio.create_task(hurry.wait())
        for is_last in (False, True):
            step = [child for child in self._children if (child.name == last) is is_last]
            _signal(step, signal.SIGTERM)
            ended = asyncio.gather(*(child.process.wait() for child in step))
            either: set[asyncio.Future[Any]] = {ended, hurried}
            await asyncio.wait(either, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
            _signal(step, signal.SIGKILL)
            await ended
        hurried.cancel()
        # A grandchild may hold the pipe open for longer than its parent lived.
        outputs = [child.output for child in self._children]
        if outputs:
            _, late = await asyncio.wait(outputs, timeout=1)
            for output in late:
                output.cancel()


def _signal(children: Sequence[Child], number: signal.Signals) -> None:
    for child in children:
        if child.process.returncode is None:
            # Each leads a process group, so its own children are reached too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, number)


def _die_with_parent() -> Callable[[], None] | None:
    """What makes a child end when its launcher is killed; Linux can do it, others go without."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, launcher = ctypes.CDLL(None).prctl, os.getpid()

    # Runs between fork and exec, so it does next to nothing.
    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != launcher:
            os._exit(1)

    return in_child
