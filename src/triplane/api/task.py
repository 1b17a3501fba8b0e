"""Task: one step of work, done by one Agent and accepted only by an independent Review."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import (
    Column,
    Conditions,
    Gate,
    KindInfo,
    LocalRef,
    Phase,
    Resource,
    Rule,
    State,
    StatusModel,
    Subject,
    WaitingReason,
)
from triplane.api.text import PLAIN_TEXT, Digest, Line, LocalName, ObjectName, UserName
from triplane.api.work import MAX_DEPENDENCIES, PARAMETER_NAMES, WORK_RULES, Work


def _immutable(field: str) -> Rule:
    """The field keeps the value, or the absence, it was created with."""
    rule = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return Rule(rule, f"{field} is immutable, for work may have begun: make a new Task")


IMMUTABLE_WORK = tuple(
    _immutable(field)
    for field in (
        "graphRef",
        "nodeRef",
        "step",
        "onBehalfOf",
        "objective",
        "definitionOfDone",
        "agentRef",
        "requiredCapabilities",
        "model",
        "dependsOn",
        "when",
        "parameters",
        "inputs",
        "outputs",
        "capabilityParameters",
        "tools",
        "secrets",
        "paths",
    )
)
"""What was asked for stays; who reviews, how often and how long may still be changed."""
ParameterValue = Annotated[str, Field(max_length=4096, pattern=PLAIN_TEXT)]


class TaskSpec(Work):
    """What is declared of a Task."""

    graph_ref: Annotated[LocalRef, Field(description="The Graph it belongs to.")]
    node_ref: Annotated[LocalRef | None, Field(description="The Node it is a step of; only the operator sets it.")] = (
        None
    )
    on_behalf_of: Annotated[UserName | None, Field(description="Requester of the Node; only the operator sets it.")] = (
        None
    )
    step: Annotated[
        LocalName | None,
        Field(description="Name of the step it was made of, as conditions know it; only the operator sets it."),
    ] = None
    parameters: Annotated[
        dict[str, ParameterValue] | None,
        Field(max_length=64, description="Parameters of its Node, for conditions; only the operator sets it."),
    ] = None
    depends_on: Annotated[
        list[ObjectName] | None,
        Field(
            max_length=MAX_DEPENDENCIES,
            description="Tasks that must be accepted or skipped before it, beside those its inputs come from.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    suspend: Annotated[bool, Field(description="While true no run is launched; a run that is at work goes on.")] = False
    cancel: Annotated[
        bool, Field(description="True ends it for good: running sessions are stopped with their process trees.")
    ] = False
    ttl_seconds_after_finished: Annotated[
        int | None,
        Field(ge=0, le=31536000, description="Delete the object so long after its end; the evidence stays."),
    ] = None


class TaskOutput(StatusModel):
    """One output of the current round."""

    name: Annotated[LocalName, Field(description="Output name.")]
    digest: Annotated[Digest, Field(description="Digest of the content.")]
    artifact: Annotated[ObjectName, Field(description="The Artifact object.")]


class GateStatus(StatusModel):
    """A gate that waits for a person."""

    gate: Annotated[Gate, Field(description="Launch or Tool.")]
    subjects: Annotated[list[Subject], Field(max_length=64, description="What the Review must name, by digest.")]
    people: Annotated[
        list[UserName], Field(default_factory=list, max_length=64, description="Who may give leave, or refuse it.")
    ]
    since: Annotated[str, Field(max_length=64, description="Since when it waits (RFC 3339).")]
    until: Annotated[str | None, Field(max_length=64, description="When its default takes effect.")] = None


class TaskStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    state: Annotated[State, Field(description="Detailed state (docs/reference/states.md).")] = State.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    waiting_reason: Annotated[
        WaitingReason | None, Field(description="Why it does not go on now (docs/reference/states.md).")
    ] = None
    agent: Annotated[str | None, Field(max_length=253, description="The Agent doing the work.")] = None
    session: Annotated[str | None, Field(max_length=253, description="The current producing session.")] = None
    reviewer: Annotated[str | None, Field(max_length=1024, description="Who reviews.")] = None
    review_session: Annotated[str | None, Field(max_length=253, description="The current review session.")] = None
    round: Annotated[int, Field(ge=0, description="Review round, from 1.")] = 0
    runs: Annotated[int, Field(ge=0, description="Runs of the producing session so far.")] = 0
    retries: Annotated[int, Field(ge=0, description="Runs made because one failed or was lost.")] = 0
    next_run_at: Annotated[
        str | None, Field(max_length=64, description="When the next run may begin, while it backs off.")
    ] = None
    started_at: Annotated[str | None, Field(max_length=64, description="When its first run began.")] = None
    completed_at: Annotated[str | None, Field(max_length=64, description="When it was over.")] = None
    duration_seconds: Annotated[int, Field(ge=0, description="From the first run to the end, whole seconds.")] = 0
    outputs: Annotated[
        list[TaskOutput],
        Field(default_factory=list, max_length=64, description="Outputs of the current round."),
    ]
    artifact: Annotated[str | None, Field(max_length=16, description="Short digest of the first output.")] = None
    tokens: Annotated[int, Field(ge=0, description="Tokens spent by all runs, as the harnesses report.")] = 0
    cost_minor_units: Annotated[
        int, Field(ge=0, description="Cost of all runs in minor units of the currency, as the harnesses report.")
    ] = 0
    findings: Annotated[
        list[Line], Field(default_factory=list, max_length=20, description="Findings of the last rejection.")
    ]
    approval: Annotated[
        GateStatus | None, Field(description="What a person must give leave to now; `triplane review approve` does.")
    ] = None
    approvals: Annotated[
        list[str], Field(default_factory=list, max_length=8, description="Who has approved this round so far.")
    ]
    conditions: Conditions


class Task(Resource):
    """One step of work: objective, definition of done, inputs, outputs with contracts, and who reviews."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="tasks",
        short_names=("tt",),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Agent", ".status.agent"),
            Column("Reviewed", '.status.conditions[?(@.type=="Reviewed")].status'),
            Column("Artifact", ".status.artifact"),
            Column("Tokens", ".status.tokens", "integer"),
            Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', priority=1),
            Column("Session", ".status.session", priority=1),
            Column("Reviewer", ".status.reviewer", priority=1),
        ),
        ready_condition="Succeeded",
        selectable=(".status.phase", ".spec.graphRef.name"),
        spec_rules=(
            *WORK_RULES,
            *IMMUTABLE_WORK,
            PARAMETER_NAMES,
            Rule("!oldSelf.cancel || self.cancel", "cancel cannot be taken back: make a new Task"),
        ),
        status_defaults={"phase": "Pending", "state": "pending"},
    )
    spec: TaskSpec
    status: TaskStatus | None = None
