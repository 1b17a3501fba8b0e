"""How many Tasks a second the whole chain carries, and what each costs the processor.

The harness is the cheapest honest one (``programs``): a producer that writes its output and reflects, and a reviewer
that hashes what it judges, each in its own sandbox. Everything is durable as in production: etcd and Postgres fsync.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import processor
from tests.bench.figures import Figure, figure
from tests.e2e.api import resource
from tests.e2e.stack import Stack, graph, has, task

NAMESPACE = "bench"
PROGRAMS = Path(__file__).parent / "programs"
TASKS = 200
WARM_UP = 20
PATIENCE_SECONDS = 2.0
"""Per Task: slower than this, the measurement is given up instead of waited for."""


@contextmanager
def installation() -> Iterator[Stack]:
    """A whole installation with the cheapest producer (alice's) and reviewer (bob's), warmed up."""
    home = Path(tempfile.mkdtemp(prefix="tri-be-"))
    stack = Stack.start(home, fsync=True, programs=PROGRAMS)
    try:
        stack.people(NAMESPACE)
        stack.apply(graph(NAMESPACE), *_agent("worker", "write", "work.sh"))
        stack.apply(*_agent("judge", "review", "review.sh"), as_="bob")
        run_tasks(stack, "warm-up", WARM_UP)
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


def _agent(name: str, capability: str, program: str) -> list[dict[str, Any]]:
    return [
        resource("Harness", NAMESPACE, name, {"exec": {"program": program, "interpreter": "none"}}),
        resource("Agent", NAMESPACE, name, {"harnessRef": {"name": name}, "capabilities": [capability]}),
    ]


def run_tasks(stack: Stack, prefix: str, count: int, graph_name: str = "g") -> float:
    """Seconds from before ``kubectl apply`` of so many one-step Tasks until the last of them is Succeeded."""
    names = [f"{prefix}-{number}" for number in range(count)]
    ref = {"name": graph_name}
    began = time.monotonic()
    stack.apply(*(task(NAMESPACE, name, graphRef=ref) for name in names))
    _wait_succeeded(stack, names, deadline=began + 60 + count * PATIENCE_SECONDS)
    return time.monotonic() - began


def _wait_succeeded(stack: Stack, names: Sequence[str], *, deadline: float) -> None:
    """Until all are accepted. One is looked at; when it has ended, all are: looking must cost next to nothing."""
    missing = set(names)
    while missing:
        last = max(missing, key=names.index)  # the last applied is usually the last to end
        while not has("Succeeded", "True")(found := stack.get("Task", NAMESPACE, last) or {}):
            assert not has("Succeeded", "False")(found), f"Task {last} failed: {found['status']}"
            assert time.monotonic() < deadline, f"{len(missing)} Tasks are not done in time, {last} among them"
            time.sleep(0.1)
        missing -= {
            item["metadata"]["name"] for item in stack.list("Task", NAMESPACE) if has("Succeeded", "True")(item)
        }


def throughput(stack: Stack) -> list[Figure]:
    """Tasks per second, and the processor seconds of each process."""
    before = processor.spent(stack.settings.run)
    seconds = run_tasks(stack, "one", TASKS)
    spent = processor.difference(before, processor.spent(stack.settings.run))
    parts = {name: round(value / TASKS, 4) for name, value in spent.items()}
    return [
        figure("chain.tasks_per_second", TASKS / seconds, "1/s", repeat=TASKS),
        figure("chain.cpu_seconds_per_task", sum(parts.values()), "s", repeat=TASKS, parts=parts),
    ]


def figures() -> list[Figure]:
    """All figures of this module, on one installation."""
    with installation() as stack:
        return throughput(stack)
