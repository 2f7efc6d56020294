"""Standard output has the result alone; everything else goes to standard error.

What is only for eyes (progress, QR code, the receipt's link) is shown where a terminal is, so that
no secret ends up in the log of a job.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

import segno
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from oncedrop_cli.texts import seen

_QUIET_ZONE = 2
_NAME_CHARACTERS = 40


class Display:
    """Where a command writes.

    Args:
        quiet: Nothing but the result and failures.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def result(self, text: str) -> None:
        """The one line programs read."""
        # Not over rich, which would wrap it.
        sys.stdout.write(_encodable(text, sys.stdout.encoding) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line for people."""
        if not self._quiet:
            self._err.print(seen(text), soft_wrap=True)

    def failure(self, text: str) -> None:
        """Why the command ends."""
        self._err.print(f"oncedrop: {seen(text)}", soft_wrap=True)

    def details(self, lines: list[str], *, qr_of: str) -> None:
        """What only eyes shall see: on standard output, on standard error, or nowhere."""
        if self._quiet:
            return
        if self._out.is_terminal:
            self._qr(qr_of)
        console = self._out if self._out.is_terminal else self._err
        if console.is_terminal:
            for line in lines:
                console.print(seen(line), soft_wrap=True)

    def _qr(self, text: str) -> None:
        drawn = io.StringIO()
        segno.make(text, micro=False).terminal(drawn, compact=True, border=_QUIET_ZONE)
        lines = drawn.getvalue().splitlines()
        if len(lines[0]) > self._out.width or not _can_encode(lines, self._out.encoding):
            return
        for line in lines:
            # Light on dark, whatever the terminal's own colours are: the blocks are what is light.
            self._out.print(Text(line, style="bright_white on black"))

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A bar while the block runs; the function it gives is told how far it is, in bytes.

        Args:
            what: Shown before it.
            total: Bytes in all; None: nobody knows.
        """
        if self._quiet or not self._err.is_terminal:
            yield lambda _done: None
            return
        name = seen(what)
        if len(name) > _NAME_CHARACTERS:
            name = name[: _NAME_CHARACTERS - 1] + "…"
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._err,
            transient=True,
        ) as bar:
            task = bar.add_task(escape(name), total=total)
            yield lambda done: bar.update(task, completed=done)


def _can_encode(lines: list[str], encoding: str) -> bool:
    try:
        "".join(lines).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _encodable(text: str, encoding: str) -> str:
    """The text with what the output cannot hold escaped: a file's name may be any bytes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)
