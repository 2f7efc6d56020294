"""What services do to the volume, to Redis and to their clients, recorded in order.

The services run in this process, on a real server each; the system calls that change a file or
folder, the store's scripts and the application's answers pass through a shim. What the shim does
not know would show: `Disk.whole` of all steps must be what lies in the real folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncedrop_common.drops import DropId
from oncedrop_common.http.zero_copy import protocol_for
from oncedrop_common.settings import Settings
from oncedrop_common.store import keys
from oncedrop_common.store.connection import StoreConnection
from oncedrop_common.store.scripts import Script
from support.services import files_in
from support.valkey import admin
from support.waiting import wait_until

Records = Mapping[bytes, bytes]
"""Every drop's record as DUMP gives it, by its key."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done.

    Attributes:
        what: `create`, `write`, `sync_file`, `sync_folder`, `rename`, `unlink`; `ask` and `told`
            of a script; `answer` and `bytes` to a client.
        name: Path in the volume, the script, or the service.
        to: A rename's new path; the script's word; the answer's status.
        file: Which file, whatever its name is.
        offset: Of a write.
        data: Of a write.
        covers: How many steps before it a sync makes safe: those done before it began.
        records: Redis, after the script.
    """

    what: str
    name: str
    to: str = ""
    file: int = -1
    offset: int = 0
    data: bytes = field(default=b"", repr=False)
    covers: int = 0
    records: Records = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Shortly."""
        return " ".join(part for part in (self.what, self.name, self.to) if part)


class Recording:
    """Steps since it began.

    Attributes:
        baseline: The volume's files when it began, with their content; all of it is on the disk.
        records: Redis when it began.
        on: Whether steps are recorded.
        files: The number of each file that has a name now.
        lock: Held over each call and the note of it, so that both come in the same order.
    """

    def __init__(self, root: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.baseline: dict[str, bytes] = {}
        self.records: Records = {}
        self.on = False
        self.lock = threading.RLock()
        self.files: dict[str, int] = {}
        self._redis_url = redis_url
        self._count = 0
        self._install(monkeypatch)

    def begin(self) -> None:
        """All that was done until now is on the disk."""
        with self.lock:
            self.steps.clear()
            self.baseline = content_of(self.root)
            self._count = 0
            self.files = {name: self.new_file() for name in self.baseline}
            self.records = self._dump()
            self.on = True

    def end(self) -> None:
        """Nothing more is recorded; what is being done is noted first."""
        with self.lock:
            self.on = False

    def new_file(self) -> int:
        """A number that no file had before."""
        self._count += 1
        return self._count - 1

    def watched(self, app: ASGIApp, service: str) -> ASGIApp:
        """The application; what it answers is recorded."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_on(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.note(Step("answer", service, str(message["status"])))
                elif message.get("count", 0) or message.get("body"):
                    self.note(Step("bytes", service))
                await send(message)

            await app(scope, receive, send_on if scope["type"] == "http" else send)

        return run

    # The shim.

    def _install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = _SystemCalls(self)
        for name in calls.known:
            monkeypatch.setattr(os, name, getattr(calls, name))
        real_run = StoreConnection.run

        async def run(
            store: StoreConnection, script: Script[Any], drop_id: DropId, *args: Any
        ) -> Any:
            name = script.results.__name__
            self.note(Step("ask", name))
            word, drop = await real_run(store, script, drop_id, *args)
            with self.lock:
                self.note(Step("told", name, str(word), records=self._dump()))
            return word, drop

        monkeypatch.setattr(StoreConnection, "run", run)

    def note(self, step: Step) -> None:
        """One step more, if it is recorded at all."""
        with self.lock:
            if self.on:
                self.steps.append(step)

    def inside(self, path: Any) -> str | None:
        """The path in the volume; None for one elsewhere."""
        text = "" if isinstance(path, int) else os.fsdecode(path)
        prefix = f"{self.root}/"
        return text.removeprefix(prefix) if text.startswith(prefix) else None

    def _dump(self) -> Records:
        with admin(self._redis_url) as redis:
            names: list[bytes] = list(redis.scan_iter(match=keys.DROP_PREFIX + "*", count=1000))
            dumps: list[Any] = [redis.dump(name) for name in names]
        return {n: d for n, d in zip(names, dumps, strict=True) if d is not None}


class _SystemCalls:
    """As those of `os`, for whatever lies in the recording's volume."""

    known = ("open", "close", "pwrite", "write", "fsync", "fdatasync", "rename", "replace", "link",
             "unlink", "remove")  # fmt: skip

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._real = SimpleNamespace(**{name: getattr(os, name) for name in self.known})
        # What a descriptor is open on: the number of a file, or the path of a folder.
        self._opened: dict[int, int | str] = {}

    def open(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        """Also tells a file that was made."""
        with self._recording.lock:
            fd: int = self._real.open(path, flags, *args, **kwargs)
            self._opened.pop(fd, None)
            name = self._recording.inside(path)
            if name is None or not self._recording.on:
                return fd
            files = self._recording.files
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                self._opened[fd] = name
            elif flags & os.O_CREAT and name not in files:
                files[name] = self._opened[fd] = self._recording.new_file()
                self._recording.note(Step("create", name, file=files[name]))
            elif name in files:
                self._opened[fd] = files[name]
            return fd

    def close(self, fd: int) -> None:
        """The number may be used for something else next."""
        with self._recording.lock:
            self._opened.pop(fd, None)
            self._real.close(fd)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """Tells what was written."""
        with self._recording.lock:
            count: int = self._real.pwrite(fd, data, offset)
            self._wrote(fd, data, count, offset)
            return count

    def write(self, fd: int, data: Any) -> int:
        """Tells what was written, at the file's own position."""
        with self._recording.lock:
            count: int = self._real.write(fd, data)
            if fd in self._opened:
                self._wrote(fd, data, count, os.lseek(fd, 0, os.SEEK_CUR) - count)
            return count

    def _wrote(self, fd: int, data: Any, count: int, offset: int) -> None:
        file = self._opened.get(fd)
        if isinstance(file, int):
            written = bytes(memoryview(data)[:count])
            self._recording.note(Step("write", "", file=file, offset=offset, data=written))

    def fsync(self, fd: int) -> None:
        """Makes safe what was done before it began; others may go on meanwhile."""
        covers = len(self._recording.steps)
        self._real.fsync(fd)
        match self._opened.get(fd):
            case str() as folder:
                self._recording.note(Step("sync_folder", folder, covers=covers))
            case int() as file:
                self._recording.note(Step("sync_file", "", file=file, covers=covers))

    fdatasync = fsync

    def rename(self, source: Any, target: Any, **kwargs: Any) -> None:
        """Tells a file that moved."""
        with self._recording.lock:
            self._real.rename(source, target, **kwargs)
            old, new = self._recording.inside(source), self._recording.inside(target)
            if old is not None and new is not None and self._recording.on:
                files = self._recording.files
                files[new] = files.pop(old)
                self._recording.note(Step("rename", old, new, file=files[new]))

    replace = rename

    def link(self, source: Any, target: Any, **kwargs: Any) -> None:
        """Only a volume's marker is linked, before anything is recorded."""
        assert not self._recording.on or self._recording.inside(target) is None
        self._real.link(source, target, **kwargs)

    def unlink(self, path: Any, **kwargs: Any) -> None:
        """Tells a file that is gone."""
        with self._recording.lock:
            self._real.unlink(path, **kwargs)
            name = self._recording.inside(path)
            if name is not None and self._recording.on:
                file = self._recording.files.pop(name)
                self._recording.note(Step("unlink", name, file=file))

    remove = unlink


def content_of(root: Path) -> dict[str, bytes]:
    """Every file of a drop in the volume."""
    return {str(path.relative_to(root)): path.read_bytes() for path in files_in(root)}


@contextlib.contextmanager
def served(app: ASGIApp, settings: Settings) -> Iterator[str]:
    """The application on a server in a thread of its own; its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=protocol_for(settings), lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started, 20, what="the server")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
