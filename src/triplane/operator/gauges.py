"""What the shell is like now, as gauges: read when somebody scrapes."""

from triplane.operator.metrics import Metrics
from triplane.operator.shell import Shell
from triplane.ports import Clock


def expose(metrics: Metrics, shell: Shell, clock: Clock) -> None:
    """Have ``metrics`` report on this shell."""
    metrics.gauge("queue_depth", "Keys in line to be reconciled", lambda: shell.queue.depth)
    metrics.gauge("queue_oldest_seconds", "Seconds the first in line has waited", lambda: shell.queue.oldest_seconds)
    metrics.gauge("queue_keys", "Keys known to the queue: in line, at work or waiting", lambda: len(shell.queue))
    metrics.gauge("workers_busy", "Reconciles at work", lambda: shell.queue.running)
    metrics.counter("watch_restarts", "Restarts of all watches since the start", lambda: shell.watcher.restarts_total)
    metrics.gauge(
        "watch_thread_silence_seconds",
        "Seconds since the watching thread showed a sign of life",
        lambda: shell.watcher.silence() if shell.watcher.started else 0.0,
    )
    metrics.gauge("watches_stuck", "Restarts of the watches in a row that did not help", lambda: shell.stuck)
    metrics.gauge("sweep_age_seconds", "Seconds since the last complete sweep", lambda: _sweep_age(shell, clock))
    metrics.gauge("log_lag_entries", "Log entries to act on that were not seen yet (at most 1,000 are counted)",
                  lambda: shell.log_meter.entries)  # fmt: skip
    metrics.gauge("log_lag_seconds", "Age of the oldest of them", lambda: shell.log_meter.seconds)
    metrics.gauges_by(
        "index_objects",
        "Objects in the mirror",
        "kind",
        lambda: {kind: float(count) for kind, count in shell.index.counts().items()},
    )


def _sweep_age(shell: Shell, clock: Clock) -> float:
    completed = shell.sweep.completed_at
    return -1.0 if completed is None else clock.monotonic() - completed
