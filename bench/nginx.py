"""nginx as the measure: sendfile for downloads, WebDAV PUT for uploads."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path

from bench.ports import free_port
from bench.servers import Server, answers, running
from bench.tools import tool

# As Debian's nginx.conf, where that has to do with speed: sendfile, tcp_nopush, epoll.
_CONFIG = """\
{user}
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        root {folder}/root;
        location /put/ {{
            dav_methods PUT;
            client_body_buffer_size 1m;
            client_max_body_size 0;
        }}
    }}
}}
"""


class Nginx:
    """A running nginx.

    Attributes:
        server: Its processes and its address.
        root: The folder it serves.
        put: The folder that `PUT /put/<name>` writes to.
    """

    def __init__(self, server: Server, root: Path) -> None:
        self.server = server
        self.root = root
        self.put = root / "put"


@contextlib.contextmanager
def running_nginx(folder: Path, *, workers: int = 1) -> Iterator[Nginx]:
    """Start nginx in a folder of its own, on a port of its own; ended with the block.

    Raises:
        BenchError: It is not installed or does not start.
    """
    folder.mkdir(parents=True)
    (folder / "root" / "put").mkdir(parents=True)
    port = free_port()
    # As root it would give its workers to `nobody`, who may not read here.
    user = getpass.getuser()
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder,
            port=port,
            workers=workers,
            user=f"user {user} {user};" if user == "root" else "",
        )
    )
    url = f"http://127.0.0.1:{port}"
    probe = folder / "root" / "ready"
    probe.write_text("ready\n")
    with running(
        "nginx",
        [tool("nginx"), "-e", "stderr", "-p", folder, "-c", config],
        folder / "log",
        lambda: answers(f"{url}/ready"),
        url=url,
        workers_serve=True,
    ) as server:
        yield Nginx(server, folder / "root")
