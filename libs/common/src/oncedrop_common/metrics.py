"""What Prometheus reads at `/metrics`. No label ever names a drop, a path or a client.

Each application has its own registry, handed around as an argument: two in one process, as in
tests, do not meet.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
    values,
)
from starlette.requests import Request
from starlette.responses import Response

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
_CLAIM_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_TRANSFER_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200, 43200)
# Where prometheus_client keeps the numbers of several processes.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def method_label(method: str) -> str:
    """The method, or OTHER: a client can invent methods, and each would be a new time series."""
    return method if method in _METHODS else "OTHER"


def count_in(folder: str) -> None:
    """Count together with the other workers of this service, by files in this folder.

    Called before the first `Metrics`. Whichever worker is asked tells the numbers of all; those of
    the process itself (memory, CPU) are left out, for they would be of any one.
    """
    os.environ[_FOLDER] = folder
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def count_out(folder: str, process_id: int) -> None:
    """A worker has ended: what it counted stays, what it was at the moment goes."""
    multiprocess.mark_process_dead(process_id, folder)  # type: ignore[no-untyped-call]


class Metrics:
    """The counters of one application.

    Attributes:
        registry: Where further collectors of the same application register.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Gauge(
            "oncedrop_service",
            "Which service this process is.",
            ["service"],
            registry=self.registry,
            multiprocess_mode="livemax",
        ).labels(service).set(1)
        self._arrows = Counter(
            "oncedrop_arrows",
            "Changes of state asked of the store, by script and by what it answered.",
            ["arrow", "result"],
            registry=self.registry,
        )
        self._requests = Counter(
            "oncedrop_requests",
            "Requests by route template, method and class of status (none: no answer began).",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "oncedrop_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route", "method"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._problems = Counter(
            "oncedrop_problems",
            "Errors answered, by their slug.",
            ["problem"],
            registry=self.registry,
        )
        self._bytes_in = Counter(
            "oncedrop_received_bytes", "Bytes of request bodies.", registry=self.registry
        )
        self._bytes_out = Counter(
            "oncedrop_sent_bytes", "Bytes of response bodies.", registry=self.registry
        )
        self._claim_seconds = Histogram(
            "oncedrop_claim_seconds",
            "Time from the wish to take a drop to the volume's confirmation.",
            buckets=_CLAIM_BUCKETS,
            registry=self.registry,
        )
        self._claim_syncs = Counter(
            "oncedrop_claim_syncs",
            "Times that claimed/ was made to survive a power cut; several claims share one.",
            registry=self.registry,
        )
        self._transfer_seconds = Histogram(
            "oncedrop_transfer_seconds",
            "Time from the first byte of a file's body to the last, up (in) or down (out).",
            ["direction"],
            buckets=_TRANSFER_BUCKETS,
            registry=self.registry,
        )
        self._looked = Counter(
            "oncedrop_looked",
            "Requests for a link that only looked, by what gave them away.",
            ["why"],
            registry=self.registry,
        )

    def arrow(self, arrow: str, result: str) -> None:
        """Count one call of an arrow's script and the word it answered."""
        self._arrows.labels(arrow, result.lower()).inc()

    def request(self, route: str, method: str, status: int | None, seconds: float) -> None:
        """Count one finished request.

        Args:
            route: The template, never a path.
            method: As sent by the client.
            status: None when no answer began.
            seconds: How long it took.
        """
        label = method_label(method)
        self._requests.labels(route, label, f"{status // 100}xx" if status else "none").inc()
        self._request_seconds.labels(route, label).observe(seconds)

    def problem(self, slug: str) -> None:
        """Count one error that was answered."""
        self._problems.labels(slug).inc()

    def received(self, count: int) -> None:
        """Count bytes of a request's body."""
        self._bytes_in.inc(count)

    def sent(self, count: int) -> None:
        """Count bytes of a response's body."""
        self._bytes_out.inc(count)

    def claimed(self, seconds: float) -> None:
        """Note how long a claim took, from the request to the volume's confirmation."""
        self._claim_seconds.observe(seconds)

    def claims_synced(self) -> None:
        """Count one fsync of claimed/, however many claims it served."""
        self._claim_syncs.inc()

    def transferred(self, direction: str, seconds: float) -> None:
        """Note how long the body of a file took; direction is `in` or `out`."""
        self._transfer_seconds.labels(direction).observe(seconds)

    def looked(self, why: str) -> None:
        """Count a request that only looked; why is one of deliver's few words, not a client's."""
        self._looked.labels(why).inc()

    async def endpoint(self, _request: Request) -> Response:
        """Everything in the registry, in Prometheus' text format."""
        registry = self.registry
        if _FOLDER in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class JanitorMetrics:
    """What the janitor knows: its passes, the volume's use and the guard."""

    def __init__(self, metrics: Metrics) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"oncedrop_{name}", text, labels, registry=metrics.registry)

        self._last_start = gauge(
            "pass_last_start_timestamp_seconds", "When a pass last began.", "pass"
        )
        self._duration = gauge("pass_duration_seconds", "How long the last pass took.", "pass")
        self._counts = {
            "scanned": gauge("pass_scanned", "Things the last pass looked at.", "pass"),
            "removed": gauge("pass_removed", "Things the last pass removed.", "pass"),
            "rebuilt": gauge("pass_rebuilt", "Records the last pass rebuilt.", "pass"),
            "kept": gauge("pass_kept", "Things the last pass left to grace.", "pass"),
            "errors": gauge("pass_errors", "Things the last pass failed at.", "pass"),
        }
        self._drops = gauge("drops", "Drops that are not gone.")
        self._stored = gauge("stored_bytes", "Bytes of the volume that drops use.")
        self._free = gauge("volume_free_bytes", "Bytes of the volume that are free.")
        self._guard = gauge("guard_active", "1 while the guard forbids deleting.")

    def passed(
        self,
        name: str,
        *,
        started_ms: int,
        duration_seconds: float,
        scanned: int,
        removed: int,
        rebuilt: int,
        kept: int,
        errors: int,
    ) -> None:
        """Note a pass that ended; name is `due` or `sweep`."""
        self._last_start.labels(name).set(started_ms / 1000)
        self._duration.labels(name).set(duration_seconds)
        for count, value in (
            ("scanned", scanned),
            ("removed", removed),
            ("rebuilt", rebuilt),
            ("kept", kept),
            ("errors", errors),
        ):
            self._counts[count].labels(name).set(value)

    def usage(self, *, drops: int, stored_bytes: int, free_bytes: int) -> None:
        """Note what the volume holds."""
        self._drops.set(drops)
        self._stored.set(stored_bytes)
        self._free.set(free_bytes)

    def guard(self, *, active: bool) -> None:
        """Note whether the guard forbids deleting."""
        self._guard.set(active)
