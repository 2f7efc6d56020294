"""What ends a command early: a sentence for people and an exit code for programs.

Failure
├── LocalFailure      1  this machine: a file, the disk, a terminal
├── UsageFailure      2  the command is not understood
├── LinkNotFound      3  there is no such link
├── DropGone          4  there was one: used, being taken, expired, deleted or locked
├── Refused           5  the server will not: token, password, size, option, held by another
├── Unavailable       6  nobody answers, or not as oncedrop does; later may be better
└── ChecksumWrong     7  the bytes are not those that were sent
"""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED = 130
"""Ended by Ctrl-C: 128 + SIGINT, as shells count."""


class Failure(Exception):
    """One sentence on standard error; never holds a secret."""

    code: ClassVar[int] = 1


class LocalFailure(Failure):
    """Something on this machine is in the way."""


class UsageFailure(Failure):
    """The command is not understood."""

    code = 2


class LinkNotFound(Failure):
    """There is no such link, or nobody remembers it."""

    code = 3


class DropGone(Failure):
    """The link is used up, being used, or was ended."""

    code = 4


class Refused(Failure):
    """The server will not do it, and would not a second time.

    Attributes:
        slug: The problem's name, the last part of its `type`; empty when there is none.
    """

    code = 5

    def __init__(self, message: str, slug: str = "") -> None:
        super().__init__(message)
        self.slug = slug


class Unavailable(Failure):
    """Nobody answers, the line broke, or the server is in trouble.

    Attributes:
        retry_after_seconds: When to try again, as the server has it; None: it did not say.
    """

    code = 6

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ChecksumWrong(Failure):
    """What arrived is not what was sent."""

    code = 7
