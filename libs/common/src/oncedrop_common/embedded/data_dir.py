"""The data folder of an embedded stack: made, locked, and home of the admin token.

lock           held by the stack that runs on this folder, and by its processes
admin_token    made at the first start, readable by its owner only
redis/         see valkey.py
volume/        unless ONCEDROP_VOLUME_DIR names another
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from oncedrop_common.errors import ConfigurationError, DependencyError
from oncedrop_common.settings import Settings
from oncedrop_common.volume import Volume

_TOKEN_BYTES = 24


@contextlib.contextmanager
def locked_data_dir(folder: Path) -> Iterator[int]:
    """Make the folder when it is missing, and hold it against another stack.

    Yields:
        The lock's descriptor. A child that inherits it holds the lock too, so that a stack whose
        launcher was killed is still in the way of the next one until its last process is gone.

    Raises:
        ConfigurationError: It cannot be made or written, or another stack holds it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigurationError(
            f"the data folder {folder} (ONCEDROP_DATA_DIR) cannot be used: {exc.strerror}"
        ) from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigurationError(
                f"another oncedrop runs on the data folder {folder} (ONCEDROP_DATA_DIR)"
            ) from exc
        yield fd
    finally:
        os.close(fd)


def prepare_volume(settings: Settings) -> None:
    """Make the volume's folder inside the data folder; a volume named by the operator must exist.

    Making a folder where a mount is missing would hide that the drops are elsewhere.

    Raises:
        ConfigurationError: It cannot be made, or is not there.
    """
    path = settings.volume_path
    if settings.volume_dir is not None:
        if not path.is_dir():
            raise ConfigurationError(f"ONCEDROP_VOLUME_DIR {path} is no folder")
        return
    try:
        Volume(path).make_root()
    except DependencyError as exc:
        raise ConfigurationError(f"the volume {path} cannot be made: {exc.detail}") from exc


def admin_token(folder: Path) -> str:
    """The token kept in the folder; made at the first call.

    Raises:
        ConfigurationError: It cannot be read or written, or is empty.
    """
    path = folder / "admin_token"
    try:
        if not path.exists():
            _make_token(path)
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the admin token in {path} cannot be used: {exc}") from exc
    if not token:
        raise ConfigurationError(f"the admin token in {path} is empty; remove the file")
    return token


def _make_token(path: Path) -> None:
    # Linked into place whole, so that a stack killed in between leaves no empty token behind.
    draft = path.with_name(f".admin_token-{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
