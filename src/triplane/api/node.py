"""Node: what must happen in a Graph; it runs one inline step as a Task."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import (
    Column,
    Conditions,
    KindInfo,
    LocalRef,
    Model,
    Phase,
    Resource,
    Rule,
    State,
    StatusModel,
)
from triplane.api.task import WORK_RULES, Work
from triplane.api.text import LocalName, ObjectName


class Step(Work):
    """One inline step; the operator makes a Task named ``<node>-<step>`` of it."""

    name: Annotated[LocalName, Field(description="Name of the step, unique in the Node.")]


class NodeSpec(Model):
    """What people declare of a Node."""

    graph_ref: Annotated[LocalRef, Field(description="The Graph it belongs to.")]
    steps: Annotated[
        list[Step],
        Field(
            min_length=1,
            max_length=1,
            description="The steps. This version runs exactly one; Workflows bring more.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]


class StepStatus(StatusModel):
    """One step as last observed."""

    name: Annotated[LocalName, Field(description="Step name.")]
    task: Annotated[ObjectName, Field(description="The Task made of it.")]
    state: Annotated[State, Field(description="State of that Task.")]


class NodeStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    state: Annotated[State, Field(description="Detailed state (docs/reference/states.md).")] = State.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    steps: Annotated[
        list[StepStatus], Field(default_factory=list, max_length=64, description="The steps and their Tasks.")
    ]
    conditions: Conditions


class Node(Resource):
    """What must happen: an objective in a Graph, carried out by its step."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="nodes",
        short_names=("tn",),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Graph", ".spec.graphRef.name"),
            Column("Task", ".status.steps[0].task"),
            Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', priority=1),
        ),
        ready_condition="Succeeded",
        selectable=(".status.phase", ".spec.graphRef.name"),
        spec_rules=(
            Rule("self.graphRef == oldSelf.graphRef", "graphRef is immutable: make a new Node"),
            Rule("self.steps == oldSelf.steps", "steps are immutable, for work may have begun: make a new Node"),
            *(
                Rule(rule.rule.replace("self.", "s.").join(("self.steps.all(s, ", ")")), rule.message)
                for rule in WORK_RULES
            ),
        ),
        status_defaults={"phase": "Pending", "state": "pending"},
    )
    spec: NodeSpec
    status: NodeStatus | None = None
