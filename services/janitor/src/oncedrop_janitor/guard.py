"""The guard: a pass that would delete far too much deletes nothing.

A wrong, emptied or half mounted volume, or a Redis that came back from an old copy, looks like
many orphans at once. What counts is a deletion that a mismatch asks for; drops that expire
together, lapse, or are gone already say nothing about the pair, and never stop a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

# Below this many things a share means nothing.
_FEW = 100
_REMEDY = "nothing is deleted until POST /sweep?force=1, or until they agree again."


@dataclass(slots=True)
class Tally:
    """What a pass has seen, and what of it is to be deleted for a mismatch.

    Attributes:
        files: Files of ours in the volume.
        orphan_files: Those without a record.
        records: Records of drops that are not gone.
        orphan_records: Those without a file.
    """

    files: int = 0
    orphan_files: int = 0
    records: int = 0
    orphan_records: int = 0

    def objection(self, max_fraction: float) -> str | None:
        """Why nothing may be deleted; None: go ahead.

        Args:
            max_fraction: The share of the files, or of the records, that may be deleted.
        """
        if _too_many(self.orphan_files, self.files, max_fraction):
            return f"{self.orphan_files} of {self.files} files have no record: {_REMEDY}"
        if _too_many(self.orphan_records, self.records, max_fraction):
            return f"{self.orphan_records} of {self.records} records have no file: {_REMEDY}"
        return None


def _too_many(orphans: int, things: int, max_fraction: float) -> bool:
    # Things can vanish between two counts; then there are at least as many as orphans.
    things = max(things, orphans)
    return things > _FEW and orphans > things * max_fraction
