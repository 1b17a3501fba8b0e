"""A start with much finished work: it costs no reconcile, and new work comes first."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.operator.objects import conditions, make
from tests.unit.operator.test_sweep import Lists

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.controllers.key import Key
from triplane.errors import Unavailable
from triplane.operator.shell import Shell, Stores
from triplane.operator.sweep import SWEEP_JITTER, SWEEP_LONGEST_SECONDS, SWEEP_SECONDS, pause

DONE = {**conditions(Succeeded="True"), "observedGeneration": 1}


class Recorder:
    """A reconciler that knows which generations are logged."""

    def __init__(self, unseen: set[str]) -> None:
        self.unseen = unseen
        self.reconciled: list[Key] = []
        self.gone_uids: list[str] = []
        self.outages = 1

    async def reconcile(self, key: Key) -> float | None:
        self.reconciled.append(key)
        return None

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        self.gone_uids.append(obj["metadata"]["uid"])

    async def project(self) -> None: ...

    async def catch_up(self) -> None:
        if self.outages:
            self.outages -= 1
            raise Unavailable("the database is away")

    def has_seen(self, obj: Mapping[str, Any]) -> bool:
        return obj["metadata"]["uid"] not in self.unseen


@pytest.fixture
def lists() -> Lists:
    """A thousand finished Tasks, one whose generation was never logged, and one that is new."""
    it = Lists()
    it.objects["Task"] = [make("Task", f"old-{number}", status=DONE, rv=5) for number in range(1000)]
    it.objects["Task"] += [make("Task", "unlogged", status=DONE, rv=5), make("Task", "new", rv=6)]
    it.objects["AgentSession"] = [
        make("AgentSession", f"s-{number}", status=DONE, rv=5, spec={"taskRef": {"uid": f"uid-Task-old-{number}"}})
        for number in range(1000)
    ]
    it.objects["Review"] = [
        make("Review", f"r-{number}", rv=5, spec={"taskRef": {"uid": f"uid-Task-old-{number}"}})
        for number in range(1000)
    ]
    return it


def shell_over(lists: Lists) -> Shell:
    clock = SystemClock()
    stores = Stores(MemoryEventLog(), MemorySessionStore(clock))
    return Shell(lists, stores, clock, kubeconfig=None, namespace=None, lease_seconds=15)  # type: ignore[arg-type]


async def test_finished_work_costs_no_reconcile_and_new_work_comes_first(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triplane.operator.shell.START_RETRY_SECONDS", 0.01)
    shell, recorder = shell_over(lists), Recorder({"uid-Task-unlogged"})
    shell._reconciler = recorder
    await shell._fill(recorder)
    assert recorder.outages == 0, "it insisted until the stores answered"
    assert len(shell.index) == 3002
    assert [await shell.queue._line.get() for _ in range(shell.queue.depth)] == [
        Key("Task", "team", "new"),
        Key("Task", "team", "unlogged"),
    ]


async def test_a_resync_leaves_finished_work_alone(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplane.operator.shell.START_RETRY_SECONDS", 0.01)
    shell, recorder = shell_over(lists), Recorder(set())
    shell._reconciler = recorder
    await shell._fill(recorder)
    await shell.queue._line.get()
    assert shell.queue.depth == 0
    shell.queue._entries.clear()
    shell._look_at_unsettled(starting=False)
    assert shell.queue.depth == 1


async def test_after_the_start_every_change_is_looked_at(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplane.operator.shell.START_RETRY_SECONDS", 0.01)
    shell, recorder = shell_over(lists), Recorder(set())
    shell._reconciler = recorder
    await shell._fill(recorder)
    before = shell.queue.depth
    shell._deliver("MODIFIED", make("Task", "old-7", status=DONE, rv=9))
    assert shell.queue.depth == before + 1


async def test_what_is_deleted_again_while_its_end_is_noted_disturbs_nobody(lists: Lists) -> None:
    shell, recorder = shell_over(lists), Recorder(set())
    shell._reconciler = recorder
    shell._note_gone("Task", "u-1", make("Task", "t", uid="u-1"))
    await shell._end("u-1")
    await shell._end("u-1")
    assert recorder.gone_uids == ["u-1"]


@pytest.mark.parametrize(
    ("took", "expected"),
    [
        pytest.param(0.1, SWEEP_SECONDS, id="an ordinary sweep"),
        pytest.param(2.0, 40.0, id="a long one puts the next off"),
        pytest.param(60.0, SWEEP_LONGEST_SECONDS, id="but not for ever"),
    ],
)
def test_the_next_sweep_depends_on_what_the_last_one_took(took: float, expected: float) -> None:
    waits = [pause(random.Random(seed), took) for seed in range(50)]
    assert min(waits) >= expected * (1 - SWEEP_JITTER)
    assert max(waits) <= expected * (1 + SWEEP_JITTER)
