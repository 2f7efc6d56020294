"""compose.yaml in a Docker engine: everything works through the one address, and nothing leaks."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from support.compose import Compose, running_compose
from support.services import BROWSER, RawClient
from support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BODY = os.urandom(100_000)
LARGE = os.urandom(24 * 1024 * 1024)
MAX_FILE_BYTES = 40 * 1024 * 1024
LINGER_SECONDS = 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    folder = tmp_path_factory.mktemp("compose")
    with running_compose(
        folder, max_file_bytes=MAX_FILE_BYTES, linger_seconds=LINGER_SECONDS
    ) as stack:
        yield stack


def path_of(url: str) -> str:
    return httpx.URL(url).raw_path.decode()


def begin_download(stack: Compose, drop: dict[str, str], count: int) -> RawClient:
    client = RawClient.get(stack.port, path_of(drop["url"]), receive_buffer=65536)
    client.read_body(count)
    client.close()
    return client


def test_upload_landing_page_download_410_receipt_and_status_through_the_gateway(
    stack: Compose,
) -> None:
    drop = stack.upload(BODY)
    waiting = stack.receipt(drop)
    page = httpx.get(drop["url"], headers=BROWSER)
    first, second = httpx.get(drop["url"]), httpx.get(drop["url"])

    assert drop["url"].startswith(f"{stack.url}/d/")
    assert drop["owner_url"].startswith(f"{stack.url}/o/")
    assert waiting["state"] == "waiting"
    assert page.status_code == 200
    assert "report.pdf" in page.text
    assert first.content == BODY
    assert second.status_code == 410
    assert stack.receipt(drop)["acknowledged_bytes"] == len(BODY)
    status = stack.status()
    assert status["paired"] is True
    assert status["leading"] is True
    assert status["warnings"] == []


def test_pages_find_their_style_sheet_and_one_another_under_the_gateways_address(
    stack: Compose,
) -> None:
    for path in ("/", "/janitor/status"):
        page = httpx.get(stack.url + path, headers=BROWSER)
        assert page.status_code == 200
        sheets = re.findall(r'href="([^"]+\.css)"', page.text)
        assert sheets
        for sheet in sheets:
            assert httpx.get(httpx.URL(stack.url + path).join(sheet)).status_code == 200
    assert httpx.get(f"{stack.url}/janitor").headers["location"] == "/janitor/status"


def test_a_browsers_form_uploads_and_its_button_takes(stack: Compose) -> None:
    uploaded = httpx.post(f"{stack.url}/upload", files={"file": ("a.bin", BODY)}, headers=BROWSER)
    link = re.search(rf"{re.escape(stack.url)}/d/[A-Za-z0-9_-]{{22}}", uploaded.text)
    assert link, uploaded.text

    taken = httpx.post(link[0], headers=BROWSER)
    assert taken.status_code == 303
    body = httpx.get(httpx.URL(link[0]).join(taken.headers["location"]), headers=BROWSER).content

    assert body == BODY


@pytest.mark.parametrize(
    "path", ["/metrics", "/readyz", "/healthz", "/janitor/metrics", "/janitor/readyz"]
)
def test_what_is_for_machines_inside_is_not_passed_on(stack: Compose, path: str) -> None:
    assert httpx.get(stack.url + path).status_code == 404


def test_what_is_larger_than_the_limit_is_refused_by_ingest_itself(stack: Compose) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_FILE_BYTES // len(BODY) + 2):
            yield BODY

    announced = RawClient(
        stack.port,
        f"PUT /x HTTP/1.1\nHost: localhost\nAccept: application/json\n"
        f"Content-Length: {MAX_FILE_BYTES + 1}",
    )
    head = announced.read_head()
    announced.close()
    counted: int | None
    try:
        counted = httpx.put(f"{stack.url}/x", content=endless(), timeout=60).status_code
    except httpx.TransportError:  # the answer came, and the connection went, while it was sending
        counted = None

    assert head.startswith("HTTP/1.1 413 ")
    assert counted in (413, None)
    assert httpx.put(f"{stack.url}/x", content=bytes(MAX_FILE_BYTES), timeout=60).is_success


def test_the_claimant_resumes_through_the_gateway_and_nobody_else_does(stack: Compose) -> None:
    drop = stack.upload(LARGE)
    client = begin_download(stack, drop, 1_000_000)

    stranger = httpx.get(drop["url"], headers={"Range": "bytes=1000000-"})
    rest = httpx.get(
        stack.url + client.header("content-location"),
        headers={"Range": "bytes=1000000-", "If-Range": client.header("etag")},
        timeout=60,
    )

    assert stranger.status_code == 410
    assert LARGE[1_000_000:1_000_064] not in stranger.content
    assert rest.status_code == 206
    assert rest.content == LARGE[1_000_000:]


def test_a_delivered_file_lingers_for_its_claimant_and_then_goes(stack: Compose) -> None:
    """Who acknowledged the last byte was the gateway: its client may have lost it."""
    drop = stack.upload(BODY)
    first = httpx.get(drop["url"])
    delivered = time.monotonic()
    assert first.content == BODY

    again = httpx.get(stack.url + first.headers["content-location"])
    stranger = httpx.get(drop["url"])

    assert again.content == BODY
    assert stranger.status_code == 410
    wait_until(
        lambda: not any(drop["id"] in name for name in stack.stored_files()),
        LINGER_SECONDS + 10,
        what="the file to be gone",
    )
    assert time.monotonic() - delivered >= LINGER_SECONDS - 1
    assert httpx.get(stack.url + first.headers["content-location"]).status_code == 410
    assert stack.receipt(drop)["reason"] == "delivered"


def test_the_linger_of_a_stack_that_says_nothing_is_a_minute(stack: Compose) -> None:
    lines = stack.env_file.read_text().splitlines()
    bare = stack.folder / "bare.env"
    bare.write_text("\n".join(line for line in lines if "LINGER" not in line))

    services = json.loads(stack("--env-file", str(bare), "config", "--format", "json"))["services"]

    for name in ("ingest", "deliver", "janitor"):
        assert services[name]["environment"]["ONCEDROP_LINGER_SECONDS"] == "60"


def test_the_owner_deletes_through_the_gateway(stack: Compose) -> None:
    drop = stack.upload(BODY)

    answer = httpx.delete(drop["owner_url"])

    assert answer.json()["file_deleted"] is True
    assert not any(drop["id"] in name for name in stack.stored_files())
    assert httpx.get(drop["url"]).json()["reason"] == "deleted"


def test_no_log_of_any_container_holds_a_secret_even_after_errors(stack: Compose) -> None:
    drop = stack.upload(BODY, password="gr8 secret")
    kept = stack.upload(LARGE)
    answer = httpx.get(drop["url"], auth=("", "gr8 secret"))
    assert answer.content == BODY
    token = path_of(kept["url"]).removeprefix("/d/")
    httpx.get(drop["url"])
    begin_download(stack, kept, 1000)  # and leaves: the gateway's connections end in an error
    for request in (
        f"GET /d/{token} HTTP/1.1\nHost: localhost\nX: {'x' * 40_000}",
        f"GET /d/{token}?{'x' * 40_000} HTTP/1.1\nHost: localhost",
        f"GET /d/{token} HTTP/1.1\nHost: localhost\nBad header",
        f"GET /d/{token} HTTP/9.9\nHost: localhost",
    ):
        broken = RawClient(stack.port, request)
        broken.drain()
        broken.close()
    stack("stop", "--timeout", "3", "deliver")
    away = httpx.get(kept["url"])
    stack("start", "deliver")
    stack.wait_healthy("deliver")

    logs = stack("logs", "--no-color")

    assert away.status_code == 503
    assert int(away.headers["retry-after"]) > 0
    assert away.headers["cache-control"] == "no-store, no-transform"
    assert drop["id"] in logs
    secrets = [
        token,
        path_of(drop["url"]).removeprefix("/d/"),
        drop["owner_url"].rpartition(".")[2],
        kept["owner_url"].rpartition(".")[2],
        answer.headers["etag"].strip('"'),
        "gr8 secret",
        "report.pdf",
        stack.secret("ONCEDROP_ADMIN_TOKEN"),
        stack.secret("REDIS_PASSWORD"),
    ]
    for secret in secrets:
        assert secret not in logs


@pytest.mark.parametrize("service", ["ingest", "deliver", "janitor", "valkey", "gateway"])
def test_a_container_may_do_nothing_but_its_work(stack: Compose, service: str) -> None:
    (name,) = stack.containers(service)

    status = stack.shell(name, "cat /proc/1/status")
    assert re.search(r"^Uid:\t([1-9]\d*)\t\1\t\1\t\1$", status, re.MULTILINE), status
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    for place in ("/", "/etc", "/opt", "/usr/bin"):
        assert stack.shell(name, f"touch {place}/x 2>/dev/null || echo refused").strip() == (
            "refused"
        )
    assert int(stack.inspect(name, "{{.HostConfig.Memory}}")) > 0
    assert int(stack.inspect(name, "{{.HostConfig.PidsLimit}}")) > 0


@pytest.mark.parametrize("service", ["ingest", "deliver", "janitor"])
def test_the_image_holds_what_runs_and_no_more(stack: Compose, service: str) -> None:
    (name,) = stack.containers(service)

    tools = stack.shell(name, "command -v gcc cc g++ make ld pip /opt/oncedrop/bin/pip")
    ours = stack.shell(
        name, "find /opt -name 'test_*' -path '*oncedrop_*' -o -name '*.egg-info' -o -name .env"
    )
    others = stack.shell(name, "ls -d /src /opt/oncedrop/lib/python*/site-packages/oncedrop_*")
    python = stack.shell(name, "python -c 'import pytest' 2>&1")

    assert tools.strip() == ""
    assert ours.strip() == ""
    assert "ModuleNotFoundError" in python
    found = set(re.findall(r"site-packages/(oncedrop_[a-z]+)(?=\n|$)", others))
    assert found == {"oncedrop_common", f"oncedrop_{service}"}


def test_only_the_gateway_is_reached_from_outside(stack: Compose) -> None:
    for service in ("ingest", "deliver", "janitor", "valkey"):
        (name,) = stack.containers(service)
        assert stack.inspect(name, "{{json .HostConfig.PortBindings}}") in ("{}", "null")
