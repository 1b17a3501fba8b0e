"""Whom a change concerns."""

from typing import Any

import pytest
from tests.unit.operator.objects import conditions, make

from triplane.controllers.key import Key
from triplane.operator.dependents import concerned, finished
from triplane.operator.index import Change, Index

GRAPH = make("Graph", "g", spec={})
WORKFLOW = make("Workflow", "w", spec={"steps": []})
NODE = make("Node", "n", spec={"graphRef": {"name": "g"}, "workflowRef": {"name": "w"}})
TASK = make(
    "Task",
    "t",
    spec={"graphRef": {"name": "g"}, "nodeRef": {"name": "n"}, "requiredCapabilities": ["report"]},
    ownerReferences=[
        {"apiVersion": "triplane.dev/v1alpha1", "kind": "Node", "name": "n", "uid": "uid-Node-n"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "alien", "uid": "x"},
    ],
)
LATER = make(
    "Task",
    "later",
    spec={"graphRef": {"name": "g"}, "inputs": [{"name": "i", "from": {"task": "t", "output": "o"}}]},
)
AGENT = make("Agent", "a", spec={"harnessRef": {"name": "h"}, "capabilities": ["report"]})
HARNESS = make("Harness", "h", spec={})
CAPABILITY = make("Capability", "report", spec={})
SESSION = make(
    "AgentSession",
    "s",
    spec={"taskRef": {"name": "t", "uid": "uid-Task-t"}, "agentRef": {"name": "a", "uid": "uid-Agent-a"}},
)
ARTIFACT = make("Artifact", "art", spec={"taskRef": {"name": "t", "uid": "uid-Task-t"}})
REVIEW = make("Review", "r", spec={"taskRef": {"name": "t", "uid": "uid-Task-t"}})
WORLD = (GRAPH, WORKFLOW, NODE, TASK, LATER, AGENT, HARNESS, CAPABILITY, SESSION, ARTIFACT, REVIEW)


@pytest.fixture
def index() -> Index:
    index = Index()
    for obj in WORLD:
        index.put(obj)
    return index


def concerns(index: Index, obj: dict[str, Any], before: dict[str, Any] | None = None) -> set[str]:
    """Whom it concerns that the object came, or is not what it was before."""
    return {f"{key.kind}/{key.name}" for key in concerned(index, Change(obj["kind"], before, obj))}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (GRAPH, {"Graph/g", "Node/n", "Task/t", "Task/later"}),
        (WORKFLOW, {"Workflow/w", "Node/n"}),
        (NODE, {"Node/n", "Graph/g", "Task/t"}),
        (TASK, {"Task/t", "Node/n", "Graph/g", "Task/later", "AgentSession/s", "Artifact/art"}),
        (AGENT, {"Agent/a", "Task/t", "AgentSession/s"}),
        (HARNESS, {"Harness/h", "Agent/a", "Task/t", "AgentSession/s"}),
        (CAPABILITY, {"Capability/report", "Agent/a", "Task/t"}),
        (SESSION, {"AgentSession/s", "Task/t"}),
        (ARTIFACT, {"Artifact/art", "Task/t"}),
        (REVIEW, {"Review/r", "Task/t"}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "concerns",
)
def test_a_change_reaches_exactly_those_whose_decisions_read_it(
    index: Index, obj: dict[str, Any], expected: set[str]
) -> None:
    assert concerns(index, obj) == expected


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (GRAPH, {"Graph/g"}),
        (WORKFLOW, {"Workflow/w"}),
        (NODE, {"Node/n", "Graph/g"}),
        (TASK, {"Task/t", "Node/n", "Graph/g", "AgentSession/s", "Artifact/art"}),
        (AGENT, {"Agent/a"}),
        (HARNESS, {"Harness/h"}),
        (CAPABILITY, {"Capability/report"}),
        (SESSION, {"AgentSession/s", "Task/t"}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "concerns",
)
def test_a_change_of_status_alone_wakes_only_those_who_read_it(
    index: Index, obj: dict[str, Any], expected: set[str]
) -> None:
    later = {**obj, "status": {"state": "running"}}
    assert concerns(index, later, obj) == expected


@pytest.mark.parametrize("field", ["generation", "deletionTimestamp"])
def test_a_suspended_or_vanishing_graph_wakes_all_work_in_it(index: Index, field: str) -> None:
    later = {**GRAPH, "metadata": {**GRAPH["metadata"], field: 2}}
    assert concerns(index, later, GRAPH) == {"Graph/g", "Node/n", "Task/t", "Task/later"}


def test_a_task_wakes_those_that_depend_on_it_when_it_is_settled_and_not_before(index: Index) -> None:
    """Whatever way they depend: by an input, several inputs, or order alone."""
    for name, spec in (
        (
            "merges",
            {"inputs": [{"name": "i", "sources": [{"task": "x", "output": "o"}, {"task": "t", "output": "o"}]}]},
        ),
        ("follows", {"dependsOn": ["t"]}),
    ):
        index.put(make("Task", name, spec={"graphRef": {"name": "g"}, **spec}))
    dependents = {"Task/later", "Task/merges", "Task/follows"}
    running = {**TASK, "status": {"state": "running", **conditions(Succeeded="Unknown")}}
    assert not dependents & concerns(index, running, TASK)
    assert dependents <= concerns(index, {**TASK, "status": conditions(Succeeded="True")}, running)
    assert dependents <= concerns(index, {**TASK, "status": conditions(Succeeded="False")}, running)
    index.put(make("Task", "follows", rv=2, spec={"dependsOn": ["t"]}, status=conditions(Succeeded="True")))
    assert concerns(index, {**TASK, "status": conditions(Succeeded="True")}, running) & dependents == {
        "Task/later", "Task/merges",
    }  # fmt: skip


def test_a_task_wakes_those_that_depend_on_it_when_it_is_in_a_cycle_and_when_it_is_no_longer(index: Index) -> None:
    """The first of ``a → b → c → a`` waited before the circle was closed, and nothing it names has changed since."""
    waiting = {**TASK, "status": conditions(Succeeded="Unknown")}
    stalled = {"type": "Stalled", "status": "True", "reason": "DependencyCycle"}
    circular = {**TASK, "status": {"conditions": [*waiting["status"]["conditions"], stalled]}}
    blocked = {**TASK, "status": {"conditions": [*waiting["status"]["conditions"], stalled | {"reason": "Other"}]}}
    assert "Task/later" in concerns(index, circular, waiting)
    assert "Task/later" in concerns(index, waiting, circular)
    assert "Task/later" not in concerns(index, blocked, waiting)


def test_the_end_of_a_graph_wakes_what_is_unfinished_in_it(index: Index) -> None:
    index.put(make("Task", "over", spec={"graphRef": {"name": "g"}}, status=conditions(Succeeded="True")))
    woken = {f"{key.kind}/{key.name}" for key in concerned(index, Change("Graph", GRAPH, None))}
    assert woken == {"Graph/g", "Node/n", "Task/t", "Task/later"}


def test_the_end_of_a_node_wakes_the_next_of_its_queue_alone(index: Index) -> None:
    def queued(name: str, second: int, graph: str = "g", **parts: Any) -> dict[str, Any]:
        node = make("Node", name, spec={"graphRef": {"name": graph}, "queue": {"name": "q"}}, **parts)
        node["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:0{second}Z"
        return node

    first, *others = nodes = [queued("z", 1), queued("y", 2), queued("x", 2), queued("w", 3), queued("v", 0, "other")]
    for node in nodes:
        index.put(node)
    over = {**first, "metadata": {**first["metadata"], "resourceVersion": "9"}, "status": conditions(Succeeded="True")}
    index.put(over)
    assert concerns(index, over, first) == {"Node/z", "Graph/g", "Node/x"}
    assert concerns(index, {**others[0], "status": {"state": "queued"}}, others[0]) == {"Node/y", "Graph/g"}


def test_an_agent_that_loses_a_capability_still_concerns_the_tasks_that_need_it(index: Index) -> None:
    after = make("Agent", "a", rv=2, generation=2, spec={"harnessRef": {"name": "h"}, "capabilities": []})
    assert Key("Task", "team", "t") in concerned(index, Change("Agent", AGENT, after))


def test_a_new_reviewer_concerns_tasks_that_name_no_reviewer(index: Index) -> None:
    reviewer = make("Agent", "critic", spec={"harnessRef": {"name": "h"}, "capabilities": ["review"]})
    assert {"Task/t", "Task/later"} <= concerns(index, reviewer)


def test_an_edited_agent_does_not_wake_finished_tasks(index: Index) -> None:
    index.put(
        {**TASK, "metadata": {**TASK["metadata"], "resourceVersion": "7"}, "status": conditions(Succeeded="True")}
    )
    assert "Task/t" not in concerns(index, AGENT)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, False),
        (conditions(Succeeded="Unknown"), False),
        (conditions(Succeeded="True"), True),
        (conditions(Succeeded="False"), True),
        (conditions(Succeeded="False", Stalled="True"), False),
        (conditions(Reviewed="True"), True),
        (conditions(Ready="True"), False),
    ],
    ids=["no status", "active", "succeeded", "failed", "stalled can heal", "reviewed artifact", "ready is not an end"],
)
def test_finished_means_decided_for_good(status: dict[str, Any], expected: bool) -> None:
    assert finished(make("Task", "t", status=status)) is expected


def test_a_node_hears_of_a_task_that_stands_where_its_own_is_to_be(index: Index) -> None:
    node = make("Node", "plan", spec={"graphRef": {"name": "g"}, "steps": [{"name": "draft"}]})
    index.put(node)
    stranger = make("Task", "plan-draft", spec={"graphRef": {"name": "other"}})
    assert "Node/plan" in concerns(index, stranger)
    begun = make(
        "Node", "run", spec={"graphRef": {"name": "g"}, "workflowRef": {"name": "w"}},
        status={"steps": [{"name": "draft", "task": "run-draft", "state": "pending"}]},
    )  # fmt: skip
    index.put(begun)
    assert "Node/run" in concerns(index, make("Task", "run-draft", spec={"graphRef": {"name": "other"}}))


@pytest.mark.parametrize(
    ("namespace", "scope", "expected"),
    [
        pytest.param("team", None, {"Task/t", "Task/later"}, id="one of the namespace, its unfinished Tasks"),
        pytest.param("team", {"graphs": ["other"]}, set(), id="one for another Graph, nobody"),
        pytest.param("elsewhere", None, set(), id="one of another namespace, nobody"),
        pytest.param("triplane-system", None, {"Task/t", "Task/later"}, id="one of the installation, everybody"),
        pytest.param("triplane-system", {"namespaces": ["prod-*"]}, set(), id="one for other namespaces, nobody"),
    ],
)
def test_a_guideline_wakes_those_it_may_be_for(
    index: Index, namespace: str, scope: dict[str, Any] | None, expected: set[str]
) -> None:
    guideline = make("Guideline", "style", spec={"text": "x"} | ({"scope": scope} if scope else {}))
    guideline["metadata"]["namespace"] = namespace
    assert concerns(index, guideline) == {"Guideline/style"} | expected
