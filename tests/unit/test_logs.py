"""One pipeline, one line per event, and no secret in any of them."""

import asyncio
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from oncedrop_common.logs import configure_logging, redact
from oncedrop_common.tokens import claim_hash, drop_id, mint

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give the process its own logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    for name in ("uvicorn.error", "uvicorn.access", "apscheduler", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True
    structlog.reset_defaults()


def lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_json_line_with_its_fields(capsys: Capture) -> None:
    configure_logging("deliver", "info")
    structlog.get_logger().info("drop_claimed", drop_id="a" * 32, claim_ms=1.5)
    (line,) = lines(capsys)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "drop_claimed",
        "level": "info",
        "service": "deliver",
        "drop_id": "a" * 32,
        "claim_ms": 1.5,
    }


def test_library_lines_take_the_same_way(capsys: Capture) -> None:
    configure_logging("janitor", "info")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("apscheduler.executors").warning("Run of job %s was missed", "due")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second, third = lines(capsys)
    assert first["event"] == second["event"] == third["event"] == "library_logged"
    assert first["message"] == "Started server process [7]"
    assert first["logger"] == "uvicorn.error"
    assert first["service"] == "janitor"
    assert second["level"] == "warning"
    assert "old" in third["message"]


def test_what_is_below_the_level_is_not_written(capsys: Capture) -> None:
    configure_logging("ingest", "warning")
    structlog.get_logger().info("drop_created")
    logging.getLogger("uvicorn.error").info("Shutting down")
    assert lines(capsys) == []


def test_uvicorn_never_writes_paths(capsys: Capture) -> None:
    configure_logging("ingest", "debug")
    access = logging.getLogger("uvicorn.access")
    access.info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/d/x", "1.1", 200)
    assert not access.hasHandlers()
    # Below INFO uvicorn wraps the application in a logger that prints whole scopes.
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.INFO
    assert lines(capsys) == []


def test_cut_and_cancelled_answers_are_told_once(capsys: Capture) -> None:
    configure_logging("deliver", "info")
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.error("ASGI callable returned without completing response.")
    uvicorn_log.error("Exception in ASGI application\n", exc_info=asyncio.CancelledError())
    assert lines(capsys) == []


def test_tracebacks_hold_no_local_variables_and_no_links(capsys: Capture) -> None:
    configure_logging("deliver", "info")
    token, hidden = mint(), "hidden" + mint()

    def fail(local_secret: str) -> None:
        raise ValueError(f"GET http://user:pass@host:8002/d/{token}?a=b#c failed for {token}")

    try:
        fail(hidden)
    except ValueError:
        structlog.get_logger().exception("request_crashed")
        logging.getLogger("apscheduler").exception("Job raised at /d/%s", token)
    for line in lines(capsys):
        assert 'raise ValueError(f"GET' in line["exception"]
        assert "ValueError: GET http://[redacted]@host:8002/[redacted]" in line["exception"]
        text = json.dumps(line)
        assert token not in text
        assert hidden not in text
        assert "pass@" not in text


@pytest.mark.parametrize(
    "around",
    ["{}", "/d/{}", "/c/0123456789abcdef0123456789abcdef.{}/a%20b", "%2Fd%2F{}", r"\r\n{}", "'{}'"],
)
def test_whatever_looks_like_a_secret_is_blacked_out(around: str) -> None:
    for _ in range(50):
        secret = mint()
        assert secret not in redact(around.format(secret))


def test_nested_values_are_blacked_out_too(capsys: Capture) -> None:
    configure_logging("deliver", "info")
    secret = mint()
    structlog.get_logger().info("drop_claimed", details={"seen": [secret, 1, (secret,)]})
    (line,) = lines(capsys)
    assert line["details"] == {"seen": ["[redacted]", 1, ["[redacted]"]]}


def test_ids_hashes_and_identifiers_stay_readable() -> None:
    secret = mint()
    for text in (
        drop_id(secret),
        claim_hash(secret),
        "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4",
        "123e4567-e89b-12d3-a456-426614174000",
        "handle_events_and_thing",
        "http://127.0.0.1:8001 (Press CTRL+C to quit)",
        'File "/app/site-packages/starlette/_exception_handler.py", line 42, in wrapped_app',
    ):
        assert redact(text) == text


def test_a_stdout_that_takes_nothing_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    configure_logging("deliver", "info")
    structlog.get_logger().info("drop_claimed")
    logging.getLogger("uvicorn.error").info("Shutting down")
