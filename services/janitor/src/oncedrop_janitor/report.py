"""What a pass found and did, in numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from oncedrop_common.drops import DropId
from oncedrop_common.errors import DependencyError
from oncedrop_common.times import iso_utc
from oncedrop_janitor.plan import Action

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
# A dry run names this many drops; it counts them all.
_MOST_LISTED = 1000
_REMOVALS = (
    "orphan_files",
    "orphan_records",
    "expired",
    "abandoned",
    "leftovers",
    "interrupted",
    "delivered",
)
_REPAIRS = ("rebuilt", "adopted", "restored", "committed", "lapsed")


@dataclass(slots=True)
class Report:
    """One pass. In a dry run the counts say what would be done.

    Attributes:
        name: `sweep` or `due`.
        started_ms: By this machine's clock.
        records: Records looked at, tombstones included; living: those that are not gone.
        files: Files of ours looked at.
        orphan_files: Unlinked because no record can be made of them.
        orphan_records: Became gone(lost): their file is nowhere.
        expired, abandoned: Drops that ended so.
        leftovers: Drops that were gone already and whose files were unlinked now.
        lapsed: Claims closed; of these interrupted and delivered ended their drop.
        rebuilt: Records made again from the volume.
        adopted: Records that became claimed by the hash of their file.
        restored: Files renamed back to blobs/.
        committed: Uploads whose commit was lost.
        kept_by_grace: Things left alone because they are young.
        held_back: Deletions that were not done because the guard objects.
        damaged: Drops whose record, header and size do not agree.
        strangers: What is not of ours, by kind in stranger_kinds; strangers_ignored: `.nfs*`.
        bytes_freed: Of unlinked files, header pages included.
        guard: Why nothing was deleted.
        error: Why the pass ended early.
        actions: A dry run's list.
    """

    name: str
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    duration_seconds: float = 0.0
    dry_run: bool = False
    forced: bool = False
    records: int = 0
    living: int = 0
    files: int = 0
    orphan_files: int = 0
    orphan_records: int = 0
    expired: int = 0
    abandoned: int = 0
    leftovers: int = 0
    interrupted: int = 0
    delivered: int = 0
    lapsed: int = 0
    rebuilt: int = 0
    adopted: int = 0
    restored: int = 0
    committed: int = 0
    kept_by_grace: int = 0
    held_back: int = 0
    damaged: int = 0
    strangers: int = 0
    strangers_ignored: int = 0
    stranger_kinds: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    bytes_freed: int = 0
    guard: str | None = None
    error: str | None = None
    failure: DependencyError | None = None
    actions: list[dict[str, str]] = field(default_factory=list)

    @property
    def scanned(self) -> int:
        """Things looked at, on both sides."""
        return self.records + self.files

    @property
    def removed(self) -> int:
        """Orphans removed and drops that ended."""
        return self._sum(_REMOVALS)

    @property
    def changes(self) -> int:
        """Everything done."""
        return self._sum(_REMOVALS) + self._sum(_REPAIRS)

    def _sum(self, names: tuple[str, ...]) -> int:
        return sum(int(getattr(self, name)) for name in names)

    def count(self, counter: str, by: int = 1) -> None:
        """Add to a counter by its name."""
        setattr(self, counter, getattr(self, counter) + by)

    def plan(self, drop_id: DropId, action: Action) -> None:
        """Note what a dry run would do."""
        self.count(action.counter)
        if len(self.actions) < _MOST_LISTED:
            name = _CAPITAL.sub("_", type(action).__name__).lower()
            self.actions.append({"drop_id": drop_id, "action": name})

    def counts(self) -> dict[str, Any]:
        """What is logged: every number, no list."""
        document = self.document()
        return {k: v for k, v in document.items() if k not in ("pass", "actions", "started_at")}

    def document(self) -> dict[str, Any]:
        """As kept in Redis and shown to operators."""
        document = asdict(self)
        del document["failure"]
        if not self.dry_run:
            del document["actions"]
        return {
            "pass": document.pop("name"),
            "started_at": iso_utc(self.started_ms),
            **document,
            "duration_seconds": round(self.duration_seconds, 3),
            "scanned": self.scanned,
            "removed": self.removed,
        }


def standing_objection(result: Mapping[str, Any]) -> str | None:
    """Why this kept result of a pass forbids deletions until another pass finds otherwise.

    A pass that ended because Redis and volume were no pair says nothing of later: whether they
    are one is known at any time.
    """
    guard = result.get("guard")
    return str(guard) if guard and not result.get("error") else None
