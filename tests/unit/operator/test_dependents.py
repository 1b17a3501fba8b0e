"""Whom a change concerns."""

from typing import Any

import pytest
from tests.unit.operator.objects import conditions, make

from triplane.controllers.key import Key
from triplane.operator.dependents import concerned, finished
from triplane.operator.index import Change, Index

GRAPH = make("Graph", "g", spec={})
NODE = make("Node", "n", spec={"graphRef": {"name": "g"}, "steps": []})
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
WORLD = (GRAPH, NODE, TASK, LATER, AGENT, HARNESS, CAPABILITY, SESSION, ARTIFACT, REVIEW)


@pytest.fixture
def index() -> Index:
    index = Index()
    for obj in WORLD:
        index.put(obj)
    return index


def concerns(index: Index, obj: dict[str, Any]) -> set[str]:
    return {f"{key.kind}/{key.name}" for key in concerned(index, Change(obj["kind"], obj, obj))}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (GRAPH, {"Graph/g", "Node/n", "Task/t", "Task/later"}),
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


def test_an_agent_that_loses_a_capability_still_concerns_the_tasks_that_need_it(index: Index) -> None:
    after = make("Agent", "a", rv=2, spec={"harnessRef": {"name": "h"}, "capabilities": []})
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
