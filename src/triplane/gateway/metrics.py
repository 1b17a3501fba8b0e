"""What the gateway does, in numbers: Prometheus metrics of one process, without global state.

Label values come from small fixed sets (parts of the API, status codes, event types), never from callers, so the number
of series is bounded. docs/reference/metrics.md is held against this file by a test.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX: Final = "triplane_gateway"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Exposition formats, "Text-based format"."""
ANSWER_BUCKETS: Final = (0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0)
APPEND_BUCKETS: Final = (0.002, 0.01, 0.05, 0.2, 1.0, 5.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


class GatewayMetrics:
    """Counters to be raised."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self._requests = self._counter("requests", "Requests answered", "part", "method", "code")
        self._answers = self._histogram(
            "answer_seconds", "Seconds until the answer began; long polls wait on purpose", ANSWER_BUCKETS, "part"
        )
        self._appends = self._histogram("log_append_seconds", "Seconds until the log had appended", APPEND_BUCKETS)
        self._appending = self._gauge(
            "log_append_waiting_entries", "Entries whose append is under way, or waits its turn"
        )
        self._stored = self._counter("blobs_stored", "Blobs stored, also again")
        self._stored_octets = self._counter("blob_stored_bytes", "Octets of the blobs stored")
        self._resolved = self._counter("blobs_resolved", "Blobs read to their end and found right")
        self._resolved_octets = self._counter("blob_resolved_bytes", "Octets of blobs read")
        self._quarantined = self._counter("blobs_quarantined", "Blobs found altered and moved aside")
        self._absent = self._counter("blobs_absent", "Reads of a blob that is not there, by why", "reason")
        self._erased = self._counter("blobs_erased", "Blobs erased on purpose")
        self._collected = self._counter("blobs_collected", "Blobs removed because nothing named them")
        self._collected_octets = self._counter("blob_collected_bytes", "Octets of the blobs collected")
        self._collections = self._counter("collections", "Collections, by how they ended", "result")
        self._scrubbed = self._counter("blobs_scrubbed", "Blobs read again by the scrub")
        self._scrubbed_octets = self._counter("blob_scrubbed_bytes", "Octets read again by the scrub")
        self._bad = self._counter("scrub_bad_blobs", "Blobs that a scrub found altered, or could not read", "problem")
        self._scrub_ended = self._gauge("scrub_ended_seconds", "When a scrub last reached the end (Unix time)")
        self._collection_ended = self._gauge("collection_ended_seconds", "When a collection last ended (Unix time)")

    def exposition(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)

    def answered(self, part: str, method: str, code: int, seconds: float) -> None:
        """A request's answer has begun, after so many seconds."""
        self._requests.labels(part, method if method in _METHODS else "other", str(code)).inc()
        self._answers.labels(part).observe(seconds)

    def appending(self, read: Callable[[], float]) -> None:
        """How to read how many entries wait to be appended."""
        self._appending.set_function(read)

    def appended(self, seconds: float) -> None:
        """The log took a batch."""
        self._appends.observe(seconds)

    def stored(self, octets: int) -> None:
        """A blob was stored."""
        self._stored.inc()
        self._stored_octets.inc(octets)

    def read(self, octets: int) -> None:
        """So much of a blob was read."""
        self._resolved_octets.inc(octets)

    def resolved(self) -> None:
        """A blob was read to its end."""
        self._resolved.inc()

    def quarantined(self) -> None:
        """A blob was moved aside."""
        self._quarantined.inc()

    def absent(self, reason: str) -> None:
        """A blob that was asked for is not there; ``reason`` is the class of the error."""
        self._absent.labels(reason).inc()

    def erased(self) -> None:
        """A blob was erased."""
        self._erased.inc()

    def collected(self, result: str, blobs: int = 0, octets: int = 0) -> None:
        """A collection ended: ``done``, ``refused``, ``busy`` or ``failed``."""
        self._collections.labels(result).inc()
        self._collected.inc(blobs)
        self._collected_octets.inc(octets)
        if result == "done":
            self._collection_ended.set_to_current_time()

    def scrubbed(self, octets: int) -> None:
        """A scrub has read one more blob."""
        self._scrubbed.inc()
        self._scrubbed_octets.inc(octets)

    def scrub_ended(self, bad: int, unreadable: int) -> None:
        """A scrub has read everything."""
        self._bad.labels("altered").inc(bad)
        self._bad.labels("unreadable").inc(unreadable)
        self._scrub_ended.set_to_current_time()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


class MeteredApp:
    """The app, with its answers counted. Plain ASGI: it touches no body."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, parts: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ``fastapi.FastAPI``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - began
                self._metrics.answered(self._part(scope["path"]), scope["method"], message["status"], seconds)
            await send(message)

        await self._app(scope, receive, counted)

    def _part(self, path: str) -> str:
        """The first word of the path behind the version, if there is such a part of the API."""
        words = path.split("/", 3)
        part = words[2] if len(words) > 2 and words[1] == "v1" else words[1] if len(words) > 1 else ""
        return part if part in self._parts else "other"


def parts_of(routes: Any) -> frozenset[str]:
    """The first words of the paths that are served: the values of the label ``part``."""
    words = [str(getattr(route, "path", "")).split("/") for route in routes]
    named = [each[2] if len(each) > 2 and each[1] == "v1" else each[1] for each in words if len(each) > 1]
    return frozenset(word for word in named if word and not word.startswith("{"))
