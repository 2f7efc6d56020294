"""Loads lua/*.lua: one script an arrow of the state machine, one result enum each.

The SHA is computed here, once; a server that does not know it (restart, failover, SCRIPT FLUSH)
is sent the source.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

_LUA = importlib.resources.files(__package__) / "lua"
PRELUDE = (_LUA / "prelude.lua").read_text()

ResultT = TypeVar("ResultT", bound=StrEnum)


class Read(StrEnum):
    """What read answers."""

    FOUND = "FOUND"
    UNKNOWN = "UNKNOWN"


class OpenUpload(StrEnum):
    """What open_upload answers."""

    OPENED = "OPENED"
    EXISTS = "EXISTS"


class RenewUpload(StrEnum):
    """What renew_upload answers."""

    RENEWED = "RENEWED"
    COMMITTED = "COMMITTED"
    GONE = "GONE"


class Abandon(StrEnum):
    """What abandon answers."""

    ABANDONED = "ABANDONED"
    LIVE = "LIVE"
    COMMITTED = "COMMITTED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Commit(StrEnum):
    """What commit answers."""

    COMMITTED = "COMMITTED"
    GONE = "GONE"


class ClaimResult(StrEnum):
    """What claim answers."""

    CLAIMED = "CLAIMED"
    YOURS = "YOURS"
    CLOSED = "CLOSED"
    TAKEN = "TAKEN"
    EXPIRED = "EXPIRED"
    PASSWORD = "PASSWORD"  # noqa: S105 - a result word
    CONFIRM = "CONFIRM"
    UPLOADING = "UPLOADING"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Release(StrEnum):
    """What release answers."""

    RELEASED = "RELEASED"
    SHARED = "SHARED"
    CLOSED = "CLOSED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class RenewClaim(StrEnum):
    """What renew_claim answers."""

    RENEWED = "RENEWED"
    CLOSED = "CLOSED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Deliver(StrEnum):
    """What deliver answers."""

    DELIVERED = "DELIVERED"
    COUNTED = "COUNTED"
    LINGERING = "LINGERING"
    PARTIAL = "PARTIAL"
    CLOSED = "CLOSED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Lapse(StrEnum):
    """What lapse answers."""

    READY = "READY"
    RESTORE = "RESTORE"
    INTERRUPTED = "INTERRUPTED"
    COUNTED = "COUNTED"
    DELIVERED = "DELIVERED"
    LIVE = "LIVE"
    CHANGED = "CHANGED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Restore(StrEnum):
    """What restore answers."""

    READY = "READY"
    CHANGED = "CHANGED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Adopt(StrEnum):
    """What adopt answers."""

    ADOPTED = "ADOPTED"
    YOURS = "YOURS"
    LAPSED = "LAPSED"
    CHANGED = "CHANGED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Expire(StrEnum):
    """What expire answers."""

    EXPIRED = "EXPIRED"
    FINISHING = "FINISHING"
    LIVE = "LIVE"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Delete(StrEnum):
    """What delete answers."""

    DELETED = "DELETED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class TryPassword(StrEnum):
    """What try_password answers."""

    TRY = "TRY"
    WAIT = "WAIT"
    RIGHT = "RIGHT"
    WRONG = "WRONG"
    LOCKED = "LOCKED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Lose(StrEnum):
    """What lose answers."""

    LOST = "LOST"
    CHANGED = "CHANGED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"


class Rebuild(StrEnum):
    """What rebuild answers."""

    REBUILT = "REBUILT"
    EXPIRED = "EXPIRED"
    EXISTS = "EXISTS"


@dataclass(frozen=True)
class Script(Generic[ResultT]):
    """One .lua file with the words it can answer.

    Attributes:
        source: Prelude and file, as sent to the server.
        sha: SHA-1 of the source, as Redis computes it.
    """

    name: str
    results: type[ResultT]
    source: str
    sha: str


def _load(name: str, results: type[ResultT]) -> Script[ResultT]:
    source = f"{PRELUDE}\n{(_LUA / f'{name}.lua').read_text()}"
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, results, source, sha)


READ = _load("read", Read)
OPEN_UPLOAD = _load("open_upload", OpenUpload)
RENEW_UPLOAD = _load("renew_upload", RenewUpload)
ABANDON = _load("abandon", Abandon)
COMMIT = _load("commit", Commit)
CLAIM = _load("claim", ClaimResult)
RELEASE = _load("release", Release)
RENEW_CLAIM = _load("renew_claim", RenewClaim)
DELIVER = _load("deliver", Deliver)
LAPSE = _load("lapse", Lapse)
RESTORE = _load("restore", Restore)
ADOPT = _load("adopt", Adopt)
EXPIRE = _load("expire", Expire)
DELETE = _load("delete", Delete)
TRY_PASSWORD = _load("try_password", TryPassword)
LOSE = _load("lose", Lose)
REBUILD = _load("rebuild", Rebuild)
