"""What a thousand Tasks change: the time of each, the operator's memory, its idle writes, and its cold start.

One installation serves all figures, so they are in the order in which its Tasks accumulate. A quarter of an hour on
two cores; ``python -m tests.bench scale`` runs it alone.
"""

import os
import signal
import time

import psycopg

from tests.bench import processor
from tests.bench.chain import settled, writes
from tests.bench.figures import Figure, figure
from tests.bench.throughput import NAMESPACE, installation, run_tasks
from tests.e2e.stack import Stack, graph, has, task
from triplane.adapters.postgres.connection import dsn
from triplane.localcluster.process import recorded

FEW, MANY = 100, 1000
IDLE_SECONDS = 60.0


def figures() -> list[Figure]:
    """All figures of this module, on one installation."""
    with installation() as stack:
        stack.apply(graph(NAMESPACE, "few"), graph(NAMESPACE, "many"))
        few = run_tasks(stack, "few", FEW, "few") / FEW
        many = run_tasks(stack, "many", MANY, "many") / MANY
        scaling = figure("chain.scaling", many, f"s a Task of {MANY}, to {FEW}", reference=few, repeat=MANY)
        return [scaling, *idle(stack), *cold_start(stack)]


def idle(stack: Stack) -> list[Figure]:
    """Writes to the API server while nothing is to be done, and what the operator keeps in memory then."""
    before = settled(stack.admin, quiet_seconds=15.0)
    time.sleep(IDLE_SECONDS)
    spent = writes(stack.admin)
    spent.subtract(before)
    parts = {resource: count for resource, count in spent.items() if count}
    rss = processor.rss_mib(_operator(stack))
    return [
        figure("idle.api_writes_per_minute", sum(parts.values()), f"writes, {MANY} Tasks done", repeat=1, parts=parts),
        figure("operator.rss_mib", rss, f"MiB, {MANY} Tasks done", repeat=1),
    ]


def cold_start(stack: Stack) -> list[Figure]:
    """Seconds from the operator's SIGKILL until a Task made meanwhile is in the log; the supervisor's pause counts."""
    gone = _operator(stack)
    with psycopg.connect(dsn(stack.settings, "verifier"), autocommit=True) as log:
        began = time.monotonic()
        os.kill(gone, signal.SIGKILL)
        stack.apply(task(NAMESPACE, "after-restart"))
        while not _observed(log, "after-restart"):
            assert time.monotonic() - began < 120, "the operator has not come back within two minutes"
            time.sleep(0.02)
        seconds = time.monotonic() - began
    assert _operator(stack) != gone, "the Task was observed by the operator that was killed"
    stack.wait("Task", NAMESPACE, "after-restart", has("Succeeded", "True"))
    return [figure("operator.cold_start_seconds", seconds, f"s, {MANY} Tasks there", repeat=1)]


def _operator(stack: Stack) -> int:
    identity = recorded(stack.settings.run / "operator.pid")
    assert identity is not None, "no operator runs"
    return identity.pid


def _observed(log: psycopg.Connection[tuple[object, ...]], name: str) -> bool:
    found = log.execute("SELECT 1 FROM log.entries WHERE type = 'resource.observed' AND name = %s LIMIT 1", (name,))
    return found.fetchone() is not None
