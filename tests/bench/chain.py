"""What a Task costs and how soon it starts, on a whole installation.

API writes are counted by the API server itself (``apiserver_request_total``): successful creates, updates, patches and
deletes on ``triplane.dev`` resources and on Events.
"""

import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.figures import Figure, figure
from tests.e2e.api import Api
from tests.e2e.stack import Stack, agent, graph, has, task
from triplane.adapters.postgres.connection import dsn

NAMESPACE = "bench"
COUNTED_TASKS = 20
STARTS = 200
WRITE_VERBS = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}

_SAMPLE = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@contextmanager
def installation() -> Iterator[Stack]:
    """A whole installation with a producer of alice's and a reviewer of bob's."""
    home = Path(tempfile.mkdtemp(prefix="tri-be-"))
    stack = Stack.start(home)
    try:
        stack.people(NAMESPACE)
        stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
        stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
        stack.apply(task(NAMESPACE, "warm-up"))
        stack.wait("Task", NAMESPACE, "warm-up", has("Succeeded", "True"))
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


def writes(admin: Api) -> Counter[str]:
    """Successful writes so far by resource, of triplane.dev and of Events."""
    text = admin.request("GET", "/metrics").raise_for_status().text
    found: Counter[str] = Counter()
    for sample in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(sample["labels"]))
        ours = labels["group"] == "triplane.dev" or labels["resource"] == "events"
        if ours and labels["verb"] in WRITE_VERBS and labels["code"].startswith("2") and not labels.get("dry_run"):
            found[labels["resource"]] += int(float(sample["value"]))
    return found


def settled(admin: Api, quiet_seconds: float = 4.0) -> Counter[str]:
    """The counters once nothing has been written for a while."""
    last, since = writes(admin), time.monotonic()
    while time.monotonic() - since < quiet_seconds:
        time.sleep(0.5)
        now = writes(admin)
        if now != last:
            last, since = now, time.monotonic()
    return last


def api_writes_per_task(stack: Stack) -> list[Figure]:
    """Writes per Task over 20 Tasks applied in a settled Graph; roll-ups of the Graph apart."""
    before = settled(stack.admin)
    names = [f"counted-{number}" for number in range(COUNTED_TASKS)]
    stack.apply(*(task(NAMESPACE, name) for name in names))
    for name in names:
        stack.wait("Task", NAMESPACE, name, has("Succeeded", "True"), seconds=120)
    spent = settled(stack.admin)
    spent.subtract(before)
    rollups = spent.pop("graphs", 0) + spent.pop("nodes", 0)
    parts = {resource: round(count / COUNTED_TASKS, 2) for resource, count in sorted(spent.items()) if count}
    each = sum(spent.values()) / COUNTED_TASKS
    return [
        figure("chain.api_writes_per_task", each, "writes", repeat=COUNTED_TASKS, parts=parts),
        figure("chain.rollup_writes", rollups, f"writes for {COUNTED_TASKS} Tasks", repeat=1),
    ]


def start_latency(stack: Stack) -> list[Figure]:
    """Seconds from ``kubectl apply`` returned to ``run.started``, one Task after another."""
    seconds = []
    with (
        Api(stack.settings.secrets / "kubeconfig-alice") as alice,
        psycopg.connect(dsn(stack.settings, "verifier"), autocommit=True) as log,
    ):
        for number in range(STARTS):
            alice.create(task(NAMESPACE, f"start-{number}")).raise_for_status()
            began = time.perf_counter()
            while not _started(log, f"start-{number}"):
                assert time.perf_counter() - began < 60, f"start-{number} did not start"
                time.sleep(0.005)
            seconds.append(time.perf_counter() - began)
            stack.wait("Task", NAMESPACE, f"start-{number}", has("Succeeded", "True"))
    seconds.sort()
    return [
        figure("chain.start_p50_seconds", statistics.median(seconds), "s", repeat=STARTS),
        figure("chain.start_p99_seconds", seconds[round(0.99 * STARTS) - 1], "s", repeat=STARTS),
    ]


def _started(log: psycopg.Connection[Any], task_name: str) -> bool:
    row = log.execute(
        "SELECT 1 FROM log.entries WHERE type = 'run.started' AND name LIKE %s LIMIT 1", (f"{task_name}-work-%",)
    ).fetchone()
    return row is not None


def figures() -> list[Figure]:
    """All figures of this module, on one installation."""
    with installation() as stack:
        return [*api_writes_per_task(stack), *start_latency(stack)]
