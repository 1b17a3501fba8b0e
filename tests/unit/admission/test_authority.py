"""The authority layer of admission: what is refused, with whose limit; and what is none of its business."""

from typing import Any

import pytest
from tests.unit.admission.authority_world import TASK, WORK, Stored, graph, refused, stored

from triplane.admission.asked import Asked
from triplane.admission.authority import AuthorityCheck
from triplane.api.policy import Operation
from triplane.domain.warrant import Ceiling

NARROW = {
    "egress": ["*.example"],
    "tools": ["files/*"],
    "secrets": ["key"],
    "paths": ["data"],
    "budget": {"tokens": 10},
}


@pytest.mark.parametrize(
    ("grant", "axis"),
    [
        pytest.param({"egress": ["other.test"]}, "egress: other.test is beyond *.example", id="egress"),
        pytest.param({"tools": ["shell/*"]}, "tools: shell/* is beyond files/*", id="tools"),
        pytest.param({"secrets": ["*"]}, "secrets: * is beyond key", id="secrets"),
        pytest.param({"paths": ["data:rw"]}, "paths: data:rw is beyond data", id="paths"),
        pytest.param({"budget": {"tokens": 11}}, "budget.tokens: 11 is beyond 10", id="budget"),
    ],
)
@pytest.mark.parametrize("which", ["mayUse", "mayDelegate"])
@pytest.mark.parametrize("kind", ["Task", "Node"])
async def test_a_wider_child_is_refused_and_told_whose_limit_it_is(
    kind: str, which: str, grant: dict[str, Any], axis: str
) -> None:
    spec = TASK if kind == "Task" else {"graphRef": {"name": "g"}, "steps": [{"name": "s", **WORK}]}
    (said,) = await refused(kind, {**spec, "authority": {which: grant}}, graph(may_delegate=NARROW))
    assert said == f"spec.authority: axis {axis}, the limit of mayDelegate of Graph g; ask alice"


async def test_a_child_within_its_limits_is_let_through() -> None:
    inner = {"egress": ["a.example"], "tools": ["files/read"], "budget": {"tokens": 10}}
    assert await refused("Task", {**TASK, "authority": {"mayUse": inner}}, graph(may_delegate=NARROW)) == []


async def test_a_dangling_parent_is_accepted_but_never_more_than_the_ceiling() -> None:
    declared = {"mayUse": {"egress": ["a.example"]}}
    assert await refused("Task", {**TASK, "authority": declared}) == []
    (said,) = await refused("Task", {**TASK, "authority": {"mayUse": {"egress": ["10.0.0.1"]}}})
    assert "the limit of mayDelegate of the installation; ask whoever runs the installation" in said


async def test_a_need_beyond_what_it_will_have_is_refused_when_all_is_there() -> None:
    needy = {**TASK, "secrets": [{"name": "key", "key": "k", "env": "KEY"}]}
    (said,) = await refused("Task", needy, graph())
    assert said.startswith("spec: axis secrets: key is beyond nothing")
    assert await refused("Task", needy) == []  # nobody knows yet what its Graph will say
    agent = stored("Agent", "a", {"harnessRef": {"name": "h"}, "authority": {"mayUse": {"secrets": []}}}, "bob")
    (said,) = await refused("Task", needy, graph(may_use={"secrets": ["key"]}), agent)
    assert "the limit of mayUse of Agent a; ask bob" in said


async def test_steps_of_a_workflow_and_their_overrides_are_held_against_the_node() -> None:
    workflow = stored("Workflow", "w", {"steps": [{"name": "s", **WORK, "authority": {"mayUse": {"egress": ["*"]}}}]})
    node = {"graphRef": {"name": "g"}, "workflowRef": {"name": "w"}}
    (said,) = await refused("Node", node, workflow, graph(may_delegate=NARROW))
    assert said.startswith("spec.steps[s].authority: axis egress: * is beyond *.example, the limit of mayDelegate of ")
    plain = stored("Workflow", "w", {"steps": [{"name": "s", **WORK}]})
    override = {**node, "overrides": [{"name": "s", "model": "big"}]}
    (said,) = await refused("Node", override, plain, graph(may_use={"models": ["small"]}))
    assert said.startswith("spec.steps[s]: axis models: big is beyond small, the limit of mayUse of Graph g")


async def test_a_workflow_that_nobody_could_use_is_refused() -> None:
    step = {"name": "s", **WORK, "authority": {"mayUse": {"egress": ["127.0.0.1"]}}}
    (said,) = await refused("Workflow", {"steps": [step]})
    assert said.startswith("spec.steps[s].authority: axis egress")


async def test_a_graph_and_an_agent_are_held_against_the_ceiling() -> None:
    wide = {"mayDelegate": {"egress": ["0.0.0.0/0"]}}
    (said,) = await refused("Graph", {"authority": wide})
    assert "the limit of mayDelegate of the installation" in said
    (said,) = await refused("Agent", {"harnessRef": {"name": "h"}, "capabilities": ["x"], "authority": wide})
    assert "the limit of mayDelegate of the installation" in said
    (said,) = await refused(
        "Agent", {"harnessRef": {"name": "h"}, "model": "big one", "authority": {"mayUse": {"models": ["small"]}}}
    )
    assert "axis models: big one is beyond small, the limit of mayUse of Agent x; ask mallory" in said


async def test_what_is_used_is_within_what_is_handed_on() -> None:
    (said,) = await refused("Graph", {"authority": {"mayUse": {"secrets": ["a"]}, "mayDelegate": {"secrets": []}}})
    assert "axis secrets: a is beyond nothing, the limit of mayDelegate of Graph x; ask mallory" in said


async def test_an_update_that_changes_nothing_of_it_is_not_judged() -> None:
    """A parent was narrowed since: the child may still be suspended, or its time limit changed."""
    wide = {**TASK, "authority": {"mayUse": {"egress": ["*"]}}}
    assert await refused("Task", {**wide, "maxRetries": 3}, graph(may_delegate=NARROW), old=wide) == []
    narrowed = {**wide, "authority": {"mayUse": {"egress": ["other.test"]}}}
    assert await refused("Task", narrowed, graph(may_delegate=NARROW), old=wide) != []


async def test_ordinary_work_costs_no_read() -> None:
    reads = Stored(graph())
    obj = {"kind": "Task", "metadata": {"name": "x"}, "spec": TASK}
    asked = Asked("r", Operation.CREATE, "Task", "team", "x", obj, None, {}, dry_run=False)
    assert (await AuthorityCheck(Ceiling())(asked, reads)).violations == ()
    assert reads.read == []
