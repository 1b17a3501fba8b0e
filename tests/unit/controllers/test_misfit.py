"""An object of another release that this one cannot read: told once, not tried for ever."""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_crashes import TASK, world

from triplane.controllers.key import Key

STEP = {"name": "a", "objective": "Do it", "agentRef": {"name": "writer"}, "outputs": TASK["outputs"]}
GOOD: dict[str, dict[str, Any]] = {
    "Task": TASK,
    "Node": {"graphRef": {"name": "g"}, "steps": [STEP]},
    "Workflow": {"steps": [STEP]},
    "Capability": {"instructions": "x"},
}


def condition(made: MemoryWorld, kind: str, type_: str, name: str = "x") -> dict[str, Any]:
    conditions = made.server.objects[kind, NAMESPACE, name]["status"]["conditions"]
    return next((item for item in conditions if item["type"] == type_), {"status": "absent"})


@pytest.mark.parametrize("kind", GOOD)
async def test_it_is_stalled_and_names_the_field_until_it_is_corrected(kind: str) -> None:
    made = world()
    made.server.put(kind, "x", {**GOOD[kind], "renamedSince": 1}, "alice")
    made.look()
    assert await made.reconcile(Key(kind, NAMESPACE, "x")) is None, "only an edit can help"
    stalled = condition(made, kind, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "SpecInvalid")
    assert stalled["message"].startswith("spec.renamedSince: ")
    version = made.server.objects[kind, NAMESPACE, "x"]["metadata"]["resourceVersion"]
    await made.settle()
    assert made.server.objects[kind, NAMESPACE, "x"]["metadata"]["resourceVersion"] == version, "told once"
    del made.server.objects[kind, NAMESPACE, "x"]["spec"]["renamedSince"]
    made.server.edit(kind, "x")
    made.look()
    for _ in range(3):
        await made.settle()
        made.clock.advance(10)
        made.look()
    assert condition(made, kind, "Stalled")["status"] != "True"


async def test_a_node_says_when_it_is_its_workflow_that_cannot_be_read() -> None:
    made = world()
    made.server.put("Workflow", "w", {"steps": [STEP], "renamedSince": 1}, "alice")
    made.server.put("Node", "x", {"graphRef": {"name": "g"}, "workflowRef": {"name": "w"}}, "alice")
    made.look()
    await made.settle()
    assert "a Workflow that it goes by was stored by" in condition(made, "Node", "Stalled")["message"]


async def test_what_was_decided_for_good_stays_so() -> None:
    made = world()
    while await made.run_next() is not None or made.pending:
        await made.settle()
    ended = made.server.objects["Task", NAMESPACE, "t"]
    assert ended["status"]["state"] == "completed"
    made.server.edit("Task", "t", renamedSince=1)
    made.look()
    await made.settle()
    assert made.server.objects["Task", NAMESPACE, "t"]["status"] == ended["status"]
