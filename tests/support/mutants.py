"""Faults put into the product on purpose: each must make the tests named beside it fail.

`make mutants` copies the tree, sees that the named tests pass in it, and then, for one mutant after
another, that each of its tests fails. docs/faults.md has the table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from support import fault_docs

ROOT = Path(__file__).parents[2]
_PACKAGES = ("libs/common", "services/ingest", "services/deliver", "services/janitor")
_ENOUGH = ("libs", "services", "tests", "deploy", "docs", "pyproject.toml", "README.md", "Makefile")
_MOST_SECONDS = 400

_COMMON = "libs/common/src/oncedrop_common"
_LUA = f"{_COMMON}/store/lua"
_DELIVER = "services/deliver/src/oncedrop_deliver"
_INGEST = "services/ingest/src/oncedrop_ingest"
_JANITOR = "services/janitor/src/oncedrop_janitor"


@dataclass(frozen=True)
class Edit:
    """A piece of text in a file of the product, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A product that is wrong in one way.

    Attributes:
        name: What is wrong.
        edits: How it is made so.
        caught_by: Tests, each of which must fail.
    """

    name: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


_ONCE = "tests/e2e/test_once.py::test_"
_SCRIPTS = "tests/integration/test_scripts.py::test_"
_VOLUME = "tests/integration/test_volume.py::test_"
_JANITOR_TESTS = "tests/integration/test_janitor.py::test_"
_STACK = "tests/faults/test_stack_faults.py::test_"
_GUARD = "tests/faults/test_guard_faults.py::test_"
_DELIVER_DIES = "tests/faults/test_deliver_dies.py::test_deliver_dies"
_INGEST_DIES = "tests/faults/test_ingest_dies.py::test_ingest_dies"
_CUT = "tests/faults/test_durability.py::test_"

MUTANTS = (
    Mutant(
        "a claim takes the record away, as GETDEL does",
        (
            Edit(
                f"{_LUA}/claim.lua",
                "changed()\nreturn answer('CLAIMED')",
                "changed()\nlocal given = answer('CLAIMED')\n"
                "redis.call('DEL', record)\nreturn given",
            ),
        ),
        (
            f"{_SCRIPTS}a_claim_that_100_requests_repeat_is_theirs_once",
            f"{_SCRIPTS}claim_has_one_winner_among_100_visitors",
        ),
    ),
    Mutant(
        "a claim does not look at the state",
        (
            Edit(
                f"{_LUA}/claim.lua",
                "if ARGV[4] == '1' or state == 'claimed' or number('downloads_left') <= 0 then",
                "if ARGV[4] == '1' then",
            ),
        ),
        (
            f"{_SCRIPTS}claim_has_one_winner_among_100_visitors",
            f"{_ONCE}three_downloads_are_three_and_the_file_goes_with_the_last",
        ),
    ),
    Mutant(
        "no rename: the file is served where it lies",
        (
            Edit(
                f"{_DELIVER}/claiming.py",
                "moved = self._volume.take(drop_id, mine)",
                "moved = False",
            ),
            Edit(
                f"{_DELIVER}/claiming.py",
                "blob = self._volume.open_claimed(drop_id, mine)",
                "blob = self._volume.open_blob(drop_id)",
            ),
            Edit(f"{_DELIVER}/delivery.py", "        if held.single:\n", "        if False:\n"),
        ),
        (
            f"{_STACK}redis_wiped_every_unclaimed_link_still_works_and_no_claimed_one_does",
            f"{_CUT}who_took_a_file_is_the_only_one_also_after_a_cut",
        ),
    ),
    Mutant(
        "no fsync of `claimed/`",
        (Edit(f"{_DELIVER}/claiming.py", "self._volume.sync_claimed()", "pass"),),
        (
            f"{_CUT}a_byte_of_a_file_is_sent_when_its_taking_is_on_the_disk",
            f"{_CUT}who_took_a_file_is_the_only_one_also_after_a_cut",
        ),
    ),
    Mutant(
        "`release` left out",
        (
            Edit(
                f"{_DELIVER}/claiming.py",
                "            await self._release(drop_id, mine, request_id)",
                "            pass",
            ),
        ),
        (
            f"{_ONCE}a_damaged_blob_is_never_served_and_not_used_up",
            f"{_CUT}a_claim_that_was_undone_uses_nothing_up_also_after_a_cut",
        ),
    ),
    Mutant(
        "files are looked for in the wrong order",
        (
            Edit(
                f"{_COMMON}/volume/layout.py",
                "            found.extend(self._look(Place.INCOMING, self._part_path(drop_id),"
                " drop_id))\n            found.extend(self._look_in_blobs(drop_id))\n",
                "            found.extend(self._look_in_blobs(drop_id))\n"
                "            found.extend(self._look(Place.INCOMING, self._part_path(drop_id),"
                " drop_id))\n",
            ),
        ),
        (
            f"{_VOLUME}find_sees_every_place_in_the_order_in_which_files_move",
            f"{_VOLUME}unlink_goes_in_the_order_in_which_files_move",
        ),
    ),
    Mutant(
        "grace 0",
        (Edit(f"{_JANITOR}/passes.py", "grace_ms=settings.grace_seconds * 1000,", "grace_ms=0,"),),
        (
            f"{_JANITOR_TESTS}a_part_without_record_is_unlinked_after_grace",
            f"{_JANITOR_TESTS}a_record_without_file_is_lost_after_grace",
        ),
    ),
    Mutant(
        "deletion in a background task: when the response ends, however it ended",
        (
            Edit(
                f"{_DELIVER}/delivery.py",
                "held.drop_id, held.claim_hash, progress.intervals\n            )\n"
                '            self._metrics.arrow("deliver", result)',
                "held.drop_id, held.claim_hash, [(0, held.meta.size)]\n            )\n"
                '            self._metrics.arrow("deliver", result)',
            ),
        ),
        (
            f"{_ONCE}the_claimant_resumes_over_the_claim_url",
            f"{_ONCE}a_cut_wget_finishes_by_itself",
        ),
    ),
    Mutant(
        "acknowledgements ignored: what the kernel took is delivered",
        (
            Edit(
                f"{_DELIVER}/delivery.py",
                "return min(max(self._arrived, 0), self.handed_over)",
                "self._arrived = self.handed_over\n        return self.handed_over",
            ),
        ),
        (f"{_ONCE}what_the_servers_kernel_took_is_not_delivered",),
    ),
    Mutant(
        "commit before fsync",
        (
            Edit(
                f"{_INGEST}/upload.py",
                "await finished(self._volume.commit_part, self._open_part, header)",
                "await self._store.commit(self.drop_id, meta)\n"
                "        await finished(self._volume.commit_part, self._open_part, header)",
            ),
        ),
        (f"{_CUT}an_upload_is_answered_when_file_and_folders_are_on_the_disk",),
    ),
    Mutant(
        "no fsync of the file",
        (Edit(f"{_COMMON}/volume/layout.py", "            os.fsync(part.fd)\n", ""),),
        (
            f"{_CUT}an_upload_is_answered_when_file_and_folders_are_on_the_disk",
            f"{_CUT}what_was_answered_201_outlives_a_cut",
        ),
    ),
    Mutant(
        "no fsync of the folders",
        (
            Edit(
                f"{_COMMON}/volume/layout.py",
                "            fsync_folder(self._shard_path(part.drop_id))\n            CrashPoint",
                "            CrashPoint",
            ),
            Edit(
                f"{_COMMON}/volume/layout.py",
                "            fsync_folder(self._incoming)\n            CrashPoint",
                "            CrashPoint",
            ),
        ),
        (
            f"{_CUT}an_upload_is_answered_when_file_and_folders_are_on_the_disk",
            f"{_CUT}what_was_answered_201_outlives_a_cut",
        ),
    ),
    Mutant(
        "a deletion is answered before it is on the disk",
        (Edit(f"{_COMMON}/deletion.py", "            volume.sync_unlinked(drop_id)\n", ""),),
        (f"{_CUT}a_deletion_that_was_answered_outlives_a_cut",),
    ),
    Mutant(
        "a file is given back, and its folder not synced",
        (
            Edit(
                f"{_COMMON}/volume/layout.py",
                "            fsync_folder(self._shard_path(drop_id))\n        return True\n",
                "            pass\n        return True\n",
            ),
        ),
        (
            f"{_CUT}a_claim_that_was_undone_uses_nothing_up_also_after_a_cut",
            f"{_CUT}an_interrupted_file_that_was_given_back_outlives_a_cut",
        ),
    ),
    Mutant(
        "the record of a gone drop is deleted, not kept as a tombstone",
        (
            Edit(
                f"{_LUA}/prelude.lua",
                "  set('state', 'gone', 'reason', reason, 'gone_ms', whole(now))\n  changed()\n",
                "  redis.call('DEL', record)\n",
            ),
        ),
        (
            f"{_ONCE}the_second_visitor_gets_410_with_reason_and_time",
            f"{_JANITOR_TESTS}the_file_of_a_gone_drop_is_unlinked_at_once",
        ),
    ),
    Mutant(
        "a sweep leaves the file of a gone drop",
        (
            Edit(
                f"{_JANITOR}/plan.py",
                "action = UnlinkGone() if look.files else Keep(Why.NOTHING)",
                "action = Keep(Why.NOTHING)",
            ),
        ),
        (f"{_DELIVER_DIES}[deliver.after_deliver-download]",),
    ),
    Mutant(
        "a claim that lapses before its rename uses the drop up",
        (Edit(f"{_LUA}/lapse.lua", "if single and ARGV[3] == 'blobs' then", "if false then"),),
        (f"{_DELIVER_DIES}[claim.after_claim-download]",),
    ),
    Mutant(
        "a blob whose commit was lost is not committed",
        (
            Edit(
                f"{_JANITOR}/plan.py",
                "        return Commit(meta)\n",
                "        return Keep(Why.UPLOADING)\n",
            ),
        ),
        (f"{_INGEST_DIES}[upload.before_commit-put]",),
    ),
    Mutant(
        "the lease is not checked before each step",
        (Edit(f"{_DELIVER}/delivery.py", '"permit": held.alive,', '"permit": lambda: True,'),),
        (f"{_STACK}a_server_stopped_past_its_lease_hands_nothing_further_over",),
    ),
    Mutant(
        "no guard",
        (
            Edit(
                f"{_JANITOR}/passes.py",
                "objection = run.tally.objection(self._settings.sweep_max_fraction)",
                "objection = None",
            ),
        ),
        (
            f"{_JANITOR_TESTS}when_most_files_are_gone_nothing_is_deleted_until_force",
            f"{_GUARD}more_than_half_of_the_files_removed_by_hand_nothing_is_lost_until_the_remedy",
        ),
    ),
    Mutant(
        "a sweep acts on what it saw, without a second look",
        (
            Edit(
                f"{_JANITOR}/passes.py",
                "elif action.deletes and not run.deleting:",
                "elif action.deletes and not run.deleting and run.report.dry_run:",
            ),
        ),
        (f"{_JANITOR_TESTS}when_most_files_are_gone_nothing_is_deleted_until_force",),
    ),
)


def mutant_table() -> str:
    """What docs/faults.md says of mutants."""
    rows = ["| what is wrong | tests that fail |", "| --- | --- |"]
    for mutant in MUTANTS:
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in mutant.caught_by)
        rows.append(f"| {mutant.name} | {tests} |")
    return "\n".join(rows)


def _copy(folder: Path) -> None:
    for name in _ENOUGH:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def _failing(folder: Path, tests: tuple[str, ...]) -> set[str]:
    """Which of these tests fail in this tree; one of several cases fails for all of them."""
    sources = os.pathsep.join(f"{folder}/{package}/src" for package in _PACKAGES)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_MOST_SECONDS,
        check=False,
    )
    lines = [line.split(" ") for line in result.stdout.splitlines()]
    cases = {words[1] for words in lines if words[0] in ("FAILED", "ERROR")}
    failed = {*cases, *(case.partition("[")[0] for case in cases)} & set(tests)
    if result.returncode not in (0, 1) or (result.returncode == 1 and not cases):
        raise SystemExit(result.stdout[-4000:] + result.stderr[-4000:])
    return failed


def main(only: str) -> int:
    """Try each mutant whose name has this in it; 0 when all were caught."""
    chosen = [mutant for mutant in MUTANTS if only in mutant.name]
    with tempfile.TemporaryDirectory(prefix="oncedrop-mutants-") as name:
        folder = Path(name)
        _copy(folder)
        named = tuple(dict.fromkeys(test for m in chosen for test in m.caught_by))
        wrong = _failing(folder, named)
        if wrong:
            sys.stderr.write(f"fail without a mutant: {', '.join(sorted(wrong))}\n")
            return 1
        survivors = 0
        for mutant in chosen:
            began = time.monotonic()
            before = {edit.file: (folder / edit.file).read_text() for edit in mutant.edits}
            for edit in mutant.edits:
                path = folder / edit.file
                path.write_text(path.read_text().replace(edit.old, edit.new, 1))
            missing = set(mutant.caught_by) - _failing(folder, mutant.caught_by)
            for file, text in before.items():
                (folder / file).write_text(text)
            verdict = f"NOT caught by {', '.join(sorted(missing))}" if missing else "caught"
            survivors += bool(missing)
            seconds = time.monotonic() - began
            sys.stdout.write(f"{verdict}: {mutant.name} ({seconds:.0f} s)\n")
            sys.stdout.flush()
    if not survivors and not only:
        fault_docs.write("mutants", mutant_table())
    sys.stdout.write(f"{len(chosen)} mutants, {survivors} not caught\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
