"""The numbers the operator gives: right, bounded in labels, and documented."""

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.controllers.notary_world import NotaryWorld

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.controllers.key import Key
from triplane.controllers.rescan import Pace, Rescan
from triplane.errors import Conflict, Unavailable
from triplane.operator.gauges import expose
from triplane.operator.metrics import PREFIX, Metrics
from triplane.operator.notary import expose_notary
from triplane.operator.rescan import expose_rescan
from triplane.operator.shell import Shell, Stores

PAGE = Path(__file__).parents[3] / "docs/reference/metrics.md"


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the exposition, without the prefix."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def shell_with(metrics: Metrics) -> Shell:
    clock = SystemClock()
    stores = Stores(MemoryEventLog(), MemorySessionStore(clock))
    nothing: object = None
    return Shell(
        nothing,  # type: ignore[arg-type]
        stores,
        clock,
        kubeconfig=None,
        namespace=None,
        lease_seconds=15,
        metrics=metrics,
    )


def test_reconciles_are_counted_by_kind_result_and_error() -> None:
    metrics = Metrics()
    metrics.reconciled("Task", 0.01)
    metrics.reconciled("Task", 0.3, Conflict("it moved"))
    metrics.reconciled("Task", 0.3, TimeoutError())
    metrics.reconciled("Task", 0.3, KeyError("a user's text must not become a label"))
    found = samples(metrics)
    assert found["reconcile_seconds_count", (("kind", "Task"), ("result", "ok"))] == 1
    assert found["reconcile_seconds_count", (("kind", "Task"), ("result", "error"))] == 3
    for name in ("Conflict", "Timeout", "Unexpected"):
        assert found["reconcile_errors_total", (("error", name), ("kind", "Task"))] == 1
    assert not any("user" in value for _, labels in found for _, value in labels)


def test_writes_are_counted_apart_from_reads_and_refusals() -> None:
    metrics = Metrics()
    for verb, kind, code in (("POST", "Task", 201), ("GET", "Task", 200), ("PATCH", "Task", 409), ("GET", "Task", 0)):
        metrics.answered(verb, kind, code)
    metrics.held("retry_after", 1.5)
    found = samples(metrics)
    assert {key: value for key, value in found.items() if key[0] == "api_writes_total"} == {
        ("api_writes_total", (("kind", "Task"), ("verb", "POST"))): 1
    }
    assert found["api_errors_total", (("code", "409"), ("verb", "PATCH"))] == 1
    assert found["api_errors_total", (("code", "0"), ("verb", "GET"))] == 1
    assert found["api_waits_total", (("reason", "retry_after"),)] == 1
    assert found["api_wait_seconds_total", (("reason", "retry_after"),)] == 1.5


async def test_the_shell_shows_its_queue_mirror_and_watches() -> None:
    metrics = Metrics()
    shell = shell_with(metrics)
    expose(metrics, shell, SystemClock())
    shell.queue.add(Key("Task", "team", "t"))
    shell.queue.add(Key("Task", "team", "later"), 60)
    shell.watcher.restarts_total = 3
    shell.stuck = 2
    found = samples(metrics)
    assert found["queue_depth", ()] == 1
    assert found["queue_keys", ()] == 2
    assert found["queue_oldest_seconds", ()] > 0
    assert found["watch_restarts_total", ()] == 3
    assert found["watches_stuck", ()] == 2
    assert found["index_objects", (("kind", "Task"),)] == 0
    assert found["sweep_age_seconds", ()] == -1
    assert found["process_resident_memory_bytes", ()] > 1_000_000


async def test_reconciles_of_the_shell_are_measured_and_their_retries_counted() -> None:
    metrics = Metrics()
    shell = shell_with(metrics)

    class Failing:
        async def reconcile(self, key: Key) -> float | None:
            raise Unavailable("not now")

    shell._reconciler = Failing()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await shell._reconcile(Key("Node", "team", "n"))
    assert samples(metrics)["reconcile_errors_total", (("error", "Unavailable"), ("kind", "Node"))] == 1


def test_two_operators_in_one_process_do_not_share_numbers() -> None:
    first, second = Metrics(), Metrics()
    first.swept(0.1, 4)
    assert samples(first)["sweep_repairs_total", ()] == 4
    assert samples(second)["sweep_repairs_total", ()] == 0


def test_the_page_names_exactly_what_there_is_with_its_type_and_labels() -> None:
    metrics = Metrics()
    expose(metrics, shell_with(metrics), SystemClock())
    shared = MemoryLog.create()
    silent = Rescan(
        MemoryEventLog(shared), MemoryCheckpointStore(shared), lambda: None, lambda _: asyncio.sleep(0), Pace(1, 1)
    )
    expose_rescan(metrics, silent)
    expose_notary(metrics, NotaryWorld.in_memory().notary(), SystemClock(), 0)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    there = {}
    for collector in list(metrics.registry._collector_to_names):
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ()) or ()
            there[name] = (family.type, tuple(labels))
    assert {name: shape for name, shape in documented.items() if name.startswith(PREFIX)} == there
