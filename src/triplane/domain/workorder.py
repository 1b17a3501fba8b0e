"""Work orders: what a session is asked to do (docs/reference/exec-protocol.md), built from API objects.

The static part is frozen with the session; ``run`` and ``findings`` differ from run to run and are added by
the gateway when the run is claimed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.agent import Agent
from triplane.api.graph import Graph
from triplane.api.harness import Harness
from triplane.api.meta import Output, Subject
from triplane.api.task import Task
from triplane.domain.guideline import PinnedGuideline
from triplane.domain.lens import ChosenLens

OUTPUTS = "/work/outputs"
INPUTS = "/work/inputs"

VERDICT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["verdict", "findings", "subjects"],
    "additionalProperties": False,
    "properties": {
        "verdict": {"enum": ["Approve", "Reject"]},
        "findings": {
            "type": "array",
            "maxItems": 20,
            "items": {"type": "string", "minLength": 1, "maxLength": 256},
        },
        "subjects": {
            "type": "array",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": "object",
                "required": ["name", "digest"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
                },
            },
        },
    },
    "if": {"properties": {"verdict": {"const": "Reject"}}},
    "then": {"properties": {"findings": {"minItems": 1}}},
}
"""What a reviewer's ``verdict.json`` must look like."""


@dataclass(frozen=True, slots=True)
class ResolvedInput:
    """An input with the digest it stands for."""

    name: str
    digest: str
    type: str


@dataclass(frozen=True, slots=True)
class ContractConflict:
    """Two declarations of one output that cannot both be met."""

    message: str


def effective_outputs(task: Task, lenses: Sequence[ChosenLens]) -> tuple[Output, ...] | ContractConflict:
    """The Task's outputs and those of its Capabilities' contracts; both may name one if they agree."""
    outputs: dict[str, tuple[str, Output]] = {output.name: ("the Task", output) for output in task.spec.outputs or ()}
    for chosen in lenses:
        owner = chosen.owner
        for output in chosen.lens.outputs:
            standing = outputs.get(output.name)
            if standing is None:
                outputs[output.name] = (owner, output)
            elif standing[1] != output:
                return ContractConflict(
                    f"output {output.name} is declared differently by {standing[0]} and {owner}; make them equal"
                )
    paths: dict[str, str] = {}
    for name, (owner, output) in outputs.items():
        if other := paths.get(output.path):
            return ContractConflict(f"outputs {other} and {name} ({owner}) have the same path {output.path}")
        paths[output.path] = name
    if not outputs:
        return ContractConflict("neither the Task nor its Capabilities declare an output: nothing could be reviewed")
    return tuple(output for _, output in outputs.values())


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who works on what, and how."""

    task: Task
    graph: Graph
    agent: Agent
    harness: Harness
    lenses: tuple[ChosenLens, ...]
    """What the run exercises, values put in; of a reviewer the review's."""
    guidelines: tuple[PinnedGuideline, ...] = ()
    """In the order in which they hold."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the producing run is offered, as ``domain.tool.frozen_tool`` makes them."""


def producer_order(
    assignment: Assignment, inputs: Sequence[ResolvedInput], outputs: Sequence[Output]
) -> dict[str, Any]:
    """The static work order of a producing session."""
    return {
        **_common(assignment, "producer"),
        "inputs": [_input(item.name, item) for item in inputs],
        "outputs": [_output(output) for output in outputs],
        "tools": [dict(tool) for tool in assignment.tools],
        "review": None,
    }


def reviewer_order(
    assignment: Assignment,
    inputs: Sequence[ResolvedInput],
    produced: Sequence[tuple[Output, Subject]],
) -> dict[str, Any]:
    """The static work order of a review session: the producer's inputs and outputs, never its journal."""
    reviewed = [
        {
            "name": f"outputs/{output.name}",
            "path": f"{INPUTS}/outputs/{output.name}",
            "digest": subject.digest,
            "type": "File",
        }
        for output, subject in produced
    ]
    return {
        **_common(assignment, "reviewer"),
        "inputs": [*(_input(item.name, item) for item in inputs), *reviewed],
        "outputs": [
            {
                "name": "verdict",
                "path": f"{OUTPUTS}/verdict.json",
                "mediaType": "application/json",
                "schema": dict(VERDICT_SCHEMA),
            }
        ],
        "tools": [],
        "review": {
            "subjects": [
                {
                    "name": output.name,
                    "digest": subject.digest,
                    "path": f"{INPUTS}/outputs/{output.name}",
                    "mediaType": output.media_type,
                }
                for output, subject in produced
            ],
            "contract": [
                {
                    "name": output.name,
                    "path": output.path,
                    "mediaType": output.media_type,
                    "schema": output.json_schema,
                }
                for output, _ in produced
            ],
        },
    }


def inputs_of(order: Mapping[str, Any]) -> tuple[ResolvedInput, ...]:
    """The inputs a producing session was given, back from its work order."""
    return tuple(ResolvedInput(item["name"], item["digest"], item["type"]) for item in order["inputs"])


def outputs_of(order: Mapping[str, Any]) -> tuple[Output, ...]:
    """The outputs a producing session was asked for, back from its work order."""
    return tuple(
        Output(
            name=item["name"],
            path=item["path"].removeprefix(f"{OUTPUTS}/"),
            media_type=item["mediaType"],
            json_schema=item["schema"],
        )
        for item in order["outputs"]
    )


def _common(assignment: Assignment, role: str) -> dict[str, Any]:
    task, graph, agent = assignment.task, assignment.graph, assignment.agent
    workstream = graph.spec.workstream
    return {
        "version": 1,
        "role": role,
        "graph": {
            "name": graph.metadata.name,
            "workstream": workstream.markdown if workstream is not None else None,
        },
        "task": {
            "name": task.metadata.name,
            "objective": task.spec.objective,
            "definitionOfDone": task.spec.definition_of_done,
        },
        "agent": {"name": agent.metadata.name, "model": model_of(assignment, role)},
        "capabilities": [
            {"name": item.name, "version": item.version, "instructions": item.instructions}
            for item in assignment.lenses
        ],
        "guidelines": [item.wire() for item in assignment.guidelines],
        "timeoutSeconds": task.spec.timeout_seconds,
        "idleTimeoutSeconds": task.spec.idle_timeout_seconds,
        "harness": assignment.harness.spec.exec_.wire(),
    }


def model_of(assignment: Assignment, role: str) -> str | None:
    """The model the harness is told to use: what the Task asks of its producer, else the Agent's own."""
    asked = assignment.task.spec.model if role == "producer" else None
    return asked or assignment.agent.spec.model


def _input(name: str, item: ResolvedInput) -> dict[str, Any]:
    return {"name": name, "path": f"{INPUTS}/{name}", "digest": item.digest, "type": item.type}


def _output(output: Output) -> dict[str, Any]:
    return {
        "name": output.name,
        "path": f"{OUTPUTS}/{output.path}",
        "mediaType": output.media_type,
        "schema": output.json_schema,
    }
