"""Idea: hide the authority in a Workflow's template, and have somebody's Node, or the operator itself, make the Task.

The operator's own writes are not judged by admission. So the Node is judged with every step it would make, and the
Task that is made is resolved under Node and Graph at launch like any other, whatever the Workflow has become.
"""

import pytest
from tests.unit.admission.authority_world import WORK, graph, refused, stored
from tests.unit.controllers.test_task_authority import running, world

from triplane.admission.authority import AuthorityCheck
from triplane.domain.warrant import Ceiling

pytestmark = pytest.mark.attacks

WIDE = {"mayUse": {"egress": ["*"], "secrets": ["**"]}}
LIMIT = {"egress": ["a.example"], "secrets": ["key"]}
TEMPLATE = stored("Workflow", "w", {"steps": [{"name": "s", **WORK, "authority": WIDE}]}, "mallory")
NODE = {"graphRef": {"name": "g"}, "workflowRef": {"name": "w"}}


async def test_a_node_is_judged_with_the_steps_of_its_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr("triplane.admission.authority.make_plan", lambda *_: ())
        assert await refused("Node", NODE, TEMPLATE, graph(may_delegate=LIMIT)) == [], "only its own fields are seen"
    said = await refused("Node", NODE, TEMPLATE, graph(may_delegate=LIMIT), check=AuthorityCheck(Ceiling()))
    assert any("axis egress: * is beyond a.example" in line for line in said)
    assert any("axis secrets: ** is beyond key" in line for line in said)


async def test_a_task_the_operator_made_of_a_template_has_no_more_than_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Workflow was edited after the Node was admitted: its step asks for everything."""
    step = {"nodeRef": {"name": "n"}, "onBehalfOf": "alice", "step": "s", "authority": WIDE}
    made = world({"authority": {"mayDelegate": LIMIT}}, step, authority=WIDE)
    made.server.put(
        "Node", "n", {**NODE, "authority": {"mayUse": {"egress": []}, "mayDelegate": {"egress": []}}}, "alice"
    )
    made.look()
    with monkeypatch.context() as weak:
        weak.setattr("triplane.controllers.warrants.holder_of", _without_parents())
        assert (await running(made)).work_order["authority"]["egress"] == ["*"], "a step that is asked alone"
    made = world({"authority": {"mayDelegate": LIMIT}}, step, authority=WIDE)
    made.server.put(
        "Node", "n", {**NODE, "authority": {"mayUse": {"egress": []}, "mayDelegate": {"egress": []}}}, "alice"
    )
    made.look()
    granted = (await running(made)).work_order["authority"]
    assert granted["egress"] == []
    assert granted["secrets"] == ["key"]


def _without_parents() -> object:
    from dataclasses import replace

    from triplane.controllers.warrants import holder_of

    return lambda obj: replace(holder_of(obj), authority=None) if obj["kind"] in ("Graph", "Node") else holder_of(obj)
