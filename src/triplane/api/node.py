"""Node: what must happen in a Graph; it runs the steps of a Workflow, or its own, each as a Task."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Authority
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
    WaitingReason,
)
from triplane.api.task import ParameterValue
from triplane.api.text import Line, LocalName, ObjectName, Prose
from triplane.api.work import MAX_STEPS, PARAMETER_NAMES, STEP_RULES, Condition_, RetryPolicy, Steps


class FailureMode(StrEnum):
    """What the failure of a step means for the others."""

    ISOLATE = "Isolate"
    """Steps that depend on it are invalidated; the others go on."""
    FAIL_FAST = "FailFast"
    """Everything unfinished is cancelled."""


class QueueMode(StrEnum):
    """What happens to the Nodes of one queue."""

    PARALLEL = "Parallel"
    """They run side by side."""
    SERIAL = "Serial"
    """Each waits until the earlier ones have ended."""
    REPLACE = "Replace"
    """Each cancels the earlier ones that have not ended."""


class Queue(Model):
    """Nodes of one Graph that name the same queue keep an order: by creation, then by name."""

    name: Annotated[LocalName, Field(description="Name of the queue, within the Graph.")]
    mode: Annotated[QueueMode, Field(description="What this Node does about earlier ones.")] = QueueMode.SERIAL


class StepOverride(Model):
    """What this Node does differently in one step of its Workflow; absent fields stay as they are there."""

    name: Annotated[LocalName, Field(description="Name of the step.")]
    objective: Annotated[Prose | None, Field(min_length=1, description="Another objective.")] = None
    definition_of_done: Annotated[Prose | None, Field(description="Another definition of done.")] = None
    agent_ref: Annotated[LocalRef | None, Field(description="Another Agent.")] = None
    model: Annotated[Line | None, Field(description="Another model.")] = None
    when: Annotated[Condition_ | None, Field(description="Another condition.")] = None
    max_retries: Annotated[int | None, Field(ge=0, le=10, description="Another number of retries.")] = None
    retry: Annotated[RetryPolicy | None, Field(description="Another wait between runs.")] = None
    max_reworks: Annotated[int | None, Field(ge=0, le=10, description="Another number of reworks.")] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=86400, description="Another time limit.")] = None
    idle_timeout_seconds: Annotated[int | None, Field(ge=1, le=86400, description="Another idle limit.")] = None


class NodeSpec(Model):
    """What people declare of a Node."""

    graph_ref: Annotated[LocalRef, Field(description="The Graph it belongs to.")]
    workflow_ref: Annotated[LocalRef | None, Field(description="The Workflow it runs; or write `steps`.")] = None
    steps: Steps | None = None
    parameters: Annotated[
        dict[str, ParameterValue] | None,
        Field(max_length=64, description="Values of the Workflow's parameters, or of those its own steps use."),
    ] = None
    overrides: Annotated[
        list[StepOverride] | None,
        Field(
            max_length=MAX_STEPS,
            description="Steps of the Workflow that are done differently here.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    failure_mode: Annotated[FailureMode, Field(description="What the failure of a step means for the others.")] = (
        FailureMode.ISOLATE
    )
    queue: Annotated[Queue | None, Field(description="Keeps an order among Nodes; absent: none.")] = None
    authority: Annotated[
        Authority | None, Field(description="What its steps may use and be given; within what its Graph delegates.")
    ] = None
    suspend: Annotated[
        bool, Field(description="While true no run of any step is launched; runs that are at work go on.")
    ] = False
    cancel: Annotated[
        bool, Field(description="True ends it for good: every unfinished step is stopped with its process tree.")
    ] = False
    ttl_seconds_after_finished: Annotated[
        int | None,
        Field(
            ge=0,
            le=31536000,
            description="Delete the Node and what it owns so long after its end; the evidence stays.",
        ),
    ] = None


class StepStatus(StatusModel):
    """One step as last observed."""

    name: Annotated[LocalName, Field(description="Step name.")]
    task: Annotated[ObjectName, Field(description="The Task made of it.")]
    state: Annotated[State, Field(description="State of that Task.")]
    waiting_reason: Annotated[WaitingReason | None, Field(description="Why it does not go on now.")] = None
    retries: Annotated[int, Field(ge=0, description="Runs made because one failed or was lost.")] = 0
    duration_seconds: Annotated[int, Field(ge=0, description="From its first run to its end.")] = 0
    tokens: Annotated[int, Field(ge=0, description="Tokens spent.")] = 0
    cost_minor_units: Annotated[int, Field(ge=0, description="Cost in minor units of the currency.")] = 0
    reason: Annotated[str | None, Field(max_length=64, description="Why it failed or waits, CamelCase.")] = None


class NodeStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    state: Annotated[State, Field(description="Detailed state (docs/reference/states.md).")] = State.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    waiting_reason: Annotated[WaitingReason | None, Field(description="Why it does not go on now.")] = None
    workflow_generation: Annotated[
        int | None, Field(ge=1, description="Generation of the Workflow whose steps it runs.")
    ] = None
    steps: Annotated[
        list[StepStatus], Field(default_factory=list, max_length=MAX_STEPS, description="The steps and their Tasks.")
    ]
    active: Annotated[
        list[str], Field(default_factory=list, max_length=32, description="Names of steps that are at work now.")
    ]
    progress: Annotated[str | None, Field(max_length=32, description="Steps that are over, of all: `3/5`.")] = None
    started_at: Annotated[str | None, Field(max_length=64, description="When its first run began.")] = None
    completed_at: Annotated[str | None, Field(max_length=64, description="When it was over.")] = None
    duration_seconds: Annotated[int, Field(ge=0, description="From the first run to the end, whole seconds.")] = 0
    tokens: Annotated[int, Field(ge=0, description="Tokens spent by all steps.")] = 0
    cost_minor_units: Annotated[int, Field(ge=0, description="Cost of all steps in minor units.")] = 0
    conditions: Conditions


class Node(Resource):
    """What must happen in a Graph: one execution of a Workflow, or of steps of its own."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="nodes",
        short_names=("tn",),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Graph", ".spec.graphRef.name"),
            Column("Steps", ".status.progress"),
            Column("Tokens", ".status.tokens", "integer"),
            Column("Active", ".status.active", priority=1),
            Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', priority=1),
        ),
        ready_condition="Succeeded",
        selectable=(".status.phase", ".spec.graphRef.name"),
        spec_rules=(
            Rule("self.graphRef == oldSelf.graphRef", "graphRef is immutable: make a new Node"),
            Rule(
                "has(self.steps) == has(oldSelf.steps) && (!has(self.steps) || self.steps == oldSelf.steps)",
                "steps are immutable, for work may have begun: make a new Node",
            ),
            *(
                Rule(
                    f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || "
                    f"self.{field} == oldSelf.{field})",
                    f"{field} is immutable, for work may have begun: make a new Node",
                )
                for field in ("workflowRef", "parameters", "overrides", "queue", "failureMode")
            ),
            Rule("has(self.workflowRef) != has(self.steps)", "name a workflowRef or write steps, one of the two"),
            Rule("!has(self.overrides) || has(self.workflowRef)", "overrides are for a workflowRef: edit the steps"),
            PARAMETER_NAMES,
            Rule("!oldSelf.cancel || self.cancel", "cancel cannot be taken back: make a new Node"),
            *STEP_RULES,
        ),
        status_defaults={"phase": "Pending", "state": "pending"},
    )
    spec: NodeSpec
    status: NodeStatus | None = None
