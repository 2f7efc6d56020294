"""One pipeline for every log line: JSON to stdout, from structlog and from the standard library.

An event is a constant past-tense word, what varies is a field, with its unit in its name. Lines
of libraries become the event `library_logged` with their text as `message`. No line holds a
path of a request, and as a net below that rule whatever looks like a minted secret or the path
of a URL is blacked out on its way, tracebacks included. Tracebacks never show local variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import threading
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

_BLACK = "[redacted]"
# A minted secret (tokens.py) that stands alone, or after what quoting leaves before it. At least
# one character must be what an identifier in a traceback hardly has: of random ones, 1 in 10**8
# has none.
_SECRET = re.compile(
    r"(?:(?<![A-Za-z0-9_-])|(?<=%2F)|(?<=%2f)|(?<=\\[nrt]))"
    r"(?=[a-z_]*[A-Z0-9-])[A-Za-z0-9_-]{21}[AQgw](?![A-Za-z0-9_-])",
    re.ASCII,
)
_SECRET_LENGTH = 22
_USERINFO = re.compile(r"(?<=://)[^\s/@'\"]+@", re.ASCII)
_URL_REST = re.compile(
    r"([a-z][a-z0-9+.-]*://[^\s/?#'\"]+[/?#])[^\s'\"]+", re.ASCII | re.IGNORECASE
)
# What uvicorn says when an answer was cut; the request's own line says it better.
_CUT_BY_US = "ASGI callable returned without completing response."


def redact(text: str) -> str:
    """The text without minted secrets, without user information and paths of URLs."""
    if "://" in text:
        text = _URL_REST.sub(rf"\1{_BLACK}", _USERINFO.sub(f"{_BLACK}@", text))
    return _SECRET.sub(_BLACK, text)


def configure_logging(service: str, level: str) -> None:
    """Send all log lines of this process to stdout; called once, by `__main__`.

    Args:
        service: Named in every line.
        level: Least severity that is logged: debug, info, warning or error.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    sink = _Sink(sys.stdout)

    def name_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
        structlog.processors.format_exc_info,
        _redact_values,
    ]
    render = structlog.processors.JSONRenderer()
    # Our own lines go straight to the sink: a detour over logging doubles what a line costs.
    structlog.configure(
        processors=[*common, render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_args: sink,
        cache_logger_on_first_use=True,
    )
    handler = _SinkHandler(sink)
    handler.addFilter(_is_news)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_name_library, *common],
            processors=[ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=least, force=True)
    logging.captureWarnings(capture=True)
    _calm_libraries(least)


def _calm_libraries(least: int) -> None:
    # Never below INFO: uvicorn's TRACE prints scopes, and a level of its own saves it a line
    # per connection. Its access log has paths, and paths have tokens.
    logging.getLogger("uvicorn.error").setLevel(max(least, logging.INFO))
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    for noisy in ("apscheduler", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(max(least, logging.WARNING))


class _Sink:
    """Where lines end: whole ones, one at a time; a full disk behind stdout breaks no request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


class _SinkHandler(logging.Handler):
    """The standard library's way to the same sink."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.write(self.format(record))


def _is_news(record: logging.LogRecord) -> bool:
    """False for what the request's own line already says: answers cut or cancelled on purpose."""
    if record.name != "uvicorn.error":
        return True
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (cancelled or record.msg == _CUT_BY_US)


def _name_library(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["message"] = str(event["event"]).strip()
    event["event"] = "library_logged"
    event["logger"] = record.name
    return event


def _redact_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, (str, list, tuple, dict)):
            event[key] = _redacted(value)
    return event


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        # Most values are short words; the check spares them the search.
        return redact(value) if len(value) >= _SECRET_LENGTH or "://" in value else value
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    return value
