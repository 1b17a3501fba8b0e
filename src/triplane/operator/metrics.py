"""What the operator does, in numbers: Prometheus metrics of one process, without global state.

Names and units follow the conventions of prometheus.io ("Metric and label naming"). Label values come from small
fixed sets (kinds, verbs, status codes, our error classes), never from users, so the number of series is bounded.
docs/reference/metrics.md is held against this file by a test.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from triplane import errors

PREFIX = "triplane_operator"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Exposition formats, "Text-based format"."""

RECONCILE_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
APPEND_BUCKETS = (0.002, 0.01, 0.05, 0.2, 1.0, 5.0)
SWEEP_BUCKETS = (0.1, 0.5, 2.0, 10.0, 60.0)
LAG_BUCKETS = (0.01, 0.05, 0.25, 1.0, 5.0)

_ERRORS = frozenset(
    name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.TriplaneError)
)

Gauge = tuple[str, str, Callable[[], float]]
"""Name without prefix, what it says, how to read it now."""


class Metrics:
    """Counters to be raised, and gauges that are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = _Gauges()
        self.registry.register(self._gauges)
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self._reconciles = self._histogram(
            "reconcile_seconds", "Seconds a reconcile took", RECONCILE_BUCKETS, "kind", "result"
        )
        self._errors = self._counter("reconcile_errors", "Reconciles that failed", "kind", "error")
        self._retries = self._counter("retries", "Reconciles that will be tried again after a failure", "kind")
        self._writes = self._counter("api_writes", "Writes the API server took", "verb", "kind")
        self._refusals = self._counter(
            "api_errors", "Answers of the API server other than success, by HTTP code; 0: no answer", "verb", "code"
        )
        self._waits = self._counter("api_waits", "Requests held back, by what held them", "reason")
        self._waited = self._counter("api_wait_seconds", "Seconds requests were held back", "reason")
        self._sweeps = self._histogram("sweep_seconds", "Seconds a sweep of LISTs took", SWEEP_BUCKETS)
        self._repaired = self._counter("sweep_repairs", "Differences between LIST and mirror that sweeps repaired")
        self._appends = self._histogram("log_append_seconds", "Seconds until the log had appended", APPEND_BUCKETS)
        self.appending: Callable[[], float] = lambda: 0.0
        """How to read how many entries wait to be appended."""
        self.gauge(
            "log_append_waiting_entries",
            "Entries whose append is under way, or waits its turn",
            self._waiting,
        )
        self._loop = self._histogram("event_loop_lag_seconds", "Seconds the event loop was late", LAG_BUCKETS)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge without labels."""
        self._gauges.plain.append((name, text, read))

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter that somebody else keeps."""
        self._gauges.counters.append((name, text, read))

    def gauges_by(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """Add a gauge with one label, whose values must be few."""
        self._gauges.labelled.append((name, text, label, read))

    def exposition(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)

    # What is counted

    def reconciled(self, kind: str, seconds: float, error: BaseException | None = None) -> None:
        """One reconcile ended, well or with ``error``."""
        self._reconciles.labels(kind, "ok" if error is None else "error").observe(seconds)
        if error is not None:
            self._errors.labels(kind, _name(error)).inc()

    def will_retry(self, kind: str) -> None:
        """A key failed and waits for its next try."""
        self._retries.labels(kind).inc()

    def answered(self, verb: str, kind: str, code: int) -> None:
        """The API server answered (``triplane.adapters.kube.transport.Meter``)."""
        if not 200 <= code < 300:
            self._refusals.labels(verb, str(code)).inc()
        elif verb != "GET":
            self._writes.labels(verb, kind).inc()

    def held(self, reason: str, seconds: float) -> None:
        """A request to the API server was held back (``triplane.adapters.kube.transport.Meter``)."""
        self._waits.labels(reason).inc()
        self._waited.labels(reason).inc(seconds)

    def swept(self, seconds: float, repaired: int) -> None:
        """A sweep ended."""
        self._sweeps.observe(seconds)
        self._repaired.inc(repaired)

    def appended(self, seconds: float) -> None:
        """The log took a batch."""
        self._appends.observe(seconds)

    def _waiting(self) -> float:
        return self.appending()

    def loop_late(self, seconds: float) -> None:
        """The event loop came back that much later than asked."""
        self._loop.observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


class _Gauges(Collector):
    """Reads the gauges at scrape time: nothing is kept up to date that nobody looks at."""

    def __init__(self) -> None:
        self.plain: list[Gauge] = []
        self.counters: list[Gauge] = []
        self.labelled: list[tuple[str, str, str, Callable[[], dict[str, float]]]] = []

    def collect(self) -> Iterator[Metric]:
        for name, text, read in self.plain:
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=read())
        for name, text, read in self.counters:
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value=read())
        for name, text, label, read_all in self.labelled:
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
            for value, number in sorted(read_all().items()):
                family.add_metric([value], number)
            yield family


def _name(error: BaseException) -> str:
    """The class among ours; everything else is one label value."""
    name = type(error).__name__
    return name if name in _ERRORS else "Timeout" if isinstance(error, TimeoutError) else "Unexpected"
