"""The volume, on real files: every move, every failure, every stranger."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader, pack
from oncedrop_common.drops import ClaimHash, DropId, DropMeta
from oncedrop_common.errors import BlobDamaged, BlobMissing, VolumeFull, VolumeUnavailable
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint
from oncedrop_common.volume import FoundFile, Marker, OpenBlob, Place, Stranger, Volume
from support.valkey import meta_for, write_blob

BODY = b"once and never again"
A, B, C = (ClaimHash(letter * 32) for letter in "abc")
# What `make` gives a folder in blobs/ that this drop lies in.
DROP = DropId("7f" + "0" * 30)
META = meta_for(BODY, "key", 10**12)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume with its layout, without a Redis."""
    volume = Volume(tmp_path / "volume")
    volume.make_root()
    volume.write_marker(Marker(mint(), 1))
    volume.make_layout()
    return volume


def _put(volume: Volume, place: Place = Place.BLOBS, drop_id: DropId = DROP) -> Path:
    """A sound file of this drop in this place; its path."""
    if place is Place.INCOMING:
        part = volume.create_part(drop_id)
        part.write_at(HEADER_BYTES, BODY)
        part.close()
        return volume.root / place / drop_id
    write_blob(volume, drop_id, META, BODY)
    if place is Place.CLAIMED:
        assert volume.take(drop_id, A)
        return volume.root / place / f"{drop_id}.{A}"
    return volume.root / place / drop_id[:2] / drop_id


def _files(volume: Volume) -> set[str]:
    return {
        str(path.relative_to(volume.root))
        for path in volume.root.rglob("*")
        if path.name != ".oncedrop" and not path.is_dir()
    }


# The moves.


def test_a_part_becomes_a_blob_and_a_claimed_file_by_rename(volume: Volume) -> None:
    part = volume.create_part(DROP)
    assert _files(volume) == {f"incoming/{DROP}"}
    inode = os.fstat(part.fd).st_ino
    part.write_at(HEADER_BYTES + 5, BODY[5:])
    part.write_at(HEADER_BYTES, BODY[:5])
    assert part.read_at(HEADER_BYTES, 100) == BODY
    volume.commit_part(part, BlobHeader(DROP, META))
    assert part.fd == -1
    assert _files(volume) == {f"blobs/7f/{DROP}"}
    assert volume.take(DROP, A)
    assert _files(volume) == {f"claimed/{DROP}.{A}"}
    with volume.open_claimed(DROP, A) as blob:
        assert os.fstat(blob.fd).st_ino == inode
        assert blob.header == BlobHeader(DROP, META)
        assert os.pread(blob.fd, 100, blob.header.body_offset) == BODY
    assert volume.give_back(DROP, A)
    with volume.open_blob(DROP) as blob:
        assert os.pread(blob.fd, 100, blob.header.body_offset) == BODY
    assert volume.unlink(DROP) == HEADER_BYTES + len(BODY)
    assert _files(volume) == set()
    assert volume.unlink(DROP) == 0


def test_a_body_may_begin_later_than_the_header_ends(volume: Volume) -> None:
    part = volume.create_part(DROP)
    part.write_at(8192, BODY)
    volume.commit_part(part, BlobHeader(DROP, META, body_offset=8192))
    with volume.open_blob(DROP) as blob:
        assert os.pread(blob.fd, 100, blob.header.body_offset) == BODY


def test_files_are_0600_whatever_the_umask(volume: Volume) -> None:
    before = os.umask(0)
    try:
        path = _put(volume)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_descriptors_are_not_inherited(volume: Volume) -> None:
    part = volume.create_part(drop_id_of("part"))
    assert not os.get_inheritable(part.fd)
    part.close()
    _put(volume)
    with volume.open_blob(DROP) as blob:
        assert not os.get_inheritable(blob.fd)


def test_a_part_that_exists_is_never_written_by_another_upload(volume: Volume) -> None:
    _put(volume, Place.INCOMING)
    with pytest.raises(VolumeUnavailable):
        volume.create_part(DROP)


def test_a_blob_that_lost_its_part_is_not_committed(volume: Volume) -> None:
    part = volume.create_part(DROP)
    assert volume.unlink(DROP) > 0 or _files(volume) == set()
    with pytest.raises(VolumeUnavailable):
        volume.commit_part(part, BlobHeader(DROP, META))
    part.close()
    part.close()
    assert _files(volume) == set()


def _race(calls: list[Callable[[], bool]]) -> list[bool]:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], bool]) -> bool:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_take_has_one_winner_among_100_threads(volume: Volume) -> None:
    for _ in range(3):
        _put(volume)
        claims = [ClaimHash(f"{n:032x}") for n in range(100)]
        won = _race([lambda c=c: volume.take(DROP, c) for c in claims])  # type: ignore[misc]
        assert won.count(True) == 1
        assert _files(volume) == {f"claimed/{DROP}.{claims[won.index(True)]}"}
        volume.unlink(DROP)


def test_giving_back_has_one_winner_among_100_threads(volume: Volume) -> None:
    _put(volume, Place.CLAIMED)
    assert _race([lambda: volume.give_back(DROP, A)] * 100).count(True) == 1
    assert _files(volume) == {f"blobs/7f/{DROP}"}


def test_unlink_and_take_in_a_race_leave_at_most_the_takers_file(volume: Volume) -> None:
    for _ in range(20):
        _put(volume)
        _race([lambda: volume.unlink(DROP) > 0, lambda: volume.take(DROP, A)])
        assert _files(volume) <= {f"claimed/{DROP}.{A}"}
        volume.unlink(DROP)
        assert _files(volume) == set()


def test_nothing_is_taken_from_where_nothing_lies(volume: Volume) -> None:
    assert not volume.take(DROP, A)
    assert not volume.give_back(DROP, A)
    _put(volume, Place.INCOMING)
    assert not volume.take(DROP, A)
    with pytest.raises(BlobMissing):
        volume.open_blob(DROP)
    with pytest.raises(BlobMissing):
        volume.open_claimed(DROP, A)


def test_a_repeated_take_of_the_same_claim_says_no_and_leaves_the_file(volume: Volume) -> None:
    path = _put(volume, Place.CLAIMED)
    assert not volume.take(DROP, A)
    assert path.exists()


def test_giving_back_another_claims_file_moves_nothing(volume: Volume) -> None:
    path = _put(volume, Place.CLAIMED)
    assert not volume.give_back(DROP, B)
    assert path.exists()


# Finding and unlinking.


def test_find_sees_every_place_in_the_order_in_which_files_move(volume: Volume) -> None:
    for place in (Place.CLAIMED, Place.BLOBS, Place.INCOMING):
        _put(volume, place)
    found = volume.find(DROP)
    assert [f.place for f in found] == [*Place]
    assert [f.claim_hash for f in found] == [None, None, A]
    assert volume.find(drop_id_of("another")) == []


def test_unlink_goes_in_the_order_in_which_files_move(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (Place.CLAIMED, Place.BLOBS, Place.INCOMING):
        _put(volume, place)
    order: list[str] = []
    unlink = os.unlink

    def noting(path: str) -> None:
        order.append(Path(path).relative_to(volume.root).parts[0])
        unlink(path)

    monkeypatch.setattr(os, "unlink", noting)
    assert volume.unlink(DROP) == 3 * (HEADER_BYTES + len(BODY))
    assert order == [*Place]
    assert _files(volume) == set()


def test_a_file_that_moves_on_while_it_is_deleted_is_deleted_too(volume: Volume) -> None:
    """Looked for in order of movement, a file can be met twice, never missed."""
    for _ in range(30):
        part = volume.create_part(DROP)
        part.write_at(HEADER_BYTES, BODY)

        def move_on(part: object = part) -> bool:
            with contextlib.suppress(VolumeUnavailable):
                volume.commit_part(part, BlobHeader(DROP, META))  # type: ignore[arg-type]
                return volume.take(DROP, A)
            return False

        def delete() -> bool:
            # As a deletion does after its script: until the volume shows nothing more.
            deadline = time.monotonic() + 5
            freed = 0
            while not freed and time.monotonic() < deadline:
                freed += volume.unlink(DROP)
            return bool(freed)

        assert _race([move_on, delete])[1]
        part.close()
        volume.unlink(DROP)


@pytest.mark.parametrize("look", ["find", "unlink"])
def test_a_file_that_is_given_back_while_it_is_looked_for_is_not_missed(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """The one move against the order: a sweep would lose, a deletion forget, a drop like that."""
    _put(volume, Place.CLAIMED)
    listdir = os.listdir

    def given_back_before(path: str | Path) -> list[str]:
        volume.give_back(DROP, A)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", given_back_before)
    if look == "find":
        assert [f.place for f in volume.find(DROP)] == [Place.BLOBS]
    else:
        assert volume.unlink(DROP) == HEADER_BYTES + len(BODY)
        assert _files(volume) == set()


def test_unlink_claimed_removes_this_claims_file_only(volume: Volume) -> None:
    _put(volume, Place.CLAIMED)
    write_blob(volume, DROP, META, BODY)
    assert volume.take(DROP, B)
    assert volume.unlink_claimed(DROP, A) == HEADER_BYTES + len(BODY)
    assert _files(volume) == {f"claimed/{DROP}.{B}"}
    assert volume.unlink_claimed(DROP, A) == 0


def test_a_removed_file_can_still_be_read_by_who_has_it_open(volume: Volume) -> None:
    _put(volume)
    with volume.open_blob(DROP) as blob:
        volume.unlink(DROP)
        assert os.pread(blob.fd, 100, blob.header.body_offset) == BODY


# Strangers.


def _symlink(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    header = pack(BlobHeader(DROP, META))
    target.write_bytes(header + BODY)
    path.symlink_to(target)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("kept")


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


STRANGE = {"symlink": _symlink, "folder": _folder, "special file": _fifo}


def _place_path(volume: Volume, place: Place) -> Path:
    return {
        Place.INCOMING: volume.root / "incoming" / DROP,
        Place.BLOBS: volume.root / "blobs" / "7f" / DROP,
        Place.CLAIMED: volume.root / "claimed" / f"{DROP}.{A}",
    }[place]


def _scan(volume: Volume, place: Place) -> list[FoundFile | Stranger]:
    match place:
        case Place.INCOMING:
            return volume.scan_incoming()
        case Place.BLOBS:
            return volume.scan_blobs("7f")
        case Place.CLAIMED:
            return volume.scan_claimed()


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("place", [*Place])
@pytest.mark.timeout(20)
def test_a_stranger_with_a_drops_name_is_reported_and_never_touched(
    volume: Volume, tmp_path: Path, place: Place, kind: str
) -> None:
    path = _place_path(volume, place)
    STRANGE[kind](path, tmp_path)
    assert _scan(volume, place) == [Stranger(f"{kind} in {place}")]
    assert volume.find(DROP) == []
    assert volume.unlink(DROP) == 0
    assert volume.unlink_claimed(DROP, A) == 0
    if place is Place.BLOBS:
        with pytest.raises((BlobDamaged, VolumeUnavailable)):
            volume.open_blob(DROP)
    if place is Place.CLAIMED:
        with pytest.raises((BlobDamaged, VolumeUnavailable)):
            volume.open_claimed(DROP, A)
    if place is Place.INCOMING:
        with pytest.raises(VolumeUnavailable):
            volume.create_part(DROP)
    assert path.is_symlink() or path.is_dir() or path.is_fifo()
    if kind == "symlink":
        assert (tmp_path / "target").read_bytes().endswith(BODY)
    if kind == "folder":
        assert (path / "inside").read_text() == "kept"


@pytest.mark.parametrize("kind", STRANGE)
def test_a_stranger_with_a_blobs_name_is_never_served_by_who_claims_it(
    volume: Volume, tmp_path: Path, kind: str
) -> None:
    """Where a stranger is renamed like a blob, nothing of it is sent and it can go back."""
    path = _place_path(volume, Place.BLOBS)
    STRANGE[kind](path, tmp_path)
    with contextlib.suppress(VolumeUnavailable):
        if volume.take(DROP, A):
            with pytest.raises((BlobDamaged, VolumeUnavailable)):
                volume.open_claimed(DROP, A)
            assert volume.give_back(DROP, A)
    assert path.is_symlink() or path.is_dir() or path.is_fifo()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place.INCOMING, "README"),
        (Place.INCOMING, DROP.upper().replace("7", "A")),
        (Place.INCOMING, f"{DROP}.{A}"),
        (Place.INCOMING, DROP + "0"),
        (Place.BLOBS, "7f"),
        (Place.BLOBS, f"{DROP}\n"),
        (Place.BLOBS, "80" + "0" * 30),
        (Place.CLAIMED, DROP),
        (Place.CLAIMED, f"{DROP}.{A}.bak"),
        (Place.CLAIMED, f"{DROP}-{A}"),
    ],
)
def test_a_file_whose_name_or_place_is_not_ours_is_a_stranger(
    volume: Volume, place: Place, name: str
) -> None:
    path = _place_path(volume, place).parent / name
    path.write_bytes(pack(BlobHeader(DROP, META)) + BODY)
    assert _scan(volume, place) == [Stranger(f"file in {place}")]
    assert volume.find(DROP) == []
    assert volume.unlink(DROP) == 0
    assert path.exists()


def test_an_nfs_clients_leftover_is_a_stranger_to_be_ignored(volume: Volume) -> None:
    for place in Place:
        (_place_path(volume, place).parent / ".nfs0000000000000001").write_text("")
        assert _scan(volume, place) == [Stranger(f"file in {place}", ignorable=True)]


def test_strangers_beside_the_layout_are_reported(volume: Volume, tmp_path: Path) -> None:
    (volume.root / "notes.txt").write_text("")
    (volume.root / "blobs" / "zz").mkdir()
    (volume.root / "blobs" / "7f").rmdir()
    (volume.root / "blobs" / "7f").symlink_to(tmp_path)
    (volume.root / "blobs" / DROP).write_text("")
    (volume.root / "lost+found").mkdir()
    assert sorted(s.where for s in volume.scan_strangers()) == [
        "file in blobs",
        "file in root",
        "folder in blobs",
        "symlink in blobs",
    ]


@pytest.mark.parametrize("name", ["incoming", "blobs", "claimed", "blobs/7f"])
def test_a_link_or_file_in_place_of_a_folder_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    volume = Volume(tmp_path / "volume")
    volume.make_root()
    (tmp_path / "elsewhere").mkdir()
    (volume.root / name).parent.mkdir(exist_ok=True)
    (volume.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VolumeUnavailable):
        volume.make_layout()
    (volume.root / name).unlink()
    (volume.root / name).write_text("")
    with pytest.raises(VolumeUnavailable):
        volume.make_layout()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_shard_that_is_a_link_is_never_followed(volume: Volume, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / DROP).write_bytes(pack(BlobHeader(DROP, META)) + BODY)
    (volume.root / "blobs" / "7f").rmdir()
    (volume.root / "blobs" / "7f").symlink_to(elsewhere)
    with contextlib.suppress(VolumeUnavailable):
        assert not [f for f in volume.scan_blobs("7f") if isinstance(f, FoundFile)]
    with contextlib.suppress(VolumeUnavailable):
        volume.unlink(DROP)
    assert (elsewhere / DROP).exists()


# Scans.


def test_a_scan_tells_place_ids_size_and_time(volume: Volume) -> None:
    for place in (Place.CLAIMED, Place.BLOBS, Place.INCOMING):
        _put(volume, place)
    now_ms = volume.probe_clock_ms()
    for place in Place:
        (found,) = _scan(volume, place)
        assert isinstance(found, FoundFile)
        assert (found.place, found.drop_id) == (place, DROP)
        assert found.claim_hash == (A if place is Place.CLAIMED else None)
        assert found.size == HEADER_BYTES + len(BODY)
        assert abs(now_ms - found.mtime_ms) < 10_000
        assert volume.path_of(found).exists()


def test_the_shards_together_hold_every_blob(volume: Volume) -> None:
    ids = {drop_id_of(mint()) for _ in range(50)}
    for drop_id in ids:
        _put(volume, Place.BLOBS, drop_id)
    found = [f for shard in volume.shards() for f in volume.scan_blobs(shard)]
    assert {f.drop_id for f in found if isinstance(f, FoundFile)} == ids
    assert len(found) == len(ids)


def test_files_that_vanish_while_a_scan_runs_are_no_error(volume: Volume) -> None:
    ids = [DropId("7f" + f"{n:030x}") for n in range(200)]
    for drop_id in ids:
        (volume.root / "blobs" / "7f" / drop_id).write_text("")

    def remove() -> bool:
        for drop_id in ids:
            volume.unlink(drop_id)
        return True

    assert _race([remove, lambda: volume.scan_blobs("7f") is not None]) == [True, True]


def test_a_probe_leaves_nothing_behind(volume: Volume) -> None:
    assert abs(volume.probe_clock_ms() - time.time() * 1000) < 10_000
    assert _files(volume) == set()
    assert volume.free_bytes() > 0


# Damage.


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def _flip(offset: int) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)

    return flip


def _another_drops(path: Path) -> None:
    path.write_bytes(pack(BlobHeader(drop_id_of("another"), META)) + BODY)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one byte short": _cut,
    "one byte long": _append,
    "empty": lambda path: path.write_bytes(b""),
    "half a header": lambda path: os.truncate(path, HEADER_BYTES // 2),
    "header only": lambda path: os.truncate(path, HEADER_BYTES),
    "no header yet": lambda path: path.write_bytes(bytes(HEADER_BYTES) + BODY),
    "magic": _flip(0),
    "version": _flip(9),
    "length": _flip(12),
    "offset": _flip(20),
    "checksum": _flip(30),
    "json": _flip(80),
    "another drop's": _another_drops,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("place", [Place.BLOBS, Place.CLAIMED])
def test_a_damaged_blob_is_reported_and_never_opened(
    volume: Volume, place: Place, damage: str
) -> None:
    path = _put(volume, place)
    DAMAGE[damage](path)
    before = path.read_bytes()

    def opened() -> OpenBlob:
        (found,) = volume.find(DROP)
        return volume.open_found(found)

    with pytest.raises(BlobDamaged) as report:
        opened()
    assert report.value.drop_id == DROP
    with pytest.raises(BlobDamaged):
        volume.open_blob(DROP) if place is Place.BLOBS else volume.open_claimed(DROP, A)
    assert path.read_bytes() == before


# A volume that fails.


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of one's own; skips where that is not allowed."""
    folder.mkdir(exist_ok=True)
    must = os.environ.get("CI") == "true" and os.geteuid() == 0
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode:
        assert not must, f"mounting a tmpfs is not allowed here: {done.stderr}"
        pytest.skip(f"mounting needs root and its capability: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True, timeout=20)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True, timeout=20)


def _make(root: Path) -> Volume:
    volume = Volume(root)
    volume.write_marker(Marker(mint(), 1))
    volume.make_layout()
    return volume


def test_a_full_volume_is_said_to_be_full_and_gives_the_space_back(tmp_path: Path) -> None:
    with _mounted(tmp_path / "small", "size=1m"):
        volume = _make(tmp_path / "small")
        part = volume.create_part(DROP)
        with pytest.raises(VolumeFull):
            part.write_at(HEADER_BYTES, bytes(2**21))
        part.close()
        assert volume.free_bytes() == 0
        with pytest.raises(VolumeFull):
            volume.probe_clock_ms()
        assert _files(volume) == {f"incoming/{DROP}"}, "a failed probe leaves nothing"
        assert volume.unlink(DROP) > 0
        assert volume.free_bytes() > 0
        volume.probe_clock_ms()


def test_a_full_volume_still_lets_blobs_be_taken_and_deleted(tmp_path: Path) -> None:
    with _mounted(tmp_path / "small", "size=1m"):
        volume = _make(tmp_path / "small")
        _put(volume)
        filler = volume.create_part(drop_id_of("filler"))
        with pytest.raises(VolumeFull):
            filler.write_at(0, bytes(2**21))
        filler.close()
        assert volume.take(DROP, A)
        volume.sync_claimed()
        volume.open_claimed(DROP, A).close()
        assert volume.unlink(DROP) > 0


def _fill(volume: Volume) -> None:
    for n in range(300):
        volume.create_part(DropId(f"{n:032x}")).close()


def test_a_volume_without_inodes_is_full(tmp_path: Path) -> None:
    with _mounted(tmp_path / "small", "size=4m,nr_inodes=270"):
        volume = _make(tmp_path / "small")
        with pytest.raises(VolumeFull):
            _fill(volume)
        with pytest.raises(VolumeFull):
            volume.probe_clock_ms()
        with pytest.raises(VolumeFull):
            volume.write_marker(Marker(mint(), 2), replace=True)


def test_a_volume_too_small_for_its_layout_is_full(tmp_path: Path) -> None:
    with _mounted(tmp_path / "small", "size=4m,nr_inodes=100"):
        volume = Volume(tmp_path / "small")
        with pytest.raises(VolumeFull):
            volume.make_layout()


def test_a_read_only_volume_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    with _mounted(tmp_path / "frozen", "size=4m"):
        volume = _make(tmp_path / "frozen")
        other = drop_id_of("other")
        _put(volume)
        _put(volume, Place.CLAIMED, other)
        before = _files(volume)
        _remount(volume.root, "ro")
        calls: list[Callable[[], object]] = [
            volume.probe_clock_ms,
            lambda: volume.create_part(drop_id_of("new")),
            lambda: volume.take(DROP, A),
            lambda: volume.give_back(other, A),
            lambda: volume.unlink(DROP),
            lambda: volume.unlink_claimed(other, A),
            lambda: volume.write_marker(Marker(mint(), 2), replace=True),
        ]
        for call in calls:
            with pytest.raises(VolumeUnavailable, match="EROFS"):
                call()
        volume.open_blob(DROP).close()
        assert _files(volume) == before
        _remount(volume.root, "rw")
        assert volume.take(DROP, A)


def test_an_upload_whose_volume_turns_read_only_is_not_committed(tmp_path: Path) -> None:
    with _mounted(tmp_path / "frozen", "size=4m"):
        volume = _make(tmp_path / "frozen")
        part = volume.create_part(DROP)
        part.write_at(HEADER_BYTES, BODY)
        part.close()
        part.fd = os.open(volume.root / "incoming" / DROP, os.O_RDONLY)
        _remount(volume.root, "ro")
        with pytest.raises(VolumeUnavailable):
            volume.commit_part(part, BlobHeader(DROP, META))
        part.close()
        assert _files(volume) == {f"incoming/{DROP}"}


def test_a_volume_that_is_not_there_is_unavailable_never_merely_empty(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "nowhere")
    calls: list[Callable[[], object]] = [
        volume.read_marker,
        volume.is_empty,
        volume.make_layout,
        lambda: volume.write_marker(Marker(mint(), 1)),
        volume.probe_clock_ms,
        volume.free_bytes,
        lambda: volume.create_part(DROP),
        volume.sync_claimed,
        lambda: volume.find(DROP),
        lambda: volume.unlink(DROP),
        lambda: volume.scan_blobs("7f"),
        volume.scan_incoming,
        volume.scan_claimed,
        volume.scan_strangers,
    ]
    for call in calls:
        with pytest.raises(VolumeUnavailable):
            call()


def test_a_file_larger_than_may_be_means_that_the_volume_is_full(volume: Volume) -> None:
    part = volume.create_part(DROP)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(VolumeFull):
            part.write_at(2**20, b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        part.close()


def test_writing_to_a_closed_part_is_an_error_of_the_volume(volume: Volume) -> None:
    part = volume.create_part(DROP)
    part.close()
    with pytest.raises(VolumeUnavailable):
        part.write_at(0, b"x")
    with pytest.raises(VolumeUnavailable):
        part.read_at(0, 1)


def test_a_header_that_does_not_fit_commits_nothing(volume: Volume) -> None:
    part = volume.create_part(DROP)
    meta = DropMeta(
        **{f: getattr(META, f) for f in DropMeta.__dataclass_fields__}
        | {
            "name": "x" * 300,
        }
    )
    with pytest.raises(ValueError, match="name"):
        volume.commit_part(part, BlobHeader(DROP, meta))
    part.close()
    assert _files(volume) == {f"incoming/{DROP}"}


def test_headers_and_folders_are_on_disk_before_commit_returns(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of DESIGN: header, fsync, rename into blobs/, fsync of both folders."""
    order: list[str] = []
    fsync, rename, pwrite = os.fsync, os.rename, os.pwrite

    def noting_fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        order.append(f"fsync {target.relative_to(volume.root)}")
        fsync(fd)

    def noting_rename(path: str, target: str) -> None:
        order.append("rename")
        rename(path, target)

    def noting_pwrite(fd: int, data: bytes, offset: int) -> int:
        order.append(f"write at {offset}")
        return pwrite(fd, data, offset)

    part = volume.create_part(DROP)
    part.write_at(HEADER_BYTES, BODY)
    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    monkeypatch.setattr(os, "pwrite", noting_pwrite)
    volume.commit_part(part, BlobHeader(DROP, META))
    assert order[:3] == ["write at 0", f"fsync incoming/{DROP}", "rename"]
    assert sorted(order[3:]) == ["fsync blobs/7f", "fsync incoming"]


# The marker.


def test_of_many_markers_written_at_once_one_stands(volume: Volume) -> None:
    (volume.root / ".oncedrop").unlink()
    standing: list[str] = []

    def write() -> bool:
        standing.append(volume.write_marker(Marker(mint(), 1)).volume_id)
        return True

    _race([write] * 20)
    marker = volume.read_marker()
    assert marker is not None
    assert set(standing) == {marker.volume_id}
    assert os.listdir(volume.root).count(".oncedrop") == 1
    assert not [name for name in os.listdir(volume.root) if name.startswith(".probe")]
