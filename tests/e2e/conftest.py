"""One deliver process for all tests of this folder that need no more, once for each way to send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oncedrop_common.pairing import Pairing
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from support.services import Service, running


@pytest.fixture(scope="session")
def shared_volume_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's volume."""
    return tmp_path_factory.mktemp("shared") / "volume"


@pytest.fixture
async def volume(store: DropStore, shared_volume_dir: Path) -> Volume:
    """The session's volume, paired with an emptied Redis."""
    volume = Volume(shared_volume_dir)
    volume.make_root()
    await Pairing(store, volume, ephemeral=False).check()
    return volume


@pytest.fixture(scope="module", params=["zero_copy", "plain"])
def deliver_process(
    request: pytest.FixtureRequest,
    module_redis_url: str,
    shared_volume_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """The module's deliver: no two modules' processes may share a Redis and not a volume."""
    Volume(shared_volume_dir).make_root()
    log = tmp_path_factory.mktemp("logs") / "deliver.log"
    zero_copy = "1" if request.param == "zero_copy" else "0"
    with running(
        "deliver", module_redis_url, shared_volume_dir, log, zero_copy=zero_copy
    ) as service:
        yield service


@pytest.fixture
def deliver(deliver_process: Service, volume: Volume) -> Service:
    """A running deliver whose Redis and volume hold nothing of other tests' business."""
    del volume  # paired before the first request
    return deliver_process
