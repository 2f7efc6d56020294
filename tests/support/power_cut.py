"""What a disk may hold after a power cut, worked out from the recorded steps.

The model. What was written to a file since its last fsync may be there, in part, as zeros, or not
at all. A change of a folder (a file made, renamed, unlinked) since the folder's last fsync may be
there or not, each for itself. A rename is one change: of its two names exactly one is there, and
the fsync of either folder makes it safe, as on file systems with a journal (ext4, XFS, Btrfs, ZFS).
Redis, with an append-only file synced every second, may be as it was after any earlier script.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from support import long_form
from support.recording import Recording, Records, Step

Files = dict[str, bytes]
_Writes = Sequence[Step]
_CHANGES = ("create", "rename", "unlink")


@dataclass(frozen=True)
class Cut:
    """What is left after a cut.

    Attributes:
        steps: How many were done.
        files: The volume.
        records: Redis.
    """

    steps: int
    files: Files
    records: Records


def everything(recording: Recording) -> Files:
    """The volume if nothing was lost."""
    return next(iter(_disks(recording, len(recording.steps), lost=False)))


def cuts(recording: Recording) -> Iterator[Cut]:
    """Every cut there can be, each outcome once."""
    for count in range(len(recording.steps) + 1):
        seen: list[Files] = []
        for files in _disks(recording, count, lost=True):
            if files not in seen:
                seen.append(files)
        for files, records in itertools.product(seen, _memories(recording, count)):
            yield Cut(count, files, records)


def _memories(recording: Recording, count: int) -> list[Records]:
    """What Redis may know: as after any script so far, or nothing at all."""
    states: list[Records] = [{}, recording.records]
    states += [step.records for step in recording.steps[:count] if step.what == "told"]
    return [state for at, state in enumerate(states) if state not in states[:at]]


def _disks(recording: Recording, count: int, *, lost: bool) -> Iterator[Files]:
    steps = recording.steps[:count]
    changes = [(at, step) for at, step in enumerate(steps) if step.what in _CHANGES]
    unsure = [at for at, step in changes if lost and not _safe(steps, at, step)]
    for size in range(len(unsure) + 1):
        for kept in itertools.combinations(unsure, size):
            gone = set(unsure) - set(kept)
            tree = {name: number for number, name in enumerate(recording.baseline)}
            for at, step in changes:
                if at not in gone:
                    _change(tree, step)
            yield from _contents(recording, steps, tree, lost=lost)


def _safe(steps: Sequence[Step], at: int, change: Step) -> bool:
    """Whether a folder that it changed was synced since."""
    names = [change.name, change.to] if change.what == "rename" else [change.name]
    folders = {str(PurePosixPath(name).parent) for name in names}
    return any(s.what == "sync_folder" and s.name in folders and s.covers > at for s in steps)


def _change(tree: dict[str, int], step: Step) -> None:
    match step.what:
        case "create":
            tree[step.name] = step.file
        case "rename":
            if tree.get(step.name) == step.file:
                del tree[step.name]
            tree[step.to] = step.file
        case "unlink" if tree.get(step.name) == step.file:
            del tree[step.name]


def _contents(
    recording: Recording, steps: Sequence[Step], tree: dict[str, int], *, lost: bool
) -> Iterator[Files]:
    """Each way in which the unsynced writes to these files may have come out."""
    before = list(recording.baseline.values())
    choices = []
    for number in tree.values():
        writes = [(at, s) for at, s in enumerate(steps) if s.what == "write" and s.file == number]
        synced = max(
            (s.covers for s in steps if s.what == "sync_file" and s.file == number), default=0
        )
        sure = [s for at, s in writes if at < synced or not lost]
        unsure = [s for at, s in writes if at >= synced and lost]
        start = _written(before[number] if number < len(before) else b"", sure)
        choices.append([_written(start, way(unsure)) for way in (_WAYS if unsure else _WAYS[:1])])
    for contents in itertools.product(*choices):
        yield dict(zip(tree, contents, strict=True))


def _written(content: bytes, writes: _Writes) -> bytes:
    data = bytearray(content)
    for step in writes:
        data.extend(b"\0" * (step.offset - len(data)))
        data[step.offset : step.offset + len(step.data)] = step.data
    return bytes(data)


def _none(_: _Writes) -> _Writes:
    return ()


def _all(writes: _Writes) -> _Writes:
    return writes


def _first_half(writes: _Writes) -> _Writes:
    return writes[: (len(writes) + 1) // 2]


def _last(writes: _Writes) -> _Writes:
    return writes[-1:]


def _zeros(writes: _Writes) -> _Writes:
    """The file has its length, and nothing is in it."""
    return [replace(step, data=bytes(len(step.data))) for step in writes]


def _by_chance(writes: _Writes) -> _Writes:
    """Some of them; of some a part, or zeros."""
    kept: list[Step] = []
    for step in writes:
        data = step.data[: long_form.DICE.randint(0, len(step.data))]
        kept += long_form.DICE.choice([[], [step], [replace(step, data=data)], _zeros([step])])
    return kept


_BY_CHANCE = 40 if long_form.LONG else 2
_WAYS: tuple[Callable[[_Writes], _Writes], ...] = (
    _none, _all, _first_half, _last, _zeros, *[_by_chance] * _BY_CHANCE
)  # fmt: skip
