"""Places where the fault suite lets a process die.

`ONCEDROP_CRASH_AT=<name>` ends the process, as `kill -9` would, the first time it comes to the
crash point of that name; `<name>:3` the third time. Unset, a crash point costs a comparison.
docs/faults.md tells what is left at each, and what becomes of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

# As a shell tells a process that was ended by SIGKILL (128 + 9).
EXIT_CODE = 137


class CrashPoint(StrEnum):
    """Every crash point, in the order of docs/architecture.md's sequences."""

    # ingest: an upload, and what a failed one undoes.
    UPLOAD_BEFORE_OPEN = "upload.before_open"
    UPLOAD_AFTER_OPEN = "upload.after_open"
    UPLOAD_AFTER_PART = "upload.after_part"
    UPLOAD_IN_BODY = "upload.in_body"
    UPLOAD_AFTER_ZIP_PREFIX = "upload.after_zip_prefix"
    UPLOAD_BEFORE_HEADER = "upload.before_header"
    UPLOAD_AFTER_HEADER = "upload.after_header"
    UPLOAD_AFTER_FSYNC = "upload.after_fsync"
    UPLOAD_AFTER_RENAME = "upload.after_rename"
    UPLOAD_BETWEEN_FOLDER_FSYNCS = "upload.between_folder_fsyncs"
    UPLOAD_AFTER_FOLDER_FSYNCS = "upload.after_folder_fsyncs"
    UPLOAD_BEFORE_COMMIT = "upload.before_commit"
    UPLOAD_AFTER_COMMIT = "upload.after_commit"
    UPLOAD_BEFORE_ANSWER = "upload.before_answer"
    UNDO_BEFORE_UNLINK = "undo.before_unlink"
    UNDO_AFTER_UNLINK = "undo.after_unlink"
    UNDO_AFTER_ABANDON = "undo.after_abandon"

    # deliver: a claim.
    CLAIM_BEFORE_CLAIM = "claim.before_claim"
    CLAIM_AFTER_CLAIM = "claim.after_claim"
    CLAIM_BEFORE_REDIRECT = "claim.before_redirect"
    CLAIM_BEFORE_REBUILD = "claim.before_rebuild"
    CLAIM_AFTER_REBUILD = "claim.after_rebuild"
    CLAIM_BEFORE_COMMIT = "claim.before_commit"
    CLAIM_AFTER_COMMIT = "claim.after_commit"
    CLAIM_BEFORE_RENAME = "claim.before_rename"
    CLAIM_AFTER_RENAME = "claim.after_rename"
    CLAIM_AFTER_OPEN = "claim.after_open"
    CLAIM_AFTER_FSYNC = "claim.after_fsync"
    CLAIM_BEFORE_ADOPT = "claim.before_adopt"
    CLAIM_AFTER_ADOPT = "claim.after_adopt"
    RELEASE_BEFORE_RELEASE = "release.before_release"
    RELEASE_AFTER_RELEASE = "release.after_release"
    RESTORE_AFTER_RENAME_BACK = "restore.after_rename_back"
    RESTORE_AFTER_RESTORE = "restore.after_restore"
    LOCK_BEFORE_UNLINK = "lock.before_unlink"
    LOCK_AFTER_UNLINK = "lock.after_unlink"

    # deliver: serving, and the end of it.
    SERVE_BEFORE_HEAD = "serve.before_head"
    SERVE_AFTER_HEAD = "serve.after_head"
    SERVE_AFTER_STEP = "serve.after_step"
    SERVE_AFTER_RENEW = "serve.after_renew"
    SERVE_AFTER_REMEMBER = "serve.after_remember"
    SERVE_AFTER_LAST_BYTE = "serve.after_last_byte"
    SERVE_AFTER_LAST_ACK = "serve.after_last_ack"
    DELIVER_BEFORE_DELIVER = "deliver.before_deliver"
    DELIVER_AFTER_DELIVER = "deliver.after_deliver"
    DELIVER_IN_LINGER = "deliver.in_linger"
    DELIVER_AFTER_LINGER = "deliver.after_linger"
    DELIVER_AFTER_LAPSE = "deliver.after_lapse"
    DELIVER_BEFORE_UNLINK = "deliver.before_unlink"
    DELIVER_AFTER_UNLINK = "deliver.after_unlink"

    # ingest and janitor: the owner or the operator deletes.
    DELETE_BEFORE_DELETE = "delete.before_delete"
    DELETE_BEFORE_UNLINK = "delete.before_unlink"
    DELETE_AFTER_UNLINK = "delete.after_unlink"

    # janitor: a sweep, and what it applies; a due pass applies the same.
    SWEEP_BEFORE_SCAN = "sweep.before_scan"
    SWEEP_AFTER_DUE_INDEX = "sweep.after_due_index"
    SWEEP_AFTER_SHARD = "sweep.after_shard"
    SWEEP_AFTER_PLAN = "sweep.after_plan"
    SWEEP_AFTER_DELETIONS = "sweep.after_deletions"
    SWEEP_AFTER_USAGE = "sweep.after_usage"
    APPLY_BEFORE_REBUILD = "apply.before_rebuild"
    APPLY_AFTER_REBUILD = "apply.after_rebuild"
    APPLY_BEFORE_ADOPT = "apply.before_adopt"
    APPLY_AFTER_ADOPT = "apply.after_adopt"
    APPLY_BEFORE_COMMIT = "apply.before_commit"
    APPLY_AFTER_COMMIT = "apply.after_commit"
    APPLY_BEFORE_GIVE_BACK = "apply.before_give_back"
    APPLY_AFTER_GIVE_BACK = "apply.after_give_back"
    APPLY_AFTER_RESTORE = "apply.after_restore"
    APPLY_BEFORE_LAPSE = "apply.before_lapse"
    APPLY_AFTER_LAPSE = "apply.after_lapse"
    APPLY_BEFORE_EXPIRE = "apply.before_expire"
    APPLY_AFTER_EXPIRE = "apply.after_expire"
    APPLY_BEFORE_ABANDON = "apply.before_abandon"
    APPLY_AFTER_ABANDON = "apply.after_abandon"
    APPLY_BEFORE_ORPHAN_UNLINK = "apply.before_orphan_unlink"
    APPLY_AFTER_ORPHAN_UNLINK = "apply.after_orphan_unlink"
    APPLY_BEFORE_LOSE = "apply.before_lose"
    APPLY_AFTER_LOSE = "apply.after_lose"
    APPLY_BEFORE_UNLINK = "apply.before_unlink"
    APPLY_AFTER_UNLINK = "apply.after_unlink"

    def reached(self) -> None:
        """Die here, if that is what the process was started for."""
        if _armed is not None and _armed.point is self:
            _armed.count_down()


@dataclass(slots=True)
class CrashAt:
    """Where and when to die.

    Attributes:
        left: How many times more the point is passed before it kills.
    """

    point: CrashPoint
    left: int = 0

    @classmethod
    def parse(cls, text: str) -> CrashAt:
        """`<name>` or `<name>:<which time>`.

        Raises:
            ValueError: There is no such crash point; names those that there are.
        """
        name, _, count = text.partition(":")
        if name not in set(CrashPoint):
            raise ValueError(f"must be one of {', '.join(CrashPoint)}")
        if count and not (count.isascii() and count.isdigit() and int(count) > 0):
            raise ValueError("must be a crash point, then a colon and a number from 1 on")
        return cls(CrashPoint(name), int(count or 1) - 1)

    def count_down(self) -> None:
        """Pass it, or end the process without any clean-up."""
        if self.left > 0:
            self.left -= 1
            return
        os.write(2, f"crash point reached: {self.point}\n".encode())
        os._exit(EXIT_CODE)


_armed: CrashAt | None = None


def arm(crash_at: CrashAt | None) -> None:
    """Choose the crash point of this process; None: none."""
    global _armed  # noqa: PLW0603  a process dies once
    _armed = crash_at
