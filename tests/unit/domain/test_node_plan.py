"""What a Node settles before it begins: overrides, parameters, names of Tasks; and what it refuses."""

from typing import Any

import orjson
import pytest

from triplane.api.node import Node
from triplane.api.task import TaskSpec
from triplane.api.workflow import Workflow
from triplane.audit.digest import canonical_json
from triplane.domain.node_plan import NodePlan, make_plan, read_plan, workflow_problems

STEP = {"objective": "Do [[what]]", "agentRef": {"name": "a"}}


def node(**spec: Any) -> Node:
    return Node.model_validate(
        {"kind": "Node", "metadata": {"name": "run", "uid": "u"}, "spec": {"graphRef": {"name": "g"}, **spec}}
    )


def workflow(*steps: dict[str, Any], **spec: Any) -> Workflow:
    metadata = {"name": "flow", "uid": "flow-uid", "generation": 3}
    return Workflow.model_validate({"kind": "Workflow", "metadata": metadata, "spec": {"steps": list(steps), **spec}})


def plan(made: Node, flow: Workflow | None = None) -> NodePlan:
    found = make_plan(made, flow)
    assert isinstance(found, NodePlan), found
    return found


def refusal(made: Node, flow: Workflow | None = None) -> list[str]:
    found = make_plan(made, flow)
    assert isinstance(found, tuple)
    return [problem.reason for problem in found]


MERGE = {
    **STEP, "name": "merge", "dependsOn": ["left"], "when": 'parameters["what"] == "it"',
    "inputs": [
        {"name": "one", "from": {"step": "left", "output": "o"}},
        {"name": "many", "sources": [{"step": "right", "output": "o"}, {"task": "alien", "output": "x"}]},
        {"name": "words", "value": "say [[what]]"},
    ],
}  # fmt: skip
FLOW = workflow(
    MERGE, {**STEP, "name": "left"}, {**STEP, "name": "right"}, parameters=[{"name": "what", "default": "it"}]
)


def test_names_of_steps_become_names_of_tasks_and_each_comes_after_what_it_waits_for() -> None:
    made = plan(node(workflowRef={"name": "flow"}), FLOW)
    assert [(step.name, step.task) for step in made.steps] == [
        ("left", "run-left"),
        ("right", "run-right"),
        ("merge", "run-merge"),
    ]
    assert made.workflow == ("flow-uid", 3)
    merged = made.steps[2].spec
    assert merged["dependsOn"] == ["run-left"]
    assert merged["inputs"][0]["from"] == {"task": "run-left", "output": "o"}
    assert merged["inputs"][1]["sources"] == [{"task": "run-right", "output": "o"}, {"task": "alien", "output": "x"}]
    assert merged["inputs"][2]["value"] == "say it"
    assert merged["step"] == "merge"
    assert merged["parameters"] == {"what": "it"}
    assert "name" not in merged
    assert "parameters" not in made.steps[0].spec  # it has no condition that could read them
    for step in made.steps:
        TaskSpec.model_validate({**step.spec, "graphRef": {"name": "g"}})


def test_overrides_come_before_parameters_and_leave_the_rest_as_it_is() -> None:
    override = {"name": "left", "objective": "Rather [[what]]", "maxRetries": 5, "agentRef": {"name": "b"}}
    made = plan(node(workflowRef={"name": "flow"}, parameters={"what": "that"}, overrides=[override]), FLOW)
    left, right = made.steps[0].spec, made.steps[1].spec
    assert (left["objective"], left["maxRetries"], left["agentRef"]) == ("Rather that", 5, {"name": "b"})
    assert (right["objective"], right["maxRetries"], right["agentRef"]) == ("Do that", 1, {"name": "a"})
    assert left["timeoutSeconds"] == right["timeoutSeconds"]


def test_a_node_s_own_steps_use_its_own_parameters() -> None:
    own = node(steps=[{**STEP, "name": "s"}], parameters={"what": "this"})
    assert plan(own).steps[0].spec["objective"] == "Do this"
    assert plan(own).workflow is None
    assert refusal(node(steps=[{**STEP, "name": "s"}])) == ["ParameterUnknown"]


def test_a_plan_survives_being_stored() -> None:
    made = plan(node(workflowRef={"name": "flow"}), FLOW)
    assert read_plan(orjson.loads(canonical_json(made.document()))) == made


@pytest.mark.parametrize(
    ("spec", "reasons"),
    [
        pytest.param({"overrides": [{"name": "ghost"}]}, ["UnknownStep"], id="an override of no step"),
        pytest.param({"parameters": {"ghost": "x"}}, ["ParameterUnknown"], id="a parameter that is not declared"),
        pytest.param(
            {"overrides": [{"name": "left", "objective": "[[ghost]]"}]}, ["ParameterUnknown"],
            id="an override that uses a parameter that is not declared",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_it_begins(spec: dict[str, Any], reasons: list[str]) -> None:
    assert refusal(node(workflowRef={"name": "flow"}, **spec), FLOW) == reasons


def test_a_value_that_makes_a_text_too_long_is_refused() -> None:
    many = " ".join(["[[what]]"] * 9)
    flow = workflow({**STEP, "name": "s", "objective": many}, parameters=[{"name": "what", "default": "x" * 4096}])
    assert refusal(node(workflowRef={"name": "flow"}), flow) == ["StepInvalid"]


def test_a_plan_that_would_not_fit_is_refused() -> None:
    inputs = [{"name": f"i{n}", "value": "[[what]]" * 3} for n in range(20)]
    steps = [{**STEP, "name": f"s{n}", "objective": "x", "inputs": inputs} for n in range(20)]
    flow = workflow(*steps, parameters=[{"name": "what", "default": "x" * 4096}])
    assert refusal(node(workflowRef={"name": "flow"}), flow) == ["LimitExceeded"]


def test_a_task_that_would_not_fit_is_refused() -> None:
    inputs = [{"name": f"i{n}", "value": "x" * 16000} for n in range(20)]
    assert refusal(node(steps=[{**STEP, "name": "s", "objective": "x", "inputs": inputs}])) == ["LimitExceeded"]
    prose = {"objective": "\u20ac" * 30000, "definitionOfDone": "\u20ac" * 30000}
    assert refusal(node(steps=[{**STEP, "name": "s", **prose}])) == ["LimitExceeded"]


def test_a_workflow_is_judged_with_its_parameters() -> None:
    assert workflow_problems(FLOW.spec) == ()
    wrong = workflow({**STEP, "name": "s"}, parameters=[{"name": "other", "type": "Integer", "default": "x"}])
    assert [problem.reason for problem in workflow_problems(wrong.spec)] == ["ParameterInvalid", "ParameterUnknown"]
