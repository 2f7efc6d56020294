"""Loads lua/*.lua: one script an arrow of the state machine, one result enum each.

The SHA is computed here, once; a server that does not know it (restart, failover, SCRIPT FLUSH)
is sent the source.
"""

from __future__ import annotations

import hashlib
import importlib.resources
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


class Code:
    """Lua for the server.

    Attributes:
        source: As sent to the server.
        sha: SHA-1 of the source, as Redis computes it.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Script(Code, Generic[ResultT]):
    """One arrow's .lua file behind the prelude, with the words it can answer."""

    def __init__(self, name: str, results: type[ResultT]) -> None:
        super().__init__(f"{PRELUDE}\n{(_LUA / f'{name}.lua').read_text()}")
        self.name = name
        self.results = results


# No arrow, and many records at once: without the prelude.
GLANCE = Code((importlib.resources.files(__package__) / "glance.lua").read_text())


READ = Script("read", Read)
OPEN_UPLOAD = Script("open_upload", OpenUpload)
RENEW_UPLOAD = Script("renew_upload", RenewUpload)
ABANDON = Script("abandon", Abandon)
COMMIT = Script("commit", Commit)
CLAIM = Script("claim", ClaimResult)
RELEASE = Script("release", Release)
RENEW_CLAIM = Script("renew_claim", RenewClaim)
DELIVER = Script("deliver", Deliver)
LAPSE = Script("lapse", Lapse)
RESTORE = Script("restore", Restore)
ADOPT = Script("adopt", Adopt)
EXPIRE = Script("expire", Expire)
DELETE = Script("delete", Delete)
TRY_PASSWORD = Script("try_password", TryPassword)
LOSE = Script("lose", Lose)
REBUILD = Script("rebuild", Rebuild)
