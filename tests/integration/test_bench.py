"""The bench's own clients and probes: what they must notice, or their numbers mean nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from threading import Thread

import psutil
import pytest
from bench import drain
from bench.probing import probed
from bench.results import Case, Run
from bench.servers import BenchError, Server, running, watched
from bench.tools import require_tools

from support.waiting import wait_until

BODY = b"x" * 100_000
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + BODY


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives one client this answer and ends the connection; its port."""
    with create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def drained(answer: bytes) -> subprocess.CompletedProcess[str]:
    with answering(answer) as port:
        return subprocess.run(
            [sys.executable, "-m", drain.__name__, str(len(BODY)), "1"],
            input=f"http://127.0.0.1:{port}/file",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def test_the_download_client_takes_a_whole_file() -> None:
    assert '"seconds"' in drained(WHOLE).stdout


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (WHOLE[:-1], "ended after 99999 of 100000 bytes"),
        (WHOLE + b"x", "more than 100000 bytes"),
        (b"HTTP/1.1 410 Gone\r\n\r\n", "410 Gone"),
        (b"", "ended without an answer"),
    ],
)
def test_the_download_client_fails_on_anything_else(answer: bytes, said: str) -> None:
    done = drained(answer)

    assert done.returncode == 1
    assert said in done.stderr


def test_a_probe_tells_how_long_answers_take(redis_url: str) -> None:
    with probed(redis_url, every_ms=1) as seen:
        time.sleep(0.5)

    assert seen.count > 10
    assert 0 < seen.p50 <= seen.p99 <= seen.worst


def test_a_probe_fails_on_a_refusal() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    with (
        answering(answer) as port,
        pytest.raises(BenchError, match="503"),
        probed(f"http://127.0.0.1:{port}", "GET", "/", every_ms=1),
    ):
        time.sleep(0.2)


@contextmanager
def a_server(folder: Path, code: str) -> Iterator[Server]:
    """A Python program as a server; ready once it has made the file `ready`."""
    ready = folder / "ready"
    program = f"open({str(ready)!r}, 'w').close()\n{code}"
    command = [sys.executable, "-c", program]
    with running("it", command, folder / "log", ready.exists, workers_serve=True) as server:
        yield server


def test_cpu_and_memory_of_all_processes_of_a_server_count(tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    code = f"""
import multiprocessing, os, time
def work():
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    block = bytearray(50 * 2**20)
    del block
    while time.process_time() < 0.3:
        pass
    open({str(done)!r}, "w").close()
    time.sleep(60)
multiprocessing.get_context("fork").Process(target=work).start()
time.sleep(60)
"""
    with a_server(tmp_path, code) as server:
        wait_until(lambda: len(server.processes()) == 2, 10, what="the worker")
        before = server.resident_bytes()
        with watched(server) as usage:
            go.touch()
            wait_until(done.exists, 30, what="the worker's work")

    assert 0.2 < usage.cpu_seconds < 0.5
    assert usage.peak_bytes - before > 40 * 2**20


def test_nothing_of_a_server_is_left_when_its_block_fails(tmp_path: Path) -> None:
    code = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, lambda *_: exit())
subprocess.Popen(["sleep", "60"])
time.sleep(60)
"""
    seen: list[psutil.Process] = []

    def begin_and_be_interrupted() -> None:
        with a_server(tmp_path, code) as server:
            wait_until(lambda: len(server.processes()) == 2, 10, what="its child")
            seen[:] = server.processes()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_be_interrupted()

    _, alive = psutil.wait_procs(seen, timeout=10)
    assert alive == []


def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match="no luck"),
        running("it", [sys.executable, "-c", "exit('no luck')"], tmp_path / "log", lambda: False),
    ):
        pass


def test_missing_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.tools.SEARCHED", str(tmp_path))

    with pytest.raises(BenchError, match="apt-get install nginx-light wrk curl"):
        require_tools()


def test_a_run_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    case = Case("download", "8 at once")
    case.add("nginx", {"mib_per_s": 1000.5})
    run = Run({"kernel": "Linux"}, {"rounds": "3"}, [case])
    run.save(tmp_path / "results.json")

    assert Run.load(tmp_path / "results.json") == run
