"""The edge: headers on everything, one line per request, errors as answers or as a cut."""

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from oncedrop_common.drops import DropId
from oncedrop_common.errors import (
    BlobDamaged,
    DropGone,
    StoreUnavailable,
    UploadTooLarge,
)
from oncedrop_common.health import observability_routes
from oncedrop_common.metrics import Metrics
from oncedrop_common.middleware import install
from oncedrop_common.pages import Pages
from oncedrop_common.problems import Problems

DROP_ID = DropId("0123456789abcdef0123456789abcdef")
TOKEN = "Zm9vYmFyYmF6cXV4cXV1eA"
Line = dict[str, Any]


async def serve_drop(request: Request) -> Response:
    request.state.drop_id = DROP_ID
    return PlainTextResponse("content")


async def gone(_request: Request) -> Response:
    raise DropGone("Used.", drop_id=DROP_ID, reason=None, gone_ms=0)


async def away(_request: Request) -> Response:
    raise StoreUnavailable("Redis did not answer.")


async def crash(request: Request) -> Response:
    raise ValueError(f"at {request.url}")


async def refuse(_request: Request) -> Response:
    raise UploadTooLarge(10)


async def read_whole(request: Request) -> Response:
    await request.body()
    raise UploadTooLarge(10)


async def read_past_receive(request: Request) -> Response:
    request.state.bytes_in = 1000
    return PlainTextResponse("stored", 201)


async def own_policy(_request: Request) -> Response:
    return Response(
        headers={
            "Content-Security-Policy": "sandbox",
            "Cache-Control": "max-age=60",
            "Referrer-Policy": "unsafe-url",
        }
    )


async def break_off(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise BlobDamaged("The file changed.", drop_id=DROP_ID)

    return StreamingResponse(body())


async def crash_midway(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise KeyError("x")

    return StreamingResponse(body())


async def leave_midway(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise ClientDisconnect

    return StreamingResponse(body())


class ZeroCopyEndpoint:
    """Hands over file descriptors, as deliver does where the server allows it."""

    def __init__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.send = send

    def __await__(self) -> Generator[Any, None, None]:
        return self._answer().__await__()

    async def _answer(self) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": []})
        for more in (True, False):
            piece = {"type": "http.response.zerocopysend", "file": 3, "count": 500}
            await self.send({**piece, "more_body": more})


async def refuse_midway(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise HTTPException(404)

    return StreamingResponse(body())


async def upload(request: Request) -> Response:
    async for _ in request.stream():
        pass
    return PlainTextResponse("stored", 201)


async def never(_request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


def make_app(metrics: Metrics | None = None) -> Starlette:
    metrics = metrics or Metrics("test")
    app = Starlette(
        routes=[
            Route("/d/{token}", serve_drop, methods=["GET", "DELETE"]),
            Route("/gone/{token}", gone),
            Route("/away", away),
            Route("/crash/{token}", crash),
            Route("/refuse", refuse, methods=["PUT", "POST"]),
            Route("/read_whole", read_whole, methods=["PUT"]),
            Route("/past", read_past_receive, methods=["PUT"]),
            Route("/policy", own_policy),
            Route("/break_off", break_off),
            Route("/crash_midway", crash_midway),
            Route("/refuse_midway", refuse_midway),
            Route("/leave_midway", leave_midway),
            Route("/zero_copy", ZeroCopyEndpoint),
            Route("/upload", upload, methods=["POST"]),
            Route("/never", never),
            *observability_routes(metrics, {}),
        ]
    )
    install(app, metrics, Problems(Pages()))
    return app


async def ask(
    method: str, path: str, app: Starlette | None = None, **options: Any
) -> tuple[httpx.Response, list[Line]]:
    """One request through the whole edge: the response and the log lines."""
    transport = httpx.ASGITransport(app or make_app())
    with capture_logs() as lines:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.request(method, path, **options)
    return response, [dict(line) for line in lines]


async def run_asgi(
    path: str, messages: Sequence[Message], method: str = "GET"
) -> tuple[list[Message], Line]:
    """One request by hand, to see what no client shows: messages sent and the canonical line."""
    pending = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        if not pending:
            await asyncio.Event().wait()
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-length", b"100")] if messages else [],
        "scheme": "http",
        "server": ("test", 80),
    }
    with capture_logs() as lines:
        await make_app()(scope, receive, send)
    return sent, dict(lines[-1])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/d/{TOKEN}"),
        ("HEAD", f"/d/{TOKEN}"),
        ("GET", "/nowhere"),
        ("PATCH", f"/d/{TOKEN}"),
        ("GET", "/away"),
        ("GET", f"/crash/{TOKEN}"),
        ("GET", "/policy"),
        ("GET", "/healthz"),
    ],
)
async def test_every_response_keeps_out_of_caches_and_referrers(method: str, path: str) -> None:
    response, _ = await ask(method, path)
    assert response.headers.get_list("cache-control") == ["no-store, no-transform"]
    assert response.headers.get_list("referrer-policy") == ["no-referrer"]
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert len(response.headers.get_list("content-security-policy")) == 1
    assert "strict-transport-security" not in response.headers


async def test_the_default_policy_allows_nothing_inline_and_nothing_foreign() -> None:
    response, _ = await ask("GET", "/healthz")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for part in ("form-action 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy


async def test_a_response_may_bring_its_own_policy() -> None:
    response, _ = await ask("GET", "/policy")
    assert response.headers["content-security-policy"] == "sandbox"


async def test_one_line_tells_a_request_by_its_template() -> None:
    response, (line,) = await ask("GET", f"/d/{TOKEN}?q={TOKEN}", headers={"Cookie": TOKEN})
    assert response.text == "content"
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request_finished",
        "log_level": "info",
        "route": "/d/{token}",
        "method": "GET",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 7,
        "ending": "complete",
        "drop_id": DROP_ID,
    }


@pytest.mark.parametrize("method", ["GET", "INVENTED"])
async def test_an_unmatched_path_and_an_invented_method_are_not_repeated(method: str) -> None:
    _, (line,) = await ask(method, f"/x/{TOKEN}")
    assert line["route"] == "unmatched"
    assert line["method"] == ("GET" if method == "GET" else "OTHER")
    assert line["problem"] == "not_found"


async def test_a_wrong_method_is_told_by_its_route() -> None:
    response, (line,) = await ask("PUT", f"/d/{TOKEN}")
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, GET, HEAD"
    assert (line["route"], line["problem"]) == ("/d/{token}", "method_unsupported")


async def test_a_trailing_slash_is_not_redirected() -> None:
    response, _ = await ask("GET", f"/d/{TOKEN}/")
    assert response.status_code == 404
    assert "location" not in response.headers


async def test_an_error_becomes_a_document_and_names_its_drop() -> None:
    response, (line,) = await ask("GET", f"/gone/{TOKEN}")
    assert response.status_code == 410
    assert response.json()["type"] == "urn:oncedrop:problem:drop_gone"
    assert (line["problem"], line["drop_id"]) == ("drop_gone", DROP_ID)
    assert line["log_level"] == "info"
    assert "fault" not in line


async def test_a_dependencys_fault_is_a_warning_with_its_reason() -> None:
    response, (line,) = await ask("GET", "/away")
    assert response.status_code == 503
    assert line["log_level"] == "warning"
    assert line["fault"] == "Redis did not answer."


async def test_an_unexpected_error_is_logged_with_its_traceback_and_told_to_nobody() -> None:
    response, (crashed, line) = await ask("GET", f"/crash/{TOKEN}")
    assert response.status_code == 500
    assert TOKEN not in response.text
    assert crashed["event"] == "request_crashed"
    assert crashed["route"] == "/crash/{token}"
    assert isinstance(crashed["exc_info"], ValueError)
    assert crashed["exc_info"].__traceback__ is not None
    assert line["problem"] == "internal_error"


async def test_head_of_an_error_has_no_body() -> None:
    response, (line,) = await ask("HEAD", f"/gone/{TOKEN}")
    assert response.status_code == 410
    assert response.content == b""
    assert int(response.headers["content-length"]) > 0
    assert line["bytes_out"] == 0


async def test_people_get_a_page() -> None:
    response, _ = await ask("GET", "/nowhere", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert "<h1>There is nothing here</h1>" in response.text


@pytest.mark.parametrize("path", ["/refuse", "/nowhere"])
@pytest.mark.parametrize("content", [b"x" * 100, "chunked"])
async def test_an_error_before_the_body_was_read_closes_the_connection(
    path: str, content: bytes | str
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    body = chunks() if content == "chunked" else content
    response, _ = await ask("PUT", path, content=body)
    assert response.headers["connection"] == "close"


async def test_an_error_after_the_body_was_read_keeps_the_connection() -> None:
    read, _ = await ask("PUT", "/read_whole", content=b"x" * 100)
    empty, _ = await ask("POST", "/refuse")
    bodiless, _ = await ask("GET", "/nowhere")
    assert [r.headers.get("connection") for r in (read, empty, bodiless)] == [None] * 3


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/break_off", "blob_damaged"),
        ("/crash_midway", "internal_error"),
        ("/refuse_midway", "not_found"),
    ],
)
async def test_an_error_after_the_first_byte_cuts_the_answer(path: str, problem: str) -> None:
    sent, line = await run_asgi(path, [])
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert sent[1]["body"] == b"some"
    assert sent[1]["more_body"]
    assert (line["ending"], line["problem"]) == ("cut", problem)
    assert line["log_level"] == "warning"


async def test_a_client_that_leaves_during_its_upload_is_seen() -> None:
    part = {"type": "http.request", "body": b"x" * 30, "more_body": True}
    sent, line = await run_asgi("/upload", [part, {"type": "http.disconnect"}], "POST")
    assert sent == []
    assert (line["status"], line["ending"], line["bytes_in"]) == (None, "disconnected", 30)
    assert "problem" not in line


async def test_a_client_that_leaves_during_its_download_is_seen() -> None:
    _, line = await run_asgi("/leave_midway", [])
    assert (line["status"], line["ending"], line["bytes_out"]) == (200, "disconnected", 4)
    assert line["log_level"] == "info"


async def test_a_request_cancelled_by_the_servers_stop_is_seen() -> None:
    with capture_logs() as lines:
        transport = httpx.ASGITransport(make_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            task = asyncio.create_task(client.get("/never"))
            for _ in range(10):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert [line["ending"] for line in lines] == ["cancelled"]


async def test_bytes_handed_over_without_copies_are_counted() -> None:
    _, line = await run_asgi("/zero_copy", [])
    assert (line["bytes_out"], line["ending"]) == (1000, "complete")


async def test_probes_are_quiet() -> None:
    _, (line,) = await ask("GET", "/healthz")
    assert line["log_level"] == "debug"


async def test_metrics_count_by_template_and_by_nothing_of_the_client() -> None:
    metrics = Metrics("test")
    app = make_app(metrics)
    await ask("GET", f"/d/{TOKEN}", app)
    await ask("GET", f"/gone/{TOKEN}", app)
    await ask("INVENTED", f"/x/{TOKEN}", app)
    await ask("POST", "/upload", app, content=b"x" * 30)
    await ask("PUT", "/past", app, content=b"")
    response, _ = await ask("GET", "/metrics", app)
    for line in (
        'oncedrop_requests_total{method="GET",route="/d/{token}",status="2xx"} 1.0',
        'oncedrop_requests_total{method="GET",route="/gone/{token}",status="4xx"} 1.0',
        'oncedrop_requests_total{method="OTHER",route="unmatched",status="4xx"} 1.0',
        'oncedrop_request_seconds_count{method="GET",route="/d/{token}"} 1.0',
        'oncedrop_problems_total{problem="drop_gone"} 1.0',
        "oncedrop_received_bytes_total 1030.0",
    ):
        assert line in response.text.splitlines()
    assert TOKEN not in response.text
    assert DROP_ID not in response.text
