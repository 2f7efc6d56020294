"""What a Starlette program usually does: FileResponse, request.form(), request.stream().

And how a link that works once is usually made: WATCH, read, MULTI, DEL, EXEC, then the file is
read and removed. BENCH_FOLDER and BENCH_REDIS_URL say where.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from redis.asyncio import Redis, WatchError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

KEY = "usual:file:"


async def get(request: Request) -> Response:
    """A file, by FileResponse."""
    return FileResponse(request.app.state.folder / request.path_params["name"])


async def put(request: Request) -> Response:
    """The raw body, chunk by chunk into a file."""
    with (request.app.state.folder / secrets.token_hex(8)).open("wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
    return PlainTextResponse("stored\n", 201)


async def post_form(request: Request) -> Response:
    """A form: parsed into a temporary file, then copied to its place."""
    async with request.form() as form:
        upload = form["file"]
        if not isinstance(upload, UploadFile):
            return PlainTextResponse("no file\n", 400)
        with (request.app.state.folder / secrets.token_hex(8)).open("wb") as file:
            await run_in_threadpool(shutil.copyfileobj, upload.file, file)
    return PlainTextResponse("stored\n", 201)


async def get_once(request: Request) -> Response:
    """A file whose record goes with the first reader."""
    key = KEY + request.path_params["name"]
    async with request.app.state.redis.pipeline() as pipeline:
        try:
            await pipeline.watch(key)
            path = await pipeline.get(key)
            if path is None:
                return PlainTextResponse("gone\n", 410)
            pipeline.multi()
            pipeline.delete(key)
            await pipeline.execute()
        except WatchError:
            return PlainTextResponse("gone\n", 410)
    return Response(_read_and_remove(Path(os.fsdecode(path))))


def _read_and_remove(file: Path) -> bytes:
    data = file.read_bytes()
    file.unlink()
    return data


def create_app() -> Starlette:
    """The application, for the folder and the Redis of the environment."""
    app = Starlette(
        routes=[
            Route("/once/{name}", get_once),
            Route("/form", post_form, methods=["POST"]),
            Route("/{name}", get),
            Route("/{name}", put, methods=["PUT"]),
        ]
    )
    app.state.folder = Path(os.environ["BENCH_FOLDER"])
    app.state.redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    return app
