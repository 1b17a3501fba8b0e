"""What every kind shares: the base model, references, conditions, and the description of a kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from triplane.api.text import Digest, LocalName, MediaType, ObjectName, RelativePath, Uid, UserName

NEVER = "1970-01-01T00:00:00Z"
"""``lastTransitionTime`` of a condition nobody has observed yet."""


class Model(BaseModel):
    """Base of every API type: camelCase on the wire, unknown fields refused, immutable in Python."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_enum_values=False
    )

    def wire(self) -> dict[str, Any]:
        """The JSON form: camelCase keys, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(Model):
    """Status types tolerate unknown fields: a newer operator may have written them."""

    model_config = ConfigDict(extra="ignore")


class Metadata(StatusModel):
    """The parts of ObjectMeta that Triplane reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    owner_references: list[Mapping[str, Any]] = Field(default_factory=list)


class ConditionStatus(StrEnum):
    """Kubernetes' three-valued condition status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """metav1.Condition (Kubernetes API conventions, "Typical status properties")."""

    type: Annotated[str, Field(max_length=316, description="Type of the condition, CamelCase.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    observed_generation: Annotated[
        int, Field(ge=0, description="The metadata.generation this condition was set for.")
    ] = 0
    last_transition_time: Annotated[
        str,
        Field(description="When status last changed.", json_schema_extra={"format": "date-time"}),
    ] = NEVER
    reason: Annotated[
        str,
        Field(max_length=1024, min_length=1, description="CamelCase reason; the list is part of the API."),
    ]
    message: Annotated[str, Field(max_length=32768, description="What it means and who must act.")]


Conditions = Annotated[
    list[Condition],
    Field(
        default_factory=list,
        max_length=16,
        description="Current conditions, one per type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class Phase(StrEnum):
    """One word for columns and field selectors; logic never reads it."""

    PENDING = "Pending"
    WAITING = "Waiting"
    RUNNING = "Running"
    REVIEWING = "Reviewing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class State(StrEnum):
    """The detailed state of a Node, Task or AgentSession; ``phase`` is derived from it."""

    PENDING = "pending"
    AWAITING_DEPENDENCY = "awaiting_dependency"
    QUEUED = "queued"
    RUNNING = "running"
    STREAMING = "streaming"
    RETRYING = "retrying"
    BLOCKED = "blocked"
    REVIEWING = "reviewing"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INVALIDATED = "invalidated"
    CANCELLED = "cancelled"


PHASE_OF: Mapping[State, Phase] = {
    State.PENDING: Phase.PENDING,
    State.QUEUED: Phase.PENDING,
    State.AWAITING_DEPENDENCY: Phase.PENDING,
    State.RETRYING: Phase.WAITING,
    State.BLOCKED: Phase.WAITING,
    State.RUNNING: Phase.RUNNING,
    State.STREAMING: Phase.RUNNING,
    State.REVIEWING: Phase.REVIEWING,
    State.COMPLETED: Phase.SUCCEEDED,
    State.SKIPPED: Phase.SUCCEEDED,
    State.FAILED: Phase.FAILED,
    State.TIMED_OUT: Phase.FAILED,
    State.INVALIDATED: Phase.FAILED,
    State.CANCELLED: Phase.CANCELLED,
}
"""The one table from ``state`` to ``phase`` (docs/reference/states.md is generated from it)."""

TERMINAL: frozenset[State] = frozenset(
    {State.COMPLETED, State.SKIPPED, State.FAILED, State.TIMED_OUT, State.INVALIDATED, State.CANCELLED}
)


class WaitingReason(StrEnum):
    """Why a step that could go on does not."""

    DEPENDENCY = "dependency"
    CONDITION_FALSE = "condition_false"
    RATE_LIMIT = "rate_limit"
    RETRY_BACKOFF = "retry_backoff"
    HUMAN_INPUT = "human_input"
    EXTERNAL_CALLBACK = "external_callback"
    QUEUED = "queued"


WAITING: Mapping[WaitingReason, str] = {
    WaitingReason.DEPENDENCY: "Tasks it depends on are not settled, or something it names does not exist.",
    WaitingReason.CONDITION_FALSE: "It was skipped: its condition is false.",
    WaitingReason.RATE_LIMIT: "Its Agent has as many sessions at work as `maxConcurrentSessions` allows.",
    WaitingReason.RETRY_BACKOFF: "A run did not succeed; `nextRunAt` says when the next one may begin.",
    WaitingReason.HUMAN_INPUT: "Somebody must act: it is suspended, stalled, or waits for a person's leave.",
    WaitingReason.EXTERNAL_CALLBACK: "Something outside must answer; nothing gives this reason yet.",
    WaitingReason.QUEUED: "It waits for a runner, or for its turn in a queue.",
}
"""What each means (docs/reference/states.md)."""


class LocalRef(Model):
    """A reference to an object of a known kind in the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of the object, in the same namespace.")]


class ObjectRef(Model):
    """A reference bound to one incarnation of an object: a same-named successor does not match."""

    name: Annotated[ObjectName, Field(description="Name of the object, in the same namespace.")]
    uid: Annotated[Uid, Field(description="UID of the object.")]


class InputType(StrEnum):
    """How an input blob appears in the sandbox."""

    FILE = "File"
    DIRECTORY = "Directory"


class Output(Model):
    """One output a run must leave in /work/outputs, and the contract it must meet."""

    name: Annotated[LocalName, Field(description="Name of the output; Artifacts carry it.")]
    path: Annotated[RelativePath, Field(description="File under /work/outputs, relative, without `..`.")]
    media_type: Annotated[
        MediaType, Field(description="Media type; the gateway checks the content against it where it can.")
    ]
    json_schema: Annotated[
        dict[str, Any] | None,
        Field(
            alias="schema",
            max_length=64,
            description="JSON Schema (2020-12) a JSON output must meet.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None


class Verdict(StrEnum):
    """What a reviewer says of the outputs."""

    APPROVE = "Approve"
    REJECT = "Reject"


class Gate(StrEnum):
    """What a Review gives leave to."""

    OUTPUTS = "Outputs"
    """The outputs of a round are accepted."""
    LAUNCH = "Launch"
    """A producing session may begin; its subject is `snapshot`, the digest of what was frozen."""
    TOOL = "Tool"
    """One call of a tool may be made; its subject is the invocation, the digest of tool and arguments."""


class Subject(Model):
    """One output by name and digest: what a verdict or an acceptance is bound to."""

    name: Annotated[LocalName, Field(description="Output name.")]
    digest: Annotated[Digest, Field(description="Its digest.")]


class ReviewPolicy(Model):
    """Who reviews the outputs of a Task: agents, people, or both; absent means one Agent with capability `review`."""

    agent_ref: Annotated[LocalRef | None, Field(description="This Agent reviews.")] = None
    capability: Annotated[LocalName | None, Field(description="Any independent Agent with it reviews.")] = None
    people: Annotated[
        list[UserName] | None,
        Field(max_length=32, min_length=1, description="These users (authenticated names) may review."),
    ] = None
    reviewers: Annotated[
        int,
        Field(
            ge=1,
            le=8,
            description="How many different reviewers must approve, of different controlling users; with agents and "
            "people named, at least one of each. One rejection rejects the round.",
        ),
    ] = 1
    distinct_model_family: Annotated[
        bool, Field(description="An Agent that reviews must declare another modelFamily than the producer.")
    ] = False


class ApprovalDefault(StrEnum):
    """What happens when nobody has answered in time."""

    DENY = "Deny"
    APPROVE = "Approve"


class ApprovalPolicy(Model):
    """A person's leave before a producing session is launched (a Review with gate Launch)."""

    people: Annotated[
        list[UserName], Field(min_length=1, max_length=32, description="Users (authenticated names) who may approve.")
    ]
    timeout_seconds: Annotated[
        int | None, Field(ge=1, le=2592000, description="How long to wait; absent: for ever.")
    ] = None
    on_timeout: Annotated[ApprovalDefault, Field(description="What happens then.")] = ApprovalDefault.DENY


class MaterialBasis(StrEnum):
    """What the digest in a material rests on."""

    CONTENT = "content"
    DECLARED = "declared"
    REPORTED = "reported"


class Material(Model):
    """One line of the as-run record: what took part in a run, and how surely we know it."""

    role: Annotated[
        Literal[
            "task",
            "agent",
            "harness",
            "program",
            "interpreter",
            "model",
            "tool",
            "guideline",
            "capability",
            "policy",
            "authority",
            "input",
            "sandbox",
        ],
        Field(description="What part it played."),
    ]
    name: Annotated[str, Field(max_length=253, description="Its name.")]
    uid: Annotated[str | None, Field(max_length=128, description="UID, for API objects.")] = None
    generation: Annotated[int | None, Field(ge=0, description="Generation, for API objects.")] = None
    digest: Annotated[Digest | None, Field(description="Digest, where there is one.")] = None
    basis: Annotated[MaterialBasis, Field(description="What the digest rests on.")]


@dataclass(frozen=True)
class Column:
    """A printer column of ``kubectl get``."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Rule:
    """A CEL validation rule (``x-kubernetes-validations``) on the spec, or on ``self`` as a whole."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True)
class KindInfo:
    """Everything about a kind that is not in its schema."""

    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    ready_condition: str | None
    """The summary condition: ``Ready`` or ``Succeeded`` or ``Reviewed``; None for kinds without status."""
    selectable: tuple[str, ...] = ()
    spec_rules: tuple[Rule, ...] = ()
    status_defaults: Mapping[str, Any] = field(default_factory=dict)
    immutable_spec: bool = False


class Resource(StatusModel):
    """Base of our kinds. Subclasses add ``spec`` and, but for Review, ``status``."""

    info: ClassVar[KindInfo]

    api_version: str = "triplane.dev/v1alpha1"
    kind: str
    metadata: Metadata

    @classmethod
    def kind_name(cls) -> str:
        """``Task``, ``Agent``, …: the class's name is the kind."""
        return cls.__name__
