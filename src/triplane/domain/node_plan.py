"""The plan of a Node: what each of its Tasks is asked for, settled once, before the first of them is made.

Overrides are applied first, then parameters, then names of steps become names of Tasks. The plan is kept by digest and
logged, so that a later edit of the Workflow changes nothing of a Node that has begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from triplane.api.node import Node, StepOverride
from triplane.api.task import TaskSpec
from triplane.api.work import Step
from triplane.api.workflow import Workflow, WorkflowSpec
from triplane.audit.digest import canonical_json
from triplane.audit.model import JsonObject
from triplane.domain.naming import object_name
from triplane.domain.parameters import declaration_problems, put_into, settle
from triplane.domain.workflow import Problem, order, problems, waits_for

MAX_SPEC_OCTETS = 256 * 1024
"""A Task's spec (design §4); what is larger belongs into a stored blob."""
MAX_PROSE_OCTETS = 128 * 1024
"""Objective and definition of done together, in UTF-8 (``api.work.PROSE_CAP``)."""
MAX_PLAN_OCTETS = 4 * 1024 * 1024
"""A whole plan, as canonical JSON."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step: its name, its Task's, and the Task's spec without what every Task of the Node shares."""

    name: str
    task: str
    spec: JsonObject


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The steps, each after all that it waits for, and the Workflow they come from."""

    steps: tuple[PlannedStep, ...]
    workflow: tuple[str, int] | None = None
    """``(uid, generation)``; None when the Node has steps of its own."""

    def document(self) -> dict[str, Any]:
        """The JSON form that is stored."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "steps": [{"name": step.name, "task": step.task, "spec": dict(step.spec)} for step in self.steps],
        }
        if self.workflow is not None:
            document["workflow"] = {"uid": self.workflow[0], "generation": self.workflow[1]}
        return document


def read_plan(document: JsonObject) -> NodePlan:
    """The plan a document holds, as ``NodePlan.document`` wrote it."""
    workflow = document.get("workflow")
    return NodePlan(
        tuple(PlannedStep(item["name"], item["task"], item["spec"]) for item in document["steps"]),
        (workflow["uid"], workflow["generation"]) if workflow is not None else None,
    )


def workflow_problems(spec: WorkflowSpec) -> tuple[Problem, ...]:
    """Everything that is wrong with a Workflow; empty when a Node can run it."""
    declared = spec.parameters or ()
    found = [Problem(*problem) for problem in declaration_problems(declared)]
    return (*found, *problems(spec.steps, parameters={item.name for item in declared}))


def make_plan(node: Node, workflow: Workflow | None) -> NodePlan | tuple[Problem, ...]:
    """The plan of a Node that runs ``workflow``, or its own steps when that is None; else what is wrong. Pure: the same
    Node and Workflow always give the same plan."""
    spec, name = node.spec, node.metadata.name
    values: Mapping[str, str] = spec.parameters or {}
    found: list[Problem] = []
    steps: Sequence[Step] = spec.steps or ()
    if workflow is not None:
        settled = settle(workflow.spec.parameters or (), values)
        found += [Problem(*problem) for problem in declaration_problems(workflow.spec.parameters or ())]
        found += [Problem(*problem) for problem in settled.problems]
        values = {**settled.values}
        steps = workflow.spec.steps
        found += _unknown_overrides(steps, spec.overrides or (), workflow.metadata.name)
        steps = overridden(steps, spec.overrides or ())
    declared = set(values) if workflow is None else {item.name for item in workflow.spec.parameters or ()}
    found += problems(steps, parameters=declared, node_name=name)
    if found:
        return tuple(found)
    by_name = {step.name: step for step in steps}
    planned = []
    for step_name in order(waits_for(steps, name)):
        made = _planned(by_name[step_name], name, values)
        if isinstance(made, Problem):
            found.append(made)
        else:
            planned.append(made)
    if found:
        return tuple(found)
    source = (workflow.metadata.uid, workflow.metadata.generation) if workflow is not None else None
    plan = NodePlan(tuple(planned), source)
    octets = len(canonical_json(plan.document()))
    if octets > MAX_PLAN_OCTETS:
        message = f"with parameters put in, the steps have {octets} octets; at most {MAX_PLAN_OCTETS} may be"
        return (Problem("LimitExceeded", f"{message}: put long texts into stored inputs"),)
    return plan


def overridden(steps: Sequence[Step], overrides: Sequence[StepOverride]) -> tuple[Step, ...]:
    """The steps with what a Node does differently; absent fields stay."""
    by_name = {item.name: item for item in overrides}
    return tuple(_override(step, by_name.get(step.name)) for step in steps)


def _override(step: Step, other: StepOverride | None) -> Step:
    if other is None:
        return step
    fields = {name: getattr(other, name) for name in StepOverride.model_fields if name != "name"}
    return step.model_copy(update={name: value for name, value in fields.items() if value is not None})


def _unknown_overrides(steps: Sequence[Step], overrides: Sequence[StepOverride], workflow: str) -> list[Problem]:
    names = {step.name for step in steps}
    unknown = [item.name for item in overrides if item.name not in names]
    message = f"overrides name {', '.join(unknown)}, which Workflow {workflow} does not have"
    return [Problem("UnknownStep", message)] if unknown else []


def _planned(step: Step, node: str, values: Mapping[str, str]) -> PlannedStep | Problem:
    """One step as a Task, or why it cannot be one."""
    spec = step.wire()
    name, task = spec.pop("name"), object_name(node, step.name)
    for field in ("objective", "definitionOfDone"):
        if field in spec:
            spec[field] = put_into(spec[field], values)
    if "capabilityParameters" in spec:
        spec["capabilityParameters"] = {
            label: put_into(text, values) for label, text in spec["capabilityParameters"].items()
        }
    if step.depends_on:
        spec["dependsOn"] = [object_name(node, other) for other in step.depends_on]
    for item in spec.get("inputs", ()):
        if "value" in item:
            item["value"] = put_into(item["value"], values)
        for edge in (item["from"],) if "from" in item else item.get("sources", ()):
            if "step" in edge:
                edge["task"] = object_name(node, edge.pop("step"))
    spec["step"] = name
    if values and (step.when is not None or any(edge.when is not None for edge in step.edges)):
        spec["parameters"] = dict(values)
    problem = _unfit(name, spec)
    return problem or PlannedStep(name, task, spec)


def _unfit(step: str, spec: Mapping[str, Any]) -> Problem | None:
    """Why the API server would not take the Task: a value may break what the text around it kept to."""
    try:
        TaskSpec.model_validate({**spec, "graphRef": {"name": "any"}})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem("StepInvalid", f"step {step}, with parameters put in: {where}: {first['msg']}")
    prose = len((spec["objective"] + spec.get("definitionOfDone", "")).encode())
    if prose > MAX_PROSE_OCTETS:
        message = (
            f"step {step}: objective and definition of done have {prose} octets; at most {MAX_PROSE_OCTETS} may be"
        )
        return Problem("LimitExceeded", f"{message}: put long texts into stored inputs")
    octets = len(canonical_json(spec))
    if octets > MAX_SPEC_OCTETS:
        message = f"step {step} has {octets} octets; at most {MAX_SPEC_OCTETS} may be"
        return Problem("LimitExceeded", f"{message}: put long texts into stored inputs")
    return None
