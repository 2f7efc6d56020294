"""`python -m oncedrop_deliver`."""

from __future__ import annotations

from operator import attrgetter

from starlette.types import ASGIApp

from oncedrop_common.http.server import run_main
from oncedrop_common.settings import Settings
from oncedrop_common.store.drop_store import DropStore
from oncedrop_common.volume import Volume
from oncedrop_deliver.app import create_app


def _create(settings: Settings) -> ASGIApp:
    return create_app(settings, DropStore.from_settings(settings), Volume(settings.volume_path))


if __name__ == "__main__":
    run_main("deliver", _create, attrgetter("deliver_port"), attrgetter("workers"))
