"""How many connections a process has, and who gives way when there is no room for another."""

from __future__ import annotations

import resource
import time

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MOST = 4096
# A connection's socket, its duplicate and a file; and what the process has besides.
_FILES_EACH = 3
_FILES_BESIDES = 128
_FILES_WANTED = 65_536
_TELL_SECONDS = 10.0

log = structlog.get_logger()


def raise_open_files() -> int:
    """Let this process open as many files as it may (many systems begin with 1024).

    Returns:
        How many that are.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _FILES_WANTED if soft == resource.RLIM_INFINITY else soft


class Connections:
    """All connections of one process.

    Args:
        open_files: How many files the process may have open.
        head_seconds: How long each may take for a request's head.
    """

    def __init__(self, open_files: int, head_seconds: float) -> None:
        self.most = max(1, min(CONNECTIONS_MOST, (open_files - _FILES_BESIDES) // _FILES_EACH))
        self.head_seconds = head_seconds
        self._open: set[HttpToolsProtocol] = set()
        # Kept in order: who has waited longest comes first.
        self._waiting: dict[HttpToolsProtocol, None] = {}
        self._told = -_TELL_SECONDS

    def add(self, newcomer: HttpToolsProtocol) -> bool:
        """Whether there is room for it, after somebody who only waits has given way."""
        if len(self._open) >= self.most:
            self._tell()
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            self.remove(oldest)
            oldest.transport.abort()
        self._open.add(newcomer)
        return True

    def remove(self, one: HttpToolsProtocol) -> None:
        """It has ended."""
        self._open.discard(one)
        self._waiting.pop(one, None)

    def waits(self, one: HttpToolsProtocol) -> None:
        """It has no request, and may have to give way."""
        if one in self._open:
            self._waiting.setdefault(one)

    def works(self, one: HttpToolsProtocol) -> None:
        """It has a request."""
        self._waiting.pop(one, None)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            log.warning("connections_full", connections=len(self._open))
