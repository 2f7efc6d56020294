"""A large file in: PUT and form, as shipped and with hash and fsync switched off."""

from __future__ import annotations

from functools import partial

from bench import load
from bench.bare import FSYNC, HASH
from bench.comparing import MIB, Bench, Contender
from bench.floors import BARE
from bench.nginx import running_nginx
from bench.results import Case
from bench.stack import running_stack
from bench.starlette_app import running_usual
from bench.transfers import upload_drops, upload_kept


def measure(bench: Bench) -> None:
    """Compare with nginx's WebDAV PUT and with Starlette's form() and stream()."""
    mib = 256 if bench.quick else 1024
    payload = bench.payload(mib * MIB)
    stored = bench.folder / "usual"
    with (
        running_nginx(bench.folder / "nginx") as nginx,
        running_stack(bench.folder / "stack") as stack,
        running_usual(stored) as usual,
    ):
        stack.start_all()
        ingest = stack.ingest
        nginx_put = partial(
            upload_kept,
            nginx.server,
            load.put,
            [f"{nginx.server.url}/put/file"],
            payload,
            nginx.put,
        )
        put_drop = partial(upload_drops, stack, source=payload, send=load.put)
        post_drop = partial(upload_drops, stack, source=payload, send=load.post_form)
        put: dict[str, Contender] = {
            "nginx": nginx_put,
            "nginx, then fsync": partial(nginx_put, sync=True),
            "oncedrop": partial(put_drop, ingest, urls=[f"{ingest.url}/big.bin"]),
        }
        form: dict[str, Contender] = {
            "nginx": nginx_put,
            "oncedrop": partial(post_drop, ingest, urls=[f"{ingest.url}/upload"]),
        }
        put_case = Case("upload", f"PUT {mib} MiB")
        form_case = Case("upload", f"form {mib} MiB (nginx: PUT)")
        bare = stack.start("ingest", HASH, FSYNC)
        put[BARE] = partial(put_drop, bare, urls=[f"{bare.url}/big.bin"])
        form[BARE] = partial(post_drop, bare, urls=[f"{bare.url}/upload"])
        put["Starlette stream()"] = partial(
            upload_kept, usual, load.put, [f"{usual.url}/file"], payload, stored
        )
        form["Starlette form()"] = partial(
            upload_kept, usual, load.post_form, [f"{usual.url}/form"], payload, stored
        )
        bench.compare(put_case, put)
        bench.compare(form_case, form)
