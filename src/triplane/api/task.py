"""Task: one step of work, done by one Agent and accepted only by an independent Review."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import (
    Column,
    Conditions,
    Input,
    KindInfo,
    LocalRef,
    Model,
    Output,
    Phase,
    Resource,
    ReviewPolicy,
    Rule,
    State,
    StatusModel,
)
from triplane.api.text import Digest, Line, LocalName, ObjectName, Prose, UserName


def _immutable(field: str) -> Rule:
    """The field keeps the value, or the absence, it was created with."""
    rule = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return Rule(rule, f"{field} is immutable, for work may have begun: make a new Task")


IMMUTABLE_WORK = tuple(
    _immutable(field)
    for field in (
        "graphRef",
        "nodeRef",
        "onBehalfOf",
        "objective",
        "definitionOfDone",
        "agentRef",
        "requiredCapabilities",
        "inputs",
        "outputs",
    )
)
"""What was asked for stays; who reviews, how often and how long may still be changed."""
ONE_ASSIGNEE = Rule(
    "has(self.agentRef) || (has(self.requiredCapabilities) && size(self.requiredCapabilities) > 0)",
    "name an agentRef, or requiredCapabilities to choose an Agent by",
)
ONE_REVIEWER = Rule(
    "!has(self.review) || [has(self.review.agentRef), has(self.review.capability), has(self.review.people)]"
    ".filter(x, x).size() <= 1",
    "name at most one of review.agentRef, review.capability and review.people",
)
ONE_SOURCE = Rule(
    "!has(self.inputs) || self.inputs.all(i, has(i.digest) != has(i.from))",
    "each input has either a digest or a from",
)
RESERVED_INPUT = Rule(
    "!has(self.inputs) || self.inputs.all(i, i.name != 'outputs')",
    "an input may not be named outputs: reviewers find the outputs under that name",
)
UNIQUE_OUTPUT_PATHS = Rule(
    "!has(self.outputs) || self.outputs.all(o, self.outputs.filter(p, p.path == o.path).size() == 1)",
    "two outputs have the same path",
)
PROSE_CAP = Rule(
    "size(bytes(self.objective)) + (has(self.definitionOfDone) ? size(bytes(self.definitionOfDone)) : 0) <= 131072",
    "objective and definitionOfDone together exceed 128 KiB of UTF-8: put longer text into an input",
)


class Work(Model):
    """What a Task asks for; a Node's inline step has the same fields."""

    objective: Annotated[Prose, Field(min_length=1, description="What must be achieved.")]
    definition_of_done: Annotated[
        Prose | None,
        Field(description="How a reviewer tells that it is done; given to producer and reviewer."),
    ] = None
    agent_ref: Annotated[LocalRef | None, Field(description="The Agent that does the work.")] = None
    required_capabilities: Annotated[
        list[LocalName] | None,
        Field(
            max_length=16,
            description="Capabilities the Agent must have; an output contract of a Capability of that name holds.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    inputs: Annotated[
        list[Input] | None,
        Field(
            max_length=64,
            description="Read-only inputs of the run.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    outputs: Annotated[
        list[Output] | None,
        Field(
            max_length=32,
            description="Outputs the run must leave, beside those its Capabilities' contracts name.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    review: Annotated[ReviewPolicy | None, Field(description="Who reviews; default: capability `review`.")] = None
    max_retries: Annotated[int, Field(ge=0, le=10, description="Runs after a failed one.")] = 1
    max_reworks: Annotated[int, Field(ge=0, le=10, description="Runs after a rejected review.")] = 1
    timeout_seconds: Annotated[
        int,
        Field(ge=1, le=86400, description="Longest time one run may take; then its process tree is killed."),
    ] = 3600


WORK_RULES = (ONE_ASSIGNEE, ONE_REVIEWER, ONE_SOURCE, RESERVED_INPUT, UNIQUE_OUTPUT_PATHS, PROSE_CAP)


class TaskSpec(Work):
    """What is declared of a Task."""

    graph_ref: Annotated[LocalRef, Field(description="The Graph it belongs to.")]
    node_ref: Annotated[LocalRef | None, Field(description="The Node it is a step of; only the operator sets it.")] = (
        None
    )
    on_behalf_of: Annotated[UserName | None, Field(description="Requester of the Node; only the operator sets it.")] = (
        None
    )


class TaskOutput(StatusModel):
    """One output of the current round."""

    name: Annotated[LocalName, Field(description="Output name.")]
    digest: Annotated[Digest, Field(description="Digest of the content.")]
    artifact: Annotated[ObjectName, Field(description="The Artifact object.")]


class TaskStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    state: Annotated[State, Field(description="Detailed state (docs/reference/states.md).")] = State.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    agent: Annotated[str | None, Field(max_length=253, description="The Agent doing the work.")] = None
    session: Annotated[str | None, Field(max_length=253, description="The current producing session.")] = None
    reviewer: Annotated[str | None, Field(max_length=1024, description="Who reviews.")] = None
    review_session: Annotated[str | None, Field(max_length=253, description="The current review session.")] = None
    round: Annotated[int, Field(ge=0, description="Review round, from 1.")] = 0
    runs: Annotated[int, Field(ge=0, description="Runs of the producing session so far.")] = 0
    outputs: Annotated[
        list[TaskOutput],
        Field(default_factory=list, max_length=64, description="Outputs of the current round."),
    ]
    artifact: Annotated[str | None, Field(max_length=16, description="Short digest of the first output.")] = None
    tokens: Annotated[int, Field(ge=0, description="Tokens spent by all runs, as the harnesses report.")] = 0
    findings: Annotated[
        list[Line], Field(default_factory=list, max_length=20, description="Findings of the last rejection.")
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
        spec_rules=(*WORK_RULES, *IMMUTABLE_WORK),
        status_defaults={"phase": "Pending", "state": "pending"},
    )
    spec: TaskSpec
    status: TaskStatus | None = None
