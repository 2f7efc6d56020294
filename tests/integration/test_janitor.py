"""The janitor's passes on a real Redis and real files: the table of DESIGN, and the guard."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oncedrop_common.blob_header import HEADER_BYTES
from oncedrop_common.drops import (
    ClaimHash,
    Drop,
    DropId,
    DropMeta,
    DropState,
    GoneReason,
    IfInterrupted,
)
from oncedrop_common.errors import SweepGuarded
from oncedrop_common.metrics import Metrics
from oncedrop_common.pairing import Pairing
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.store.scripts import ClaimResult
from oncedrop_common.tokens import drop_id as drop_id_of
from oncedrop_common.tokens import mint, owner_hash
from oncedrop_common.volume import Marker, Volume
from oncedrop_janitor.passes import Passes
from oncedrop_janitor.report import Report
from support.valkey import (
    TEST_LEASES,
    TTL_SECONDS,
    let_time_pass,
    make_ready_drop,
    make_store,
    meta_for,
    record_fields,
    set_fields,
    write_blob,
)
from support.waiting import wait_until_async

BODY = b"once and never again"
FILE_BYTES = HEADER_BYTES + len(BODY)
GRACE = Settings().grace_seconds
A, B = ClaimHash("a" * 32), ClaimHash("b" * 32)

Pass = Callable[[], Awaitable[Report]]


def make_passes(store: DropStore, volume: Volume, **settings: object) -> Passes:
    chosen = Settings(**settings)  # type: ignore[arg-type]
    pairing = Pairing(store, volume, ephemeral=chosen.ephemeral_volume)
    return Passes(chosen, store, volume, pairing, Metrics("janitor"))


@pytest.fixture
def passes(store: DropStore, volume: Volume) -> Passes:
    return make_passes(store, volume)


def tree(volume: Volume) -> list[str]:
    """Everything in the volume but folders of the layout, and the marker."""
    return sorted(
        str(path.relative_to(volume.root))
        for path in volume.root.rglob("*")
        if path.name != ".oncedrop" and (path.is_symlink() or not path.is_dir())
    )


def make_old(volume: Volume, seconds: float = GRACE + 1) -> None:
    """Every file as if it was last written to so long ago."""
    for path in volume.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            at = path.stat().st_mtime - seconds
            os.utime(path, (at, at))


async def forget(store: DropStore, drop_id: DropId) -> None:
    """Redis loses the record."""
    await store.call("DEL", keys.drop(drop_id))


async def record(store: DropStore, drop_id: DropId) -> Drop:
    drop = await store.read(drop_id)
    assert drop is not None
    return drop


async def reason(store: DropStore, drop_id: DropId) -> GoneReason | None:
    return (await record(store, drop_id)).reason


async def claim(store: DropStore, drop_id: DropId, claim_hash: ClaimHash = A) -> None:
    result, _ = await store.claim(drop_id, claim_hash, "request")
    assert result is ClaimResult.CLAIMED


async def list_as_due(store: DropStore, *drop_ids: DropId) -> None:
    """The due index says that the janitor must look at these now."""
    await store._batch.drain()
    await store.note_due_times(dict.fromkeys(drop_ids, 5))


async def lapse_in_time(store: DropStore, drop_id: DropId) -> None:
    """The lease is over, by the record and by the due index."""
    await let_time_pass(store, drop_id, TEST_LEASES.claim + 1)
    await list_as_due(store, drop_id)


async def open_upload(store: DropStore) -> tuple[DropId, DropMeta]:
    drop_id, owner_key = drop_id_of(mint()), mint()
    await store.open_upload(drop_id, owner_hash(owner_key), TTL_SECONDS)
    return drop_id, meta_for(BODY, owner_key, await store.now_ms())


async def snapshot(store: DropStore) -> dict[bytes, object]:
    """Every key with its content; a hash's fields have no order."""
    content: dict[bytes, object] = {}
    for name in await store.call("KEYS", "*"):
        if await store.call("TYPE", name) == b"hash":
            row = await store.call("HGETALL", name)
            content[name] = dict(zip(row[::2], row[1::2], strict=True))
        else:
            content[name] = await store.call("DUMP", name)
    return content


async def settled(passes: Passes) -> None:
    """Invariant 5: a second sweep has nothing to do."""
    report = await passes.sweep()
    assert (report.changes, report.errors, report.kept_by_grace) == (0, 0, 0)


# What is well


async def test_a_sweep_finds_nothing_to_do_where_all_is_well(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = [(await make_ready_drop(store, volume, BODY)).drop_id for _ in range(3)]
    await claim(store, drops[0])
    volume.take(drops[0], A)
    uploading, _ = await open_upload(store)
    volume.create_part(uploading).close()
    before = {d: await record_fields(store, d) for d in (*drops, uploading)}
    files = tree(volume)

    report = await passes.sweep()

    assert (report.records, report.files, report.scanned) == (4, 4, 8)
    assert (report.changes, report.errors, report.guard) == (0, 0, None)
    assert {d: await record_fields(store, d) for d in before} == before
    assert tree(volume) == files


async def test_a_sweep_rewrites_usage_and_lists_what_the_due_index_lost(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    held = await make_ready_drop(store, volume, BODY)
    await claim(store, held.drop_id)
    await store.call("DEL", *keys.DUE_SHARDS)
    await store.reserve(10**9)

    await passes.sweep()

    assert await store.usage() == (2 * FILE_BYTES, 2)
    for drop_id in (drop.drop_id, held.drop_id):
        listed = await store.call("ZSCORE", keys.due(drop_id), drop_id)
        assert int(listed) == (await record(store, drop_id)).due_ms


async def test_a_sweep_leaves_an_earlier_due_time_alone(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await list_as_due(store, drop.drop_id)
    await passes.sweep()
    assert int(await store.call("ZSCORE", keys.due(drop.drop_id), drop.drop_id)) == 5


# Blob, no record


async def test_every_drop_is_rebuilt_after_flushall(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = [await make_ready_drop(store, volume, BODY) for _ in range(300)]
    before = {d.drop_id: (await record(store, d.drop_id)).meta for d in drops}
    await store.call("FLUSHALL")

    report = await passes.sweep()

    assert (report.rebuilt, report.removed, report.guard) == (300, 0, None)
    for drop_id, meta in before.items():
        drop = await record(store, drop_id)
        assert (drop.state, drop.meta) == (DropState.READY, meta)
    await settled(passes)


async def test_an_expired_blob_without_record_is_unlinked_after_grace(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop_id = drop_id_of(mint())
    meta = meta_for(BODY, mint(), await store.now_ms(), ttl_seconds=-1)
    write_blob(volume, drop_id, meta, BODY)

    assert (await passes.sweep()).kept_by_grace == 1
    assert tree(volume) == [f"blobs/{drop_id[:2]}/{drop_id}"]
    make_old(volume)
    report = await passes.sweep()

    assert (report.orphan_files, report.removed, report.bytes_freed) == (1, 1, FILE_BYTES)
    assert tree(volume) == []
    assert await store.read(drop_id) is None
    await settled(passes)


async def test_a_blob_with_a_bad_header_and_no_record_is_unlinked_after_grace(
    volume: Volume, passes: Passes
) -> None:
    drop_id = drop_id_of(mint())
    (volume.root / "blobs" / drop_id[:2] / drop_id).write_bytes(b"nothing of ours")
    assert (await passes.sweep()).kept_by_grace == 1
    make_old(volume)
    assert (await passes.sweep()).orphan_files == 1
    assert tree(volume) == []


# Record says gone


async def test_the_file_of_a_gone_drop_is_unlinked_at_once(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await store.delete(drop.drop_id)

    report = await passes.sweep()

    assert (report.leftovers, report.bytes_freed) == (1, FILE_BYTES)
    assert tree(volume) == []
    assert await reason(store, drop.drop_id) is GoneReason.DELETED
    await settled(passes)


async def test_the_due_pass_unlinks_what_a_crash_left_of_a_gone_drop(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await store.delete(drop.drop_id)
    assert (await passes.due()).leftovers == 1
    assert tree(volume) == []
    assert await store.call("ZSCORE", keys.due(drop.drop_id), drop.drop_id) is None


# Parts


async def test_a_part_without_record_is_unlinked_after_grace(
    volume: Volume, passes: Passes
) -> None:
    volume.create_part(drop_id_of(mint())).close()
    assert (await passes.sweep()).kept_by_grace == 1
    assert len(tree(volume)) == 1
    make_old(volume)
    assert (await passes.sweep()).orphan_files == 1
    assert tree(volume) == []


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_a_part_is_spared_within_its_lease_and_abandoned_after(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop_id, _ = await open_upload(store)
    volume.create_part(drop_id).close()
    make_old(volume)
    await list_as_due(store, drop_id)
    assert (await run()).changes == 0
    assert (await record(store, drop_id)).state is DropState.UPLOADING

    await lapse_in_time(store, drop_id)
    assert (await run()).abandoned == 1

    assert await reason(store, drop_id) is GoneReason.ABANDONED
    assert tree(volume) == []
    await settled(passes)


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_an_upload_whose_commit_was_lost_is_committed(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop_id, meta = await open_upload(store)
    write_blob(volume, drop_id, meta, BODY)
    assert (await run()).changes == 0

    await lapse_in_time(store, drop_id)
    assert (await run()).committed == 1

    drop = await record(store, drop_id)
    assert (drop.state, drop.meta) == (DropState.READY, meta)
    await settled(passes)


# Claimed files


@pytest.mark.parametrize("policy", IfInterrupted)
async def test_a_claimed_file_without_record_is_rebuilt_and_burnt_after_its_lease(
    store: DropStore, volume: Volume, passes: Passes, policy: IfInterrupted
) -> None:
    drop = await make_ready_drop(store, volume, BODY, if_interrupted=policy)
    await claim(store, drop.drop_id)
    volume.take(drop.drop_id, A)
    await store.call("FLUSHALL")

    assert (await passes.sweep()).rebuilt == 1
    rebuilt = await record(store, drop.drop_id)
    assert rebuilt.state is DropState.CLAIMED
    assert [c.claim_hash for c in rebuilt.claims] == [A]
    await settled(passes)

    await lapse_in_time(store, drop.drop_id)
    report = await passes.due()
    assert (report.lapsed, report.interrupted, report.bytes_freed) == (1, 1, FILE_BYTES)
    assert await reason(store, drop.drop_id) is GoneReason.INTERRUPTED
    assert tree(volume) == []


async def test_a_claimed_file_whose_hash_is_unlisted_is_adopted(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    volume.take(drop.drop_id, B)
    assert (await passes.sweep()).adopted == 1
    adopted = await record(store, drop.drop_id)
    assert (adopted.state, adopted.claims[0].claim_hash) == (DropState.CLAIMED, B)
    await settled(passes)


async def test_a_file_taken_by_a_claim_that_had_lapsed_is_given_back(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await claim(store, drop.drop_id)
    await lapse_in_time(store, drop.drop_id)
    assert (await passes.due()).lapsed == 1
    volume.take(drop.drop_id, A)

    assert (await passes.sweep()).restored == 1

    assert tree(volume) == [f"blobs/{drop.drop_id[:2]}/{drop.drop_id}"]
    assert (await record(store, drop.drop_id)).state is DropState.READY
    await settled(passes)


async def test_redis_from_before_the_commit_learns_of_upload_and_claim(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop_id, meta = await open_upload(store)
    write_blob(volume, drop_id, meta, BODY)
    volume.take(drop_id, A)
    await lapse_in_time(store, drop_id)

    report = await passes.sweep()

    assert (report.committed, report.adopted) == (1, 1)
    assert (await record(store, drop_id)).claims[0].claim_hash == A
    await settled(passes)


# Claims


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_a_claim_that_never_took_its_file_goes_back_to_ready(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop = await make_ready_drop(store, volume, BODY)
    await claim(store, drop.drop_id)
    assert (await run()).changes == 0
    await lapse_in_time(store, drop.drop_id)

    report = await run()

    assert (report.lapsed, report.removed) == (1, 0)
    assert (await record(store, drop.drop_id)).state is DropState.READY
    assert len(tree(volume)) == 1


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_an_interrupted_drop_is_burnt(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop = await make_ready_drop(store, volume, BODY)
    await claim(store, drop.drop_id)
    volume.take(drop.drop_id, A)
    assert (await run()).changes == 0
    await lapse_in_time(store, drop.drop_id)

    assert (await run()).interrupted == 1

    assert await reason(store, drop.drop_id) is GoneReason.INTERRUPTED
    assert tree(volume) == []


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_an_interrupted_drop_is_restored_where_its_sender_wished_so(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop = await make_ready_drop(store, volume, BODY, if_interrupted=IfInterrupted.RESTORE)
    await claim(store, drop.drop_id)
    volume.take(drop.drop_id, A)
    await lapse_in_time(store, drop.drop_id)

    report = await run()

    assert (report.lapsed, report.restored, report.removed) == (1, 1, 0)
    assert tree(volume) == [f"blobs/{drop.drop_id[:2]}/{drop.drop_id}"]
    restored = await record(store, drop.drop_id)
    assert (restored.state, restored.lapsed) == (DropState.READY, frozenset({A}))
    await settled(passes)


@pytest.mark.parametrize("name", ["sweep", "due"])
@pytest.mark.parametrize("moved", [False, True])
async def test_a_closed_claim_is_finished(
    store: DropStore, volume: Volume, passes: Passes, name: str, *, moved: bool
) -> None:
    run: Pass = getattr(passes, name)
    drop = await make_ready_drop(store, volume, BODY)
    await claim(store, drop.drop_id)
    volume.take(drop.drop_id, A)
    await store.release(drop.drop_id, A, "request")
    if moved:
        volume.give_back(drop.drop_id, A)

    assert (await run()).restored == 1

    assert (await record(store, drop.drop_id)).state is DropState.READY
    assert tree(volume) == [f"blobs/{drop.drop_id[:2]}/{drop.drop_id}"]
    await settled(passes)


async def test_the_claims_of_several_downloads_lapse_one_by_one(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY, max_downloads=3)
    await claim(store, drop.drop_id, A)
    await claim(store, drop.drop_id, B)
    await store.call("DEL", *keys.DUE_SHARDS)
    await let_time_pass(store, drop.drop_id, TEST_LEASES.claim + 1)

    assert (await passes.sweep()).lapsed == 2

    left = await record(store, drop.drop_id)
    assert (left.state, left.downloads_left, left.claims) == (DropState.READY, 3, ())
    assert len(tree(volume)) == 1


# Expiry


@pytest.mark.parametrize("name", ["sweep", "due"])
async def test_a_drop_expires_and_its_file_is_gone(
    store: DropStore, volume: Volume, passes: Passes, name: str
) -> None:
    run: Pass = getattr(passes, name)
    drop = await make_ready_drop(store, volume, BODY)
    await let_time_pass(store, drop.drop_id, TTL_SECONDS + 1)
    await list_as_due(store, drop.drop_id)

    report = await run()

    assert (report.expired, report.removed, report.bytes_freed) == (1, 1, FILE_BYTES)
    assert await reason(store, drop.drop_id) is GoneReason.EXPIRED
    assert tree(volume) == []
    await settled(passes)


async def test_a_live_claim_outlives_the_expiry(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await claim(store, drop.drop_id)
    volume.take(drop.drop_id, A)
    await set_fields(store, drop.drop_id, {"expires_ms": await store.now_ms() - 1})
    await list_as_due(store, drop.drop_id)
    assert (await passes.due()).changes == 0
    assert (await passes.sweep()).changes == 0


async def test_300_drops_that_expire_together_do_not_trip_the_guard(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = [await make_ready_drop(store, volume, BODY) for _ in range(300)]
    for drop in drops:
        await let_time_pass(store, drop.drop_id, TTL_SECONDS + 1)
    await list_as_due(store, *(drop.drop_id for drop in drops))
    report = await passes.due()
    assert (report.expired, report.guard) == (300, None)
    assert tree(volume) == []


async def test_the_due_pass_lists_anew_what_is_not_due_yet_and_forgets_what_never_was(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop, unknown = await make_ready_drop(store, volume, BODY), drop_id_of(mint())
    await list_as_due(store, drop.drop_id, unknown)
    await passes.due()
    expires_ms = (await record(store, drop.drop_id)).expires_ms
    assert int(await store.call("ZSCORE", keys.due(drop.drop_id), drop.drop_id)) == expires_ms
    assert await store.call("ZSCORE", keys.due(unknown), unknown) is None


# No file


async def test_a_record_without_file_is_lost_after_grace(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY, ttl_seconds=10 * GRACE)
    volume.unlink(drop.drop_id)
    assert (await passes.sweep()).kept_by_grace == 1
    await let_time_pass(store, drop.drop_id, GRACE + 1)

    report = await passes.sweep()

    assert (report.orphan_records, report.removed) == (1, 1)
    assert await reason(store, drop.drop_id) is GoneReason.LOST
    await settled(passes)


async def test_records_of_an_emptied_ephemeral_volume_become_tombstones_at_once(
    store: DropStore, volume: Volume
) -> None:
    drops = [await make_ready_drop(store, volume, BODY) for _ in range(150)]
    shutil.rmtree(volume.root)
    volume.make_root()
    await asyncio.sleep(0.002)
    passes = make_passes(store, volume, ephemeral_volume=True)

    report = await passes.sweep()

    assert (report.orphan_records, report.guard) == (150, None)
    assert await reason(store, drops[0].drop_id) is GoneReason.LOST
    await make_ready_drop(store, volume, BODY)
    await settled(passes)


# Damage and strangers


async def test_a_damaged_blob_is_reported_and_kept(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    path = volume.root / "blobs" / drop.drop_id[:2] / drop.drop_id
    os.truncate(path, FILE_BYTES - 1)
    make_old(volume)

    for _ in range(2):
        report = await passes.sweep()
        assert (report.damaged, report.changes) == (1, 0)

    assert path.exists()
    assert (await record(store, drop.drop_id)).state is DropState.READY


async def test_a_file_with_two_names_is_reported_and_kept(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    """A name that a network volume remembers of a renamed file looks alike, but has one link."""
    drop = await make_ready_drop(store, volume, BODY)
    path = volume.root / "blobs" / drop.drop_id[:2] / drop.drop_id
    os.link(path, volume.root / "claimed" / f"{drop.drop_id}.{A}")
    make_old(volume)

    await passes.sweep()
    report = await passes.sweep()

    assert (report.damaged, report.changes) == (1, 0)
    assert path.exists()


async def test_a_damaged_record_is_reported_and_its_file_kept(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await set_fields(store, drop.drop_id, {"state": "eaten by mice"})
    make_old(volume)
    report = await passes.sweep()
    assert (report.damaged, report.changes) == (1, 0)
    assert len(tree(volume)) == 1


async def test_a_key_of_another_type_stops_nothing_but_itself(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    odd = drop_id_of(mint())
    await store.call("SET", keys.drop(odd), "a string")
    drop = await make_ready_drop(store, volume, BODY)
    await store.delete(drop.drop_id)

    report = await passes.sweep()

    assert (report.damaged, report.leftovers, report.error) == (1, 1, None)
    await store.call("DEL", keys.drop(odd))


async def test_an_unusable_entry_stops_nothing_but_itself(
    store: DropStore, volume: Volume, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await make_ready_drop(store, volume, BODY)
    good = await make_ready_drop(store, volume, BODY)
    for drop in (bad, good):
        await store.delete(drop.drop_id)
    unlink = os.unlink

    def refuse(path: str) -> None:
        if str(path).endswith(bad.drop_id):
            raise PermissionError(13, "no")
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    report = await passes.sweep()

    assert (report.errors, report.leftovers, report.error) == (1, 2, None)
    assert [Path(p).name for p in tree(volume)] == [bad.drop_id]


async def test_strangers_are_reported_and_left_alone(
    store: DropStore, volume: Volume, passes: Passes, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    name = drop_id_of(mint())
    (volume.root / "blobs" / name[:2] / name).symlink_to(outside)
    (volume.root / "incoming" / drop_id_of(mint())).mkdir()
    os.mkfifo(volume.root / "claimed" / f"{drop_id_of(mint())}.{A}")
    (volume.root / "blobs" / "readme.txt").write_text("stray")
    (volume.root / "stray").write_text("stray")
    (volume.root / "incoming" / ".nfs0001").write_text("a client's own")
    gone = await make_ready_drop(store, volume, BODY)
    await store.delete(gone.drop_id)
    volume.unlink(gone.drop_id)
    (volume.root / "blobs" / gone.drop_id[:2] / gone.drop_id).symlink_to(outside)
    make_old(volume)
    before = tree(volume)

    report = await passes.sweep()

    assert tree(volume) == before
    assert (report.strangers, report.strangers_ignored, report.removed) == (6, 1, 0)
    assert report.stranger_kinds == {
        "file in blobs": 1,
        "file in root": 1,
        "folder in incoming": 1,
        "special file in claimed": 1,
        "symlink in blobs": 2,
    }
    assert outside.read_text() == "not ours"


# The guard


async def guarded_drops(store: DropStore, volume: Volume, count: int) -> list[DropId]:
    drops = [
        (await make_ready_drop(store, volume, BODY, ttl_seconds=10 * GRACE)).drop_id
        for _ in range(count)
    ]
    for drop_id in drops:
        await let_time_pass(store, drop_id, GRACE + 1)
    return drops


async def test_when_most_files_are_gone_nothing_is_deleted_until_force(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = await guarded_drops(store, volume, 300)
    for drop_id in drops[:160]:
        volume.unlink(drop_id)
    leftover = await make_ready_drop(store, volume, BODY)
    await store.delete(leftover.drop_id)

    report = await passes.sweep()

    assert "160 of 300 records have no file" in (report.guard or "")
    assert (report.removed, report.held_back) == (0, 161)
    assert len(tree(volume)) == 141
    with pytest.raises(SweepGuarded, match="160 of 300"):
        await passes.require_unguarded()
    assert (await passes.last("sweep"))["guard"] == report.guard

    forced = await passes.sweep(force=True)
    assert (forced.orphan_records, forced.leftovers, forced.guard) == (160, 1, None)
    await passes.require_unguarded()
    await settled(passes)


async def test_what_the_guard_holds_back_is_not_nibbled_away_by_the_due_pass(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = await guarded_drops(store, volume, 300)
    for drop_id in drops[:160]:
        volume.unlink(drop_id)
    await passes.sweep()
    expiring = await make_ready_drop(store, volume, BODY)
    await let_time_pass(store, expiring.drop_id, TTL_SECONDS + 1)
    await list_as_due(store, drops[0], expiring.drop_id)

    report = await passes.due()

    assert (report.orphan_records, report.held_back, report.expired) == (0, 1, 1)
    assert (await record(store, drops[0])).state is DropState.READY


async def test_the_guard_lets_go_when_the_files_are_back(
    store: DropStore, volume: Volume, passes: Passes, tmp_path: Path
) -> None:
    await guarded_drops(store, volume, 120)
    shutil.move(volume.root / "blobs", tmp_path / "elsewhere")
    for shard in volume.shards():
        (volume.root / "blobs" / shard).mkdir(parents=True)
    assert (await passes.sweep()).guard is not None
    shutil.rmtree(volume.root / "blobs")
    shutil.move(tmp_path / "elsewhere", volume.root / "blobs")
    await settled(passes)
    await passes.require_unguarded()


async def test_redis_of_another_volume_trips_the_guard(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    await guarded_drops(store, volume, 3)
    orphan = drop_id_of(mint())
    volume.create_part(orphan).close()
    make_old(volume)
    volume.write_marker(Marker("another", 1), replace=True)
    before = tree(volume)

    for report in (await passes.sweep(), await passes.due()):
        assert "another Redis" in (report.guard or "")
        assert report.changes == 0
    assert tree(volume) == before
    with pytest.raises(SweepGuarded, match="another Redis"):
        await passes.require_unguarded()

    forced = await passes.sweep(force=True)
    assert (forced.orphan_files, forced.guard) == (1, None)


async def test_an_unmounted_volume_trips_the_guard(
    store: DropStore, volume: Volume, passes: Passes, tmp_path: Path
) -> None:
    drops = await guarded_drops(store, volume, 3)
    await list_as_due(store, *drops)
    volume.root.rename(tmp_path / "unmounted")
    for mount_point in ("missing", "empty"):
        if mount_point == "empty":
            volume.root.mkdir()
        for report in (await passes.sweep(), await passes.due()):
            assert report.guard is not None
            assert report.changes == 0
    for drop_id in drops:
        assert (await record(store, drop_id)).state is DropState.READY
    volume.root.rmdir()
    (tmp_path / "unmounted").rename(volume.root)
    await settled(passes)


async def test_a_volume_that_vanishes_in_mid_sweep_ends_the_sweep(
    store: DropStore,
    volume: Volume,
    passes: Passes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drops = await guarded_drops(store, volume, 20)
    gone = tmp_path / "unmounted"
    scan_blobs = volume.scan_blobs

    def unmount_half_way(shard: str) -> object:
        if shard == "80":
            volume.root.rename(gone)
            volume.root.mkdir()
        return scan_blobs(shard)

    monkeypatch.setattr(volume, "scan_blobs", unmount_half_way)
    report = await passes.sweep()

    assert report.error is not None
    assert report.changes == 0
    for drop_id in drops:
        assert (await record(store, drop_id)).state is DropState.READY
    volume.root.rmdir()
    gone.rename(volume.root)


async def test_a_volume_exchanged_between_plan_and_deletion_keeps_everything(
    store: DropStore, volume: Volume, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await store.delete(drop.drop_id)
    scan_blobs = volume.scan_blobs

    def exchange_at_the_end(shard: str) -> object:
        if shard == "ff":
            volume.write_marker(Marker("another", 1), replace=True)
        return scan_blobs(shard)

    monkeypatch.setattr(volume, "scan_blobs", exchange_at_the_end)
    report = await passes.sweep()
    assert report.guard is not None
    assert len(tree(volume)) == 1


async def test_a_sweep_without_redis_says_so_and_deletes_nothing(
    store: DropStore, volume: Volume, tmp_path: Path
) -> None:
    drop = await make_ready_drop(store, volume, BODY)
    await forget(store, drop.drop_id)
    make_old(volume)
    nobody = make_store(f"unix://{tmp_path}/nobody")
    passes = make_passes(nobody, volume)

    report = await passes.sweep()

    assert report.error == "Redis does not answer."
    assert report.guard is None
    assert (await passes.last("sweep"))["error"] == report.error
    assert len(tree(volume)) == 1
    await nobody.close()


# Dry runs, several janitors


async def make_a_mess(store: DropStore, volume: Volume) -> None:
    """Every row of the table, some of them several times."""
    for _ in range(3):
        drops = [await make_ready_drop(store, volume, BODY, ttl_seconds=9 * GRACE)
                 for _ in range(9)]  # fmt: skip
        ids = [drop.drop_id for drop in drops]
        await forget(store, ids[0])
        await store.delete(ids[1])
        volume.unlink(ids[2])
        await let_time_pass(store, ids[2], GRACE + 1)
        await claim(store, ids[3])
        volume.take(ids[3], A)
        await lapse_in_time(store, ids[3])
        await claim(store, ids[4])
        volume.take(ids[4], A)
        await forget(store, ids[4])
        volume.take(ids[5], B)
        await let_time_pass(store, ids[6], 9 * GRACE)
        await claim(store, ids[7])
        volume.take(ids[7], A)
        await store.release(ids[7], A, "request")
        volume.create_part(drop_id_of(mint())).close()
        lapsed, meta = await open_upload(store)
        write_blob(volume, lapsed, meta, BODY)
        await lapse_in_time(store, lapsed)
    make_old(volume)


MESS = {
    "rebuilt": 6,
    "leftovers": 3,
    "orphan_records": 3,
    "lapsed": 3,
    "adopted": 3,
    "expired": 3,
    "restored": 3,
    "orphan_files": 3,
    "committed": 3,
}


async def test_a_dry_run_says_everything_and_changes_nothing(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    await make_a_mess(store, volume)
    keys_before, files_before = await snapshot(store), tree(volume)

    report = await passes.sweep(dry_run=True)

    assert {name: getattr(report, name) for name in MESS} == MESS
    assert len(report.actions) == sum(MESS.values())
    assert {"action", "drop_id"} == set(report.actions[0])
    assert await snapshot(store) == keys_before
    assert tree(volume) == files_before


async def test_one_sweep_mends_everything_at_once(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    await make_a_mess(store, volume)
    report = await passes.sweep()
    assert {name: getattr(report, name) for name in MESS} == MESS
    assert report.errors == 0
    await settled(passes)
    assert await store.usage() == (len(tree(volume)) * FILE_BYTES, len(tree(volume)))


async def test_three_janitors_without_the_lock_do_what_one_does(
    store: DropStore, volume: Volume
) -> None:
    await make_a_mess(store, volume)
    janitors = [make_passes(store, volume, leader_lock=False) for _ in range(3)]

    reports = await asyncio.gather(*(j.sweep() for j in janitors), *(j.due() for j in janitors))

    assert [r.errors for r in reports] == [0] * 6
    for name in ("rebuilt", "orphan_records", "lapsed", "adopted", "expired"):
        assert sum(getattr(r, name) for r in reports) == MESS[name], name
    await settled(janitors[0])
    living = [d async for page in store.scan() for d in page]
    states = [(await record(store, d)).state for d in living]
    # Of each nine and the two uploads: five are ready, two claimed; the rest is gone.
    assert (states.count(DropState.READY), states.count(DropState.CLAIMED)) == (12, 6)


async def test_a_sweep_beside_claims_and_uploads_takes_nothing_from_them(
    store: DropStore, volume: Volume, passes: Passes
) -> None:
    drops = [(await make_ready_drop(store, volume, BODY)).drop_id for _ in range(40)]
    make_old(volume)
    busy = True

    async def sweep_all_the_time() -> list[Report]:
        reports = []
        while busy:
            reports.append(await passes.sweep())
        return reports

    async def is_ready(drop_id: DropId) -> bool:
        return (await record(store, drop_id)).state is DropState.READY

    async def visit(drop_id: DropId) -> None:
        for turn in range(6):
            claim_hash = ClaimHash(f"{turn:032x}")
            await claim(store, drop_id, claim_hash)
            assert volume.take(drop_id, claim_hash)
            await store.release(drop_id, claim_hash, "request")
            volume.give_back(drop_id, claim_hash)
            drop = await record(store, drop_id)
            if drop.claim(claim_hash) is not None:
                await store.restore(drop_id, claim_hash, revision=drop.revision)
            await wait_until_async(lambda: is_ready(drop_id), 10, what="the drop to be ready")

    sweeping = asyncio.create_task(sweep_all_the_time())
    await asyncio.gather(*(visit(drop_id) for drop_id in drops))
    busy = False
    reports = await sweeping

    assert sum(r.removed for r in reports) == 0
    assert {(await record(store, d)).state for d in drops} == {DropState.READY}
    assert len(tree(volume)) == 40
    await settled(passes)
