"""Whether the services' ports are free, before anything is started."""

from __future__ import annotations

import errno
import os
import socket

from oncedrop_common.errors import ConfigurationError
from oncedrop_common.settings import Settings

SERVICES = ("ingest", "deliver", "janitor")


def port_of(settings: Settings, service: str) -> int:
    """The port this service listens on."""
    port: int = getattr(settings, f"{service}_port")
    return port


def local_url(settings: Settings, service: str) -> str:
    """Where a client on this machine reaches the service."""
    host = settings.host
    if host in {"127.0.0.1", "0.0.0.0", "::1", "::"}:
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(settings, service)}"


def probe_url(settings: Settings, service: str) -> str:
    """As local_url, with an address in place of `localhost`, which may mean another one first."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(settings, service)}"


def require_free_ports(settings: Settings) -> None:
    """Look whether each service could listen.

    Raises:
        ConfigurationError: A port is taken, asked for twice, or not ours to take; names it.
    """
    seen: dict[int, str] = {}
    for service in SERVICES:
        port, name = port_of(settings, service), f"ONCEDROP_{service.upper()}_PORT"
        if port in seen:
            raise ConfigurationError(f"port {port} is asked for twice: {seen[port]} and {name}")
        seen[port] = name
        _require_free(settings.host, port, name)


def _require_free(host: str, port: int, name: str) -> None:
    where = f"{host}:{port} (ONCEDROP_HOST, {name})"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {where}: {exc.strerror}") from exc
    for family, kind, proto, _, address in found:
        try:
            with socket.socket(family, kind, proto) as probe:
                # As the services do: a port that only waits out its last connections is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise ConfigurationError(f"port {port} is in use; {name} names another") from exc
            # "localhost" may name an IPv6 address on a machine that has none.
            if exc.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                continue
            raise ConfigurationError(
                f"cannot listen on {where}: {os.strerror(exc.errno or 0)}"
            ) from exc
