"""The command line against the real stack: what it sends, gets, survives and refuses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncedrop_common.store import keys
from support.command_line import COMMAND, CommandLine, environment
from support.services import CuttingProxy, RawClient
from support.stack import Stack, Uploaded, running_stack
from support.valkey import admin
from support.waiting import wait_until

BODY = os.urandom(300_000)
LARGE = os.urandom(24 * 1024 * 1024)
UPLOAD_TOKEN = "a token for uploads"
WITH_TOKEN = {"ONCEDROP_UPLOAD_TOKEN": UPLOAD_TOKEN}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def oncedrop(stack: Stack, tmp_path: Path) -> CommandLine:
    folder = tmp_path / "here"
    folder.mkdir()
    return CommandLine(folder, stack.ingest.url)


def write(folder: Path, name: str, body: bytes = BODY) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def through(proxy: CuttingProxy, url: str) -> str:
    return re.sub(r":\d+/", f":{proxy.port}/", url, count=1)


def state_of(oncedrop: CommandLine, drop: Uploaded) -> str:
    document = oncedrop("status", "--json", drop.owner_url).document
    return ".".join(str(document[name]) for name in ("state", "reason") if name in document)


def resume_files(folder: Path) -> list[Path]:
    return list(folder.glob(".oncedrop-*"))


# There and back.


def test_a_file_goes_and_comes_once_under_its_name(oncedrop: CommandLine, tmp_path: Path) -> None:
    name = "Übung 100% - #1?.pdf"
    sent = oncedrop("send", write(tmp_path, name))
    got = oncedrop("get", sent.line)
    again = oncedrop("get", sent.line, "-o", "again.pdf")

    assert sent.code == got.code == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/d/[\w-]{22}", sent.line)
    # `?` is what Windows cannot have in a name.
    assert got.line == "Übung 100% - #1_.pdf"
    assert [p.name for p in oncedrop.folder.iterdir()] == [got.line]
    assert (oncedrop.folder / got.line).read_bytes() == BODY
    assert (again.code, again.out) == (4, b"")


def test_a_link_that_is_used_says_so_with_the_time(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(BODY)
    oncedrop("get", drop.url)
    wait_until(lambda: state_of(oncedrop, drop) == "gone.delivered", 10, what="the delivery")

    again = oncedrop("get", drop.url, "-o", "again.pdf")

    assert again.code == 4
    assert re.fullmatch(
        r"oncedrop: The file is gone: it was downloaded \([\d: -]+\)\.\n", again.err
    )


def test_without_a_terminal_there_is_the_link_and_nothing_else(
    oncedrop: CommandLine, tmp_path: Path
) -> None:
    sent = oncedrop("send", write(tmp_path, "report.pdf"))

    assert sent.err == ""
    assert "/o/" not in sent.line


def test_pipes_work_both_ways(stack: Stack, oncedrop: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, "photos/a.jpg")
    write(tmp_path, "photos/b.jpg", b"")
    line = "tar c -C {} photos | {} send - --name x.tar | {} get - -o - > out.tar"
    quoted = map(shlex.quote, (str(tmp_path), COMMAND, COMMAND))
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.format(*quoted)],
        cwd=oncedrop.folder,
        env=environment(stack.ingest.url),
        check=True,
        timeout=60,
    )

    with tarfile.open(oncedrop.folder / "out.tar") as tar:
        assert sorted(tar.getnames()) == ["photos", "photos/a.jpg", "photos/b.jpg"]
        member = tar.extractfile("photos/a.jpg")
        assert member is not None
        assert member.read() == BODY


def test_standard_input_is_named_as_asked(oncedrop: CommandLine) -> None:
    link = oncedrop("send", "-", "--name", "notes.txt", stdin=b"three words here").line

    assert oncedrop("get", link).line == "notes.txt"
    assert (oncedrop.folder / "notes.txt").read_bytes() == b"three words here"


def test_several_files_and_folders_become_one_zip(oncedrop: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, "photos/2024/a.jpg", b"first")
    write(tmp_path, "photos/b.jpg", b"")
    (tmp_path / "photos" / "passwords").symlink_to("/etc/passwd")
    (tmp_path / "photos" / "etc").symlink_to("/etc")
    sent = oncedrop("send", tmp_path / "photos", write(tmp_path, "report.pdf"))

    got = oncedrop("get", sent.line)

    with zipfile.ZipFile(oncedrop.folder / got.line) as archive:
        assert archive.testzip() is None
        names = sorted(archive.namelist())
        assert archive.read("photos/2024/a.jpg") == b"first"
        assert archive.read("report.pdf") == BODY
    assert names == ["photos/2024/a.jpg", "photos/b.jpg", "report.pdf"]
    assert sent.err.count("left out: ") == 2


def test_an_empty_file_is_a_file(stack: Stack, oncedrop: CommandLine, tmp_path: Path) -> None:
    sent = oncedrop("send", "--json", write(tmp_path, "empty", b""))
    got = oncedrop("get", sent.document["url"])

    assert (oncedrop.folder / got.line).read_bytes() == b""
    receipt = sent.document["owner_url"]
    wait_until(lambda: b"Delivered" in oncedrop("status", receipt).out, 10, what="the delivery")


def test_json_tells_all_of_both_ends(oncedrop: CommandLine, tmp_path: Path) -> None:
    sent = oncedrop("send", "--json", write(tmp_path, "report.pdf")).document
    got = oncedrop("get", "--json", sent["url"]).document

    digest = hashlib.sha256(BODY).hexdigest()
    assert sent.keys() == {
        "url", "owner_url", "id", "expires_at", "size", "sha256", "max_downloads"
    }  # fmt: skip
    assert (sent["size"], sent["sha256"], sent["max_downloads"]) == (len(BODY), digest, 1)
    assert got == {
        "path": "report.pdf", "name": "report.pdf", "size": len(BODY), "sha256": digest,
        "resumed_at": 0,
    }  # fmt: skip


def test_options_arrive(stack: Stack, oncedrop: CommandLine, tmp_path: Path) -> None:
    sent = oncedrop(
        "send", "--json", "--ttl", "2h", "--max-downloads", "3", "--if-interrupted", "restore",
        "--no-resume", "--confirm", write(tmp_path, "report.pdf"),
    ).document  # fmt: skip

    with admin(stack.redis.url) as client:
        record = client.hgetall(f"{keys.DROP_PREFIX}{sent['id']}")
    assert record[b"max_downloads"] == b"3"
    assert record[b"if_interrupted"] == b"restore"
    assert record[b"resume"] == b"0"
    assert record[b"confirm"] == b"always"
    assert int(record[b"expires_ms"]) - int(record[b"created_ms"]) == 2 * 3600 * 1000


def test_what_must_be_confirmed_is_got(oncedrop: CommandLine, tmp_path: Path) -> None:
    link = oncedrop("send", "--confirm", write(tmp_path, "report.pdf")).line

    assert oncedrop("get", link).code == 0
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY


def test_at_a_terminal_there_are_a_code_a_receipt_and_a_time(
    oncedrop: CommandLine, tmp_path: Path
) -> None:
    code, shown = oncedrop.at_terminal("send", "--ttl", "2h", write(tmp_path, "report.pdf"))

    assert code == 0
    assert re.search(r"http://\S+/d/[\w-]{22}\r?$", shown, re.MULTILINE)
    assert shown.count("█") > 100
    assert re.search(r"Works once, until [\d-]+ [\d:]+, in 2 hours\.", shown)
    receipt = re.search(r"Receipt: (http://\S+/o/[0-9a-f]{32}\.[\w-]{22})", shown)
    assert receipt
    assert oncedrop("status", receipt[1]).code == 0


# Passwords and tokens.


def test_a_password_is_asked_for_at_both_ends_without_echo(
    oncedrop: CommandLine, tmp_path: Path
) -> None:
    code, shown = oncedrop.at_terminal(
        "send", "--password", write(tmp_path, "report.pdf"),
        answers=[("Password: ", "corréct horse"), ("again: ", "corréct horse")],
    )  # fmt: skip
    link = re.search(r"http://\S+/d/[\w-]{22}", shown)
    assert code == 0
    assert link
    code, got = oncedrop.at_terminal(
        "get", link[0], answers=[("Password: ", "wrong horse"), ("Password: ", "corréct horse")]
    )  # fmt: skip

    assert code == 0, got
    assert "The password is wrong" in got
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY
    assert "horse" not in shown + got


def test_two_different_passwords_send_nothing(oncedrop: CommandLine, tmp_path: Path) -> None:
    code, shown = oncedrop.at_terminal(
        "send", "--password", write(tmp_path, "report.pdf"),
        answers=[("Password: ", "one"), ("again: ", "other")],
    )  # fmt: skip

    assert code == 2
    assert "http" not in shown


def test_a_password_in_a_file_protects_and_opens(oncedrop: CommandLine, tmp_path: Path) -> None:
    right = write(tmp_path, "right", "corréct horse\n".encode())
    wrong = write(tmp_path, "wrong", b"horse\n")
    link = oncedrop("send", "--password-file", right, write(tmp_path, "report.pdf")).line

    none = oncedrop("get", link)
    refused = oncedrop("get", "--password-file", wrong, link)
    left = resume_files(oncedrop.folder)
    opened = oncedrop("get", "--password-file", right, link)

    assert none.code == 5
    assert "no terminal" in none.err
    assert refused.code == 5
    assert "The password is wrong" in refused.err
    assert left == []
    assert opened.code == 0
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY


def test_a_password_is_no_argument(oncedrop: CommandLine, tmp_path: Path) -> None:
    ended = oncedrop("send", "--password=hunter2", write(tmp_path, "report.pdf"))

    assert ended.code == 2
    assert "hunter2" not in ended.err


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Wants a token, and no large files."""
    folder = tmp_path_factory.mktemp("strict")
    with running_stack(folder, upload_token=UPLOAD_TOKEN, max_file_bytes=1_000_000) as running:
        yield running


def test_the_upload_token_comes_from_a_file_or_the_environment(
    strict: Stack, tmp_path: Path
) -> None:
    oncedrop = CommandLine(tmp_path, strict.ingest.url)
    report = write(tmp_path, "report.pdf")
    token = write(tmp_path, "token", f"{UPLOAD_TOKEN}\n".encode())

    none = oncedrop("send", report)
    by_file = oncedrop("send", report, "--upload-token-file", token)
    by_environment = oncedrop("send", report, report, env=WITH_TOKEN)

    assert none.code == 5
    assert "Uploads need a token" in none.err
    assert by_file.code == by_environment.code == 0


def test_what_is_too_large_is_refused_in_the_servers_words(strict: Stack, tmp_path: Path) -> None:
    oncedrop = CommandLine(tmp_path, strict.ingest.url)
    report = write(tmp_path, "report.pdf", LARGE)

    whole = oncedrop("send", report, env=WITH_TOKEN)
    piped = oncedrop("send", "-", stdin=LARGE, env=WITH_TOKEN)

    assert whole.code == piped.code == 5
    assert "oncedrop: The upload is too large" in whole.err
    assert "oncedrop: The upload is too large" in piped.err


# What breaks.


def test_a_download_cut_twice_finishes_by_itself(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(LARGE)
    with CuttingProxy(stack.deliver.port, cuts=[3_000_000, 9_000_000]) as proxy:
        got = oncedrop("get", through(proxy, drop.url))
        assert proxy.connections == 3
        # Gone on with, not begun anew.
        assert proxy.answered < len(LARGE) + 1_000_000

    assert got.code == 0, got.err
    assert got.err.count("Trying again") == 2
    assert (oncedrop.folder / "report.pdf").read_bytes() == LARGE
    assert [p.name for p in oncedrop.folder.iterdir()] == ["report.pdf"]
    wait_until(lambda: state_of(oncedrop, drop) == "gone.delivered", 10, what="the delivery")


def test_a_cut_pipe_gets_every_byte_once(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(LARGE)
    with CuttingProxy(stack.deliver.port, cuts=[3_000_000, 9_000_000]) as proxy:
        got = oncedrop("get", through(proxy, drop.url), "-o", "-")

    assert got.code == 0, got.err
    assert got.out == LARGE


def test_an_answer_to_the_claim_that_is_lost_loses_nothing(
    stack: Stack, oncedrop: CommandLine
) -> None:
    """The server has claimed, the client was never told: it asks again under its own claim id."""
    drop = stack.upload(BODY)
    token_path = drop.url.removeprefix(stack.deliver.url)
    head = RawClient(stack.deliver.port, f"HEAD {token_path} HTTP/1.1\nHost: localhost")
    length = len(head.read_head()) + 4
    head.close()
    with CuttingProxy(stack.deliver.port, cuts=[length + 20]) as proxy:
        got = oncedrop("get", through(proxy, drop.url))
        assert proxy.connections == 2

    assert got.code == 0, got.err
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY


@contextlib.contextmanager
def half_way(
    stack: Stack, oncedrop: CommandLine, drop: Uploaded
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The link of a download that stands still behind its fourth megabyte, and its process."""
    part = oncedrop.folder / "report.pdf.part"
    with CuttingProxy(stack.deliver.port, cuts=[5_000_000], hold=True) as proxy:
        link = through(proxy, drop.url)
        with oncedrop.begun("get", link) as process:
            wait_until(
                lambda: part.exists() and part.stat().st_size >= 4_000_000,
                30,
                what="the part to grow",
            )
            yield link, process


def test_a_killed_download_is_taken_up_by_the_same_command(
    stack: Stack, oncedrop: CommandLine
) -> None:
    drop = stack.upload(LARGE)
    with half_way(stack, oncedrop, drop) as (link, process):
        process.kill()
        process.wait(10)
        [noted] = resume_files(oncedrop.folder)
        secret = noted.read_text()
        stranger = oncedrop("get", link, "-o", "..")
        got = oncedrop("get", "--json", link)

    assert noted.name.endswith(".json")
    assert drop.url.rpartition("/")[2] not in noted.name + secret
    assert stranger.code == 4
    assert "somebody is downloading it" in stranger.err
    assert got.code == 0, got.err
    assert got.document["resumed_at"] >= 4_000_000
    assert (oncedrop.folder / "report.pdf").read_bytes() == LARGE
    assert [p.name for p in oncedrop.folder.iterdir()] == ["report.pdf"]


def test_only_its_owner_can_read_a_claim(stack: Stack, oncedrop: CommandLine) -> None:
    with half_way(stack, oncedrop, stack.upload(LARGE)):
        mode = resume_files(oncedrop.folder)[0].stat().st_mode

    assert mode & 0o777 == 0o600


def test_ctrl_c_says_how_to_go_on(stack: Stack, oncedrop: CommandLine) -> None:
    with half_way(stack, oncedrop, stack.upload(LARGE)) as (link, process):
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        got = oncedrop("get", link)

    assert process.returncode == 130
    assert b"Traceback" not in told
    assert b"is in report.pdf.part; the same command" in told
    assert told.endswith(b"oncedrop: interrupted.\n")
    assert got.code == 0, got.err
    assert (oncedrop.folder / "report.pdf").read_bytes() == LARGE


def test_ctrl_c_in_an_upload_leaves_nothing(stack: Stack, oncedrop: CommandLine) -> None:
    def uploading() -> bool:
        return any(path.parent.name == "incoming" for path in stack.files())

    with oncedrop.begun("send", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(LARGE)
        process.stdin.flush()
        wait_until(uploading, 30, what="the upload to begin")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        out, told = process.stdout.read(), process.stderr.read()

    assert (out, told) == (b"", b"oncedrop: interrupted.\n")
    wait_until(lambda: not uploading(), 30, what="the server to clean up")


def test_a_server_that_is_killed_and_comes_back_goes_on(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    with running_stack(tmp_path / "stack") as stack:
        oncedrop = CommandLine(tmp_path, stack.ingest.url)
        drop = stack.upload(LARGE)
        with oncedrop.begun("get", drop.url, "-o", "-") as process:
            assert process.stdout is not None
            # What is not read here fills all buffers up to the server's.
            came = process.stdout.read(4_000_000)
            stack.deliver.kill()
            stack.deliver.start()
            rest = process.stdout.read()
            assert process.stderr is not None
            told = process.stderr.read()

    assert process.returncode == 0, told
    assert b"Trying again" in told
    assert came + rest == LARGE


def test_an_altered_byte_is_noticed_and_never_gets_the_name(
    stack: Stack, oncedrop: CommandLine
) -> None:
    drop = stack.upload(BODY)
    with CuttingProxy(stack.deliver.port, cuts=[], spoil=200_000) as proxy:
        got = oncedrop("get", through(proxy, drop.url))

    assert got.code == 7
    assert got.out == b""
    assert "SHA-256" in got.err
    assert [p.name for p in oncedrop.folder.iterdir()] == ["report.pdf.part"]


def test_a_download_that_is_deleted_meanwhile_ends(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(LARGE)
    with half_way(stack, oncedrop, drop) as (link, process):
        process.kill()
        process.wait(10)
        assert oncedrop("delete", drop.owner_url).code == 0
        got = oncedrop("get", link)

    assert got.code == 4
    assert "its sender deleted it" in got.err
    assert "are in report.pdf.part" in got.err
    assert resume_files(oncedrop.folder) == []


def test_after_the_lease_a_restored_drop_is_claimed_anew_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    settings = {"claim_lease_seconds": 1, "due_interval_seconds": 1}
    with running_stack(tmp_path / "stack", **settings) as stack:
        oncedrop = CommandLine(tmp_path, stack.ingest.url)
        drop = stack.upload(LARGE, if_interrupted="restore")
        with half_way(stack, oncedrop, drop) as (link, process):
            process.kill()
            process.wait(10)
            wait_until(lambda: state_of(oncedrop, drop) == "waiting", 30, what="the lease to end")
            got = oncedrop("get", "--json", link)

    assert got.code == 0, got.err
    assert "the link gave another" in got.err
    assert got.document["resumed_at"] >= 4_000_000
    assert (tmp_path / "report.pdf").read_bytes() == LARGE


def test_two_at_a_time_do_not_write_one_file(stack: Stack, oncedrop: CommandLine) -> None:
    with half_way(stack, oncedrop, stack.upload(LARGE)) as (link, _):
        second = oncedrop("get", link)

    assert second.code == 1
    assert "another download is writing it" in second.err


def test_a_reader_that_leaves_is_no_crash(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(LARGE)
    with oncedrop.begun("get", drop.url, "-o", "-") as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == LARGE[:10]
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()

    assert process.returncode == 1
    assert b"Traceback" not in told
    assert b"nobody reads the output any more" in told


# What is in the way.


def test_nothing_is_overwritten_and_nothing_used_up(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(BODY)
    write(oncedrop.folder, "report.pdf", b"mine")

    refused = oncedrop("get", drop.url)
    kept = (oncedrop.folder / "report.pdf").read_bytes()
    state = state_of(oncedrop, drop)
    forced = oncedrop("get", "--force", drop.url)

    assert refused.code == 1
    assert "--force" in refused.err
    assert kept == b"mine"
    assert state == "waiting"
    assert forced.code == 0
    assert (oncedrop.folder / "report.pdf").read_bytes() == BODY


@pytest.mark.parametrize("name", ["report.pdf", "report.pdf.part"])
def test_a_symbolic_link_is_never_written_through(
    stack: Stack, oncedrop: CommandLine, tmp_path: Path, name: str
) -> None:
    drop = stack.upload(BODY)
    outside = write(tmp_path, "outside", b"mine")
    (oncedrop.folder / name).symlink_to(outside)

    refused = oncedrop("get", "--force", drop.url)

    assert refused.code == 1
    assert outside.read_bytes() == b"mine"
    assert state_of(oncedrop, drop) == "waiting"


def test_an_output_is_a_file_or_a_folder(stack: Stack, oncedrop: CommandLine) -> None:
    (oncedrop.folder / "in").mkdir()

    assert oncedrop("get", stack.upload(BODY).url, "-o", "in").line == "in/report.pdf"
    assert oncedrop("get", stack.upload(BODY).url, "-o", "in/a.pdf").line == "in/a.pdf"
    assert oncedrop("get", stack.upload(BODY).url, "-o", "out/a.pdf").code == 1


def test_failures_have_their_own_codes(stack: Stack, oncedrop: CommandLine) -> None:
    unknown = oncedrop("get", f"{stack.deliver.url}/d/{'A' * 22}")
    nobody = oncedrop("send", "/etc/hostname", "--server", "http://127.0.0.1:1")
    missing = oncedrop("send", "no such file")
    option = oncedrop("send", "/etc/hostname", "--ttl", "100d")

    assert (unknown.code, unknown.err) == (3, "oncedrop: There is no such link.\n")
    assert nobody.code == 6
    assert nobody.err == "oncedrop: http://127.0.0.1:1 cannot be reached: Connection refused.\n"
    assert (missing.code, missing.err) == (
        1,
        "oncedrop: no such file: No such file or directory.\n",
    )
    assert option.code == 5
    assert "ttl must be" in option.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["send"],
        ["get", "report.pdf"],
        ["get", "ftp://localhost/d/AAAAAAAAAAAAAAAAAAAAAA"],
        ["get", "http://localhost/"],
        ["get", "http://localhost/d/short"],
        ["send", "-", "/etc/hostname"],
        ["send", "/etc/hostname", "--server", "localhost:8001"],
        ["send", "/etc/hostname", "--ttl", "1h\nX: y"],
        ["send", "/etc/hostname", "--if-interrupted", "keep"],
        ["get", "--json", "-o", "-", "http://localhost/d/AAAAAAAAAAAAAAAAAAAAAA"],
    ],
    ids=" ".join,
)
def test_what_is_not_understood_asks_nobody(oncedrop: CommandLine, arguments: list[str]) -> None:
    ended = oncedrop(*arguments)

    assert ended.code == 2
    assert ended.out == b""


@pytest.mark.parametrize(
    "environment",
    [
        {"ALL_PROXY": "geheim://user:geheim@localhost"},
        {"ALL_PROXY": "socks5://user:geheim@localhost:1"},
        {"SSL_CERT_FILE": "/no such file"},
    ],
    ids=str,
)
def test_an_environment_that_cannot_be_used_is_told(
    oncedrop: CommandLine, environment: dict[str, str]
) -> None:
    ended = oncedrop("send", "/etc/hostname", env=environment)

    assert ended.code == 2
    assert "of the environment cannot be used" in ended.err
    assert "geheim" not in ended.err


# Receipts.


def test_a_receipt_tells_the_life_of_a_drop(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(LARGE)
    waiting = oncedrop("status", drop.owner_url)
    with half_way(stack, oncedrop, drop):
        claimed = oncedrop("status", drop.owner_url)
    deleted = oncedrop("delete", drop.owner_url)
    again = oncedrop("delete", "--json", "-", stdin=drop.owner_url.encode())
    gone = oncedrop("status", drop.owner_url)

    assert "Waiting: nobody is downloading it." in waiting.out.decode()
    assert "report.pdf, 25.2 MB" in waiting.out.decode()
    assert re.search(r"Being downloaded since .*: \d+ % has arrived", claimed.out.decode())
    assert deleted.line == "Deleted: the link is dead, the file removed, 25.2 MB freed."
    assert again.document == {
        "state": "gone", "reason": "deleted", "file_deleted": False, "bytes": 0
    }  # fmt: skip
    assert re.fullmatch(r"Gone \([\d: -]+\): its sender deleted it\.", gone.line)
    assert stack.files() == [] or drop.id not in str(stack.files())


def test_a_link_in_the_place_of_a_receipt_stays_unused(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(BODY)

    wrong = [oncedrop(command, drop.url) for command in ("status", "delete")]
    other = oncedrop("get", drop.owner_url)

    assert [ended.code for ended in (*wrong, other)] == [2, 2, 2]
    assert state_of(oncedrop, drop) == "waiting"


def test_a_wrong_key_is_not_found(stack: Stack, oncedrop: CommandLine) -> None:
    drop = stack.upload(BODY)
    ended = oncedrop("status", drop.owner_url[:-22] + "A" * 22)

    assert (ended.code, ended.out) == (3, b"")
