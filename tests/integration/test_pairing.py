"""Whether volume and Redis belong together: the marker table, row by row."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from oncedrop_common.errors import DependencyError, StoreUnavailable, VolumeUnavailable
from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.tokens import mint
from oncedrop_common.volume import Marker, Place, Volume
from support.valkey import make_ready_drop, make_store
from support.waiting import wait_until_async


@pytest.fixture
def empty(tmp_path: Path) -> Volume:
    """A folder nobody has taken into use."""
    volume = Volume(tmp_path / "mount")
    volume.make_root()
    return volume


def _tree(volume: Volume) -> set[str]:
    return {str(path.relative_to(volume.root)) for path in volume.root.rglob("*")}


async def _refused(pairing: Pairing) -> str:
    with pytest.raises(VolumeUnavailable) as refusal:
        await pairing.check()
    with pytest.raises(VolumeUnavailable):
        pairing.require()
    assert pairing.problem is not None
    return refusal.value.detail


# none / none


async def test_an_empty_volume_and_an_empty_redis_become_a_pair(
    store: DropStore, empty: Volume
) -> None:
    pairing = Pairing(store, empty, ephemeral=False)
    marker = await pairing.check()
    pairing.require()
    assert empty.read_marker() == marker
    assert await store.volume_id() == marker.volume_id
    assert {*Place, ".oncedrop", "blobs/00", "blobs/ff"} <= _tree(empty)
    assert len(empty.scan_strangers()) == 0


async def test_folders_are_0700_and_the_marker_0600(store: DropStore, empty: Volume) -> None:
    await Pairing(store, empty, ephemeral=False).check()
    for path in empty.root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_a_file_systems_own_folder_does_not_make_a_volume_used(
    store: DropStore, empty: Volume
) -> None:
    (empty.root / "lost+found").mkdir()
    await Pairing(store, empty, ephemeral=False).check()
    assert empty.scan_strangers() == []


@pytest.mark.parametrize("ephemeral", [False, True])
@pytest.mark.parametrize("redis_knows", [False, True])
async def test_a_folder_with_files_but_no_marker_is_not_taken_into_use(
    store: DropStore, empty: Volume, *, ephemeral: bool, redis_knows: bool
) -> None:
    (empty.root / "thesis.doc").write_text("mine")
    if redis_knows:
        await store.pair(mint())
    known = await store.volume_id()
    await _refused(Pairing(store, empty, ephemeral=ephemeral))
    assert _tree(empty) == {"thesis.doc"}
    assert await store.volume_id() == known


async def test_a_volume_whose_marker_was_lost_is_not_taken_for_a_new_one(
    store: DropStore, volume: Volume
) -> None:
    await make_ready_drop(store, volume)
    (volume.root / ".oncedrop").unlink()
    before = _tree(volume)
    await _refused(Pairing(store, volume, ephemeral=False))
    assert _tree(volume) == before


@pytest.mark.parametrize("racers", [10])
async def test_services_that_start_at_once_agree_on_one_pair(
    redis_url: str, empty: Volume, racers: int
) -> None:
    stores = [make_store(redis_url) for _ in range(racers)]
    volumes = [Volume(empty.root) for _ in range(racers)]
    pairings = [Pairing(s, v, ephemeral=False) for s, v in zip(stores, volumes, strict=True)]
    try:
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(pairing.check() for pairing in pairings), return_exceptions=True
            )
            # Whoever saw half of another's start may be refused once, never twice.
            for pairing in pairings:
                await pairing.check()
        markers = {r.volume_id for r in results if isinstance(r, Marker)}
        marker = empty.read_marker()
        assert marker is not None
        assert markers <= {marker.volume_id}
        assert await stores[0].volume_id() == marker.volume_id
        assert {type(r) for r in results} <= {Marker, VolumeUnavailable}
        assert empty.scan_strangers() == []
        assert not [name for name in os.listdir(empty.root) if name.startswith(".probe")]
    finally:
        for each in stores:
            await each.close()


class _Overtaken(Volume):
    """A volume that another service takes into use after we saw no marker in it."""

    def is_empty(self) -> bool:
        """As it is once the other service is through."""
        self.make_layout()
        self.write_marker(Marker(mint(), 1))
        return super().is_empty()


async def test_a_start_that_is_overtaken_by_another_is_not_refused(
    store: DropStore, empty: Volume
) -> None:
    marker = await Pairing(store, _Overtaken(empty.root), ephemeral=False).check()
    assert marker == empty.read_marker()
    assert await store.volume_id() == marker.volume_id


# there / none


async def test_a_wiped_redis_adopts_the_volume(store: DropStore, volume: Volume) -> None:
    marker = volume.read_marker()
    assert marker is not None
    drop = await make_ready_drop(store, volume)
    await store.call("FLUSHALL")
    assert await Pairing(store, volume, ephemeral=False).check() == marker
    assert await store.volume_id() == marker.volume_id
    assert len(volume.find(drop.drop_id)) == 1


async def test_services_that_meet_a_wiped_redis_at_once_adopt_the_same_volume(
    store: DropStore, volume: Volume
) -> None:
    marker = volume.read_marker()
    assert marker is not None
    await store.call("FLUSHALL")
    pairings = [Pairing(store, volume, ephemeral=False) for _ in range(10)]
    assert await asyncio.gather(*(p.check() for p in pairings)) == [marker] * 10


# none / there


async def test_a_volume_that_is_not_mounted_is_refused_and_left_alone(
    store: DropStore, empty: Volume
) -> None:
    await store.pair(known := mint())
    assert "force" in await _refused(Pairing(store, empty, ephemeral=False))
    assert _tree(empty) == set()
    assert await store.volume_id() == known


async def test_a_folder_that_is_not_there_is_refused(store: DropStore, tmp_path: Path) -> None:
    for ephemeral in (False, True):
        await _refused(Pairing(store, Volume(tmp_path / "nowhere"), ephemeral=ephemeral))
    assert not (tmp_path / "nowhere").exists()
    assert await store.volume_id() is None


async def test_an_ephemeral_volume_that_was_emptied_is_made_anew(
    store: DropStore, empty: Volume
) -> None:
    await store.pair(old := mint())
    pairing = Pairing(store, empty, ephemeral=True)
    marker = await pairing.check()
    pairing.require()
    assert marker.volume_id != old
    assert await store.volume_id() == marker.volume_id
    assert set(Place) <= _tree(empty)


async def test_services_that_meet_an_emptied_ephemeral_volume_at_once_agree(
    redis_url: str, empty: Volume
) -> None:
    stores = [make_store(redis_url) for _ in range(10)]
    try:
        await stores[0].pair(mint())
        pairings = [Pairing(s, Volume(empty.root), ephemeral=True) for s in stores]
        await asyncio.gather(*(p.check() for p in pairings), return_exceptions=True)
        markers = [await p.check() for p in pairings]
        assert len({m.volume_id for m in markers}) == 1
        assert await stores[0].volume_id() == markers[0].volume_id
    finally:
        for each in stores:
            await each.close()


# there / same


async def test_a_pair_stays_a_pair(store: DropStore, volume: Volume) -> None:
    before = _tree(volume)
    markers = [await Pairing(store, volume, ephemeral=e).check() for e in (False, True, False)]
    assert markers == [volume.read_marker()] * 3
    assert _tree(volume) == before


async def test_folders_that_are_missing_are_made_again_at_a_start(
    store: DropStore, volume: Volume
) -> None:
    (volume.root / Place.CLAIMED).rmdir()
    (volume.root / Place.BLOBS / "7f").rmdir()
    await Pairing(store, volume, ephemeral=False).check()
    assert {"claimed", "blobs/7f"} <= _tree(volume)


# there / another


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_another_volume_is_refused_and_left_alone(
    store: DropStore, volume: Volume, *, ephemeral: bool
) -> None:
    drop = await make_ready_drop(store, volume)
    await store.pair(other := mint(), replace=True)
    before = _tree(volume)
    assert "force" in await _refused(Pairing(store, volume, ephemeral=ephemeral))
    assert _tree(volume) == before
    assert await store.volume_id() == other
    assert await store.read(drop.drop_id) is not None


# Markers that cannot be believed.


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"layout": 2, "volume_id": "x", "created_ms": 1}',
        b'{"layout": 1, "created_ms": 1}',
        b'{"layout": 1, "volume_id": "x", "created_ms": "soon"}',
        b'{"layout": 1, "volume_id": "x", "created_ms": Infinity}',
        b"[" * 4096,
    ],
)
@pytest.mark.parametrize("ephemeral", [False, True])
async def test_a_marker_that_cannot_be_read_is_refused_and_kept(
    store: DropStore, volume: Volume, text: bytes, *, ephemeral: bool
) -> None:
    marker = volume.root / ".oncedrop"
    marker.write_bytes(text)
    known = await store.volume_id()
    await _refused(Pairing(store, volume, ephemeral=ephemeral))
    assert marker.read_bytes() == text
    assert await store.volume_id() == known


async def test_a_marker_that_is_a_link_or_a_folder_is_refused(
    store: DropStore, volume: Volume, tmp_path: Path
) -> None:
    marker = volume.root / ".oncedrop"
    elsewhere = tmp_path / "marker"
    marker.rename(elsewhere)
    marker.symlink_to(elsewhere)
    await _refused(Pairing(store, volume, ephemeral=False))
    marker.unlink()
    marker.mkdir()
    await _refused(Pairing(store, volume, ephemeral=False))


async def test_a_marker_that_is_a_fifo_is_refused_without_waiting(
    store: DropStore, volume: Volume
) -> None:
    marker = volume.root / ".oncedrop"
    marker.unlink()
    os.mkfifo(marker)
    writer = None
    try:
        async with asyncio.timeout(5):
            await _refused(Pairing(store, volume, ephemeral=False))
    finally:
        # Lets a thread go that hangs in open(), so that the failure is the test's only one.
        with_reader = os.open(marker, os.O_RDWR | os.O_NONBLOCK)
        writer = os.open(marker, os.O_WRONLY | os.O_NONBLOCK)
        os.close(writer)
        os.close(with_reader)


# force


async def test_force_makes_a_pair_of_another_volume(store: DropStore, volume: Volume) -> None:
    await store.pair(mint(), replace=True)
    pairing = Pairing(store, volume, ephemeral=False)
    await _refused(pairing)
    marker = await pairing.force()
    pairing.require()
    assert marker == volume.read_marker()
    assert await store.volume_id() == marker.volume_id


async def test_force_takes_an_empty_volume_into_use_for_a_known_redis(
    store: DropStore, empty: Volume
) -> None:
    await store.pair(old := mint())
    marker = await Pairing(store, empty, ephemeral=False).force()
    assert marker.volume_id != old
    assert await store.volume_id() == marker.volume_id
    assert set(Place) <= _tree(empty)


async def test_force_brings_a_volume_back_whose_marker_was_lost(
    store: DropStore, volume: Volume
) -> None:
    drop = await make_ready_drop(store, volume)
    (volume.root / ".oncedrop").unlink()
    pairing = Pairing(store, volume, ephemeral=False)
    await pairing.force()
    pairing.require()
    assert len(volume.find(drop.drop_id)) == 1


async def test_force_touches_no_file_of_a_strangers_folder(store: DropStore, empty: Volume) -> None:
    (empty.root / "thesis.doc").write_text("mine")
    await Pairing(store, empty, ephemeral=False).force()
    assert (empty.root / "thesis.doc").read_text() == "mine"
    assert [s.where for s in empty.scan_strangers()] == ["file in root"]


async def test_force_cannot_mend_a_folder_that_is_not_there(
    store: DropStore, tmp_path: Path
) -> None:
    with pytest.raises(VolumeUnavailable):
        await Pairing(store, Volume(tmp_path / "nowhere"), ephemeral=False).force()


# While it runs.


async def test_nothing_is_served_before_the_first_check(store: DropStore, volume: Volume) -> None:
    with pytest.raises(VolumeUnavailable):
        Pairing(store, volume, ephemeral=False).require()


async def test_a_volume_that_goes_and_comes_back_needs_no_restart(
    store: DropStore, volume: Volume
) -> None:
    pairing = Pairing(store, volume, ephemeral=False)
    await pairing.ready()
    away = volume.root.with_name("away")
    volume.root.rename(away)
    with pytest.raises(VolumeUnavailable):
        await pairing.ready()
    volume.root.mkdir()
    with pytest.raises(VolumeUnavailable):
        await pairing.ready()
    assert os.listdir(volume.root) == []
    volume.root.rmdir()
    away.rename(volume.root)
    await pairing.ready()
    pairing.require()


async def test_an_ephemeral_volume_emptied_while_we_run_works_again(
    store: DropStore, empty: Volume
) -> None:
    pairing = Pairing(store, empty, ephemeral=True)
    first = await pairing.check()
    shutil.rmtree(empty.root)
    empty.root.mkdir()
    second = await pairing.check()
    assert second.volume_id != first.volume_id
    assert set(Place) <= _tree(empty), "the folders are there again, not only the marker"


async def test_a_redis_that_is_away_is_said_to_be_and_the_volume_stays_as_it_is(
    empty: Volume, tmp_path: Path
) -> None:
    store = make_store(f"unix://{tmp_path}/nobody", timeout_seconds=1)
    try:
        pairing = Pairing(store, empty, ephemeral=False)
        for call in (pairing.check, pairing.ready, pairing.force):
            with pytest.raises(StoreUnavailable):
                await call()
        with pytest.raises(StoreUnavailable):
            pairing.require()
        assert _tree(empty) == set()
    finally:
        await store.close()


async def test_watching_notices_what_changes(
    store: DropStore, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncedrop_common.pairing.CHECK_SECONDS", 0.01)
    pairing = Pairing(store, volume, ephemeral=False)
    marker = volume.read_marker()
    assert marker is not None

    async def refused() -> bool:
        return pairing.problem is not None

    async def paired() -> bool:
        return pairing.problem is None

    async with pairing.watched():
        await wait_until_async(paired, 5, what="the first check")
        volume.write_marker(replace(marker, volume_id=mint()), replace=True)
        await wait_until_async(refused, 5, what="the other volume to be noticed")
        volume.write_marker(marker, replace=True)
        await wait_until_async(paired, 5, what="the old volume to be noticed")
    assert isinstance(VolumeUnavailable("x"), DependencyError)


# The server's configuration


async def test_a_redis_that_hides_its_configuration_pairs_all_the_same(
    redis_url: str, store: DropStore, volume: Volume
) -> None:
    """An operator may forbid INFO; what it would tell is advice, not a condition."""
    await store.call("ACL", "SETUSER", "shy", "on", ">word", "~*", "+@all", "-info")
    shy = make_store(redis_url.replace("://", "://shy:word@", 1))
    try:
        with pytest.raises(StoreUnavailable):
            await shy.server_warnings()
        pairing = Pairing(shy, volume, ephemeral=False)
        await pairing.check()
        assert pairing.problem is None
    finally:
        await shy.close()
        await store.call("ACL", "DELUSER", "shy")
