"""The order of things: check, start valkey, start the services, say so, wait, stop all of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TextIO, TypeVar

import httpx

from oncedrop_common.embedded import data_dir, ports, valkey
from oncedrop_common.embedded.processes import Child, Processes, process_types
from oncedrop_common.errors import ConfigurationError
from oncedrop_common.settings import Settings

# Longer than the services give an upload in progress and what is cut then to clean up.
STOP_GRACE_SECONDS = 20
# A large append-only file takes a while to load.
VALKEY_START_SECONDS = 300
READY_SECONDS = 30
_POLL_SECONDS = 0.1
# `timeout` and the like tell both make and us, and make tells us once more: that is one stop.
_ONE_STOP_SECONDS = 1

T = TypeVar("T")


async def run_stack(settings: Settings) -> int:
    """Run the stack until Ctrl-C, SIGTERM or the end of one of its processes.

    Nothing is left running when this returns or raises.

    Returns:
        0 when it was told to stop, 1 when a process ended by itself.

    Raises:
        ConfigurationError: It cannot start.
    """
    folder = settings.data_dir.absolute()
    with data_dir.locked_data_dir(folder) as lock:
        data_dir.prepare_volume(settings)
        ports.require_free_ports(settings)
        commands = process_types()
        environment = _environment(settings, folder)
        redis_folder = folder / "redis"
        if settings.redis_url is None:
            valkey.find_server()
            environment["ONCEDROP_REDIS_URL"] = valkey.embedded_url(redis_folder)
            valkey.write_config(redis_folder, environment["ONCEDROP_REDIS_URL"])
        else:
            commands.pop("valkey")
        stack = _Stack(settings, environment, Processes(list(commands)), lock)
        return await stack.run(commands)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    """What the processes get: ours, and what was decided here."""
    token = settings.admin_token
    return {
        **os.environ,
        "ONCEDROP_DATA_DIR": str(folder),
        "ONCEDROP_ADMIN_TOKEN": (
            token.get_secret_value() if token else data_dir.admin_token(folder)
        ),
        "PYTHONUNBUFFERED": "1",
    }


class _Ended(Exception):
    """The stack has to stop; child is the process that ended by itself, if that is why."""

    def __init__(self, child: Child | None) -> None:
        super().__init__()
        self.child = child


class _Stack:
    def __init__(
        self, settings: Settings, environment: dict[str, str], processes: Processes, lock: int
    ) -> None:
        self.settings = settings
        self.environment = environment
        self.processes = processes
        self.lock = lock
        self.told_to_stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.told_at = 0.0

    async def run(self, commands: dict[str, list[str]]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP, and means it.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal)
        try:
            await self._start(commands)
            await self._unless_ended(asyncio.Event().wait())
        except _Ended as end:
            if end.child:
                self._say(self._why_ended(end.child), sys.stderr)
                return 1
            self._say("stopping; uploads in progress get a moment (Ctrl-C again: none)")
        finally:
            await self.processes.stop(STOP_GRACE_SECONDS, self.hurry, last="valkey")
        return 0

    async def _start(self, commands: dict[str, list[str]]) -> None:
        for name, command in commands.items():
            await self.processes.start(name, command, self.environment, self.lock)
            if name == "valkey":
                await self._unless_ended(self._valkey_answers())
        unready = await self._unless_ended(self._services_ready())
        self.processes.say(_banner(self.settings, self.environment["ONCEDROP_ADMIN_TOKEN"]))
        for name, reason in unready.items():
            self._say(f"{name} is not ready yet ({reason}); see its lines above", sys.stderr)

    def _on_signal(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self.told_to_stop.is_set():
            self.told_to_stop.set()
            self.told_at = now
        elif now - self.told_at > _ONE_STOP_SECONDS:
            self.hurry.set()

    async def _unless_ended(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, unless the stack has to stop meanwhile.

        Raises:
            _Ended: It has to.
        """
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self.told_to_stop.wait())
        unread = asyncio.create_task(self.processes.output_gone.wait())
        end = asyncio.create_task(self.processes.first_end())
        tasks: tuple[asyncio.Task[Any], ...] = (task, stop, unread, end)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stop.done() or unread.done():
                raise _Ended(None)
            if end.done():
                raise _Ended(end.result())
            return task.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)

    async def _valkey_answers(self) -> None:
        url = self.environment["ONCEDROP_REDIS_URL"]
        try:
            async with asyncio.timeout(VALKEY_START_SECONDS):
                while not valkey.answers(url):  # noqa: ASYNC110 - another process has no event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as exc:
            raise ConfigurationError(
                f"valkey did not answer within {VALKEY_START_SECONDS} s"
            ) from exc

    async def _services_ready(self) -> dict[str, str]:
        """Wait until all are ready, or READY_SECONDS are over.

        A service may say for good that it is not: its guard waits for the operator's word, which
        only a running janitor can take. So that is no reason to stop.

        Returns:
            What those answered that are not ready.
        """
        unready = dict.fromkeys(ports.SERVICES, "no answer")
        # Without the environment's proxies: these addresses are our own.
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_SECONDS):
                    while unready:
                        for service in list(unready):
                            url = ports.probe_url(self.settings, service) + "/readyz"
                            with contextlib.suppress(httpx.HTTPError):
                                answer = await client.get(url)
                                unready[service] = _why_unready(answer)
                                if answer.is_success:
                                    del unready[service]
                        await asyncio.sleep(_POLL_SECONDS if unready else 0)
        return unready

    def _why_ended(self, child: Child) -> str:
        log = self.settings.data_dir / "redis" / valkey.LOG_NAME
        where = f"see {log}" if child.name == "valkey" else "see its lines above"
        return f"{child.name} ended by itself ({child.how_it_ended()}; {where}); stopping the rest"

    def _say(self, line: str, file: TextIO | None = None) -> None:
        self.processes.say(f"oncedrop: {line}", file)


def _why_unready(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, LookupError, AttributeError):
        checks = answer.json()["checks"]
        return "; ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok")
    return f"/readyz says {answer.status_code}"


def _banner(settings: Settings, token: str) -> str:
    upload = ports.local_url(settings, "ingest")
    shown = (
        "the one in ONCEDROP_ADMIN_TOKEN"
        if settings.admin_token
        else f"{token}  (kept in {settings.data_dir / 'admin_token'})"
    )
    return f"""
oncedrop is ready
  upload       {upload}
  download     {ports.local_url(settings, "deliver")}
  janitor      {ports.local_url(settings, "janitor")}/status
  admin token  {shown}
  try          curl -T README.md {upload}
Ctrl-C stops it; drops are kept for the next start
"""
