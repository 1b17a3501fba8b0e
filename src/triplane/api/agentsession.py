"""AgentSession: the logical session of one Agent on one Task; it survives across runs."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Grant
from triplane.api.meta import (
    Column,
    Conditions,
    KindInfo,
    Material,
    Model,
    ObjectRef,
    Phase,
    Resource,
    Rule,
    State,
    StatusModel,
)
from triplane.api.text import Digest, LocalName, ObjectName


class SessionRole(StrEnum):
    """What the session is for."""

    PRODUCER = "Producer"
    REVIEWER = "Reviewer"


class AgentSessionSpec(Model):
    """What the operator froze when it placed the work. Immutable."""

    task_ref: Annotated[ObjectRef, Field(description="The Task worked on.")]
    agent_ref: Annotated[ObjectRef, Field(description="The Agent working.")]
    role: Annotated[SessionRole, Field(description="Producer or Reviewer.")]
    round: Annotated[int, Field(ge=1, description="Review round in which the session was made.")]
    continues: Annotated[
        ObjectName | None,
        Field(description="Earlier session of the Task whose frozen snapshot no longer held."),
    ] = None
    authority: Annotated[Grant, Field(description="What the session may use, settled when it was placed; every axis.")]
    authority_digest: Annotated[Digest, Field(description="Digest of `authority` (JCS).")]
    snapshot_digest: Annotated[Digest, Field(description="Digest of the frozen snapshot (JCS of `snapshot`).")]
    snapshot: Annotated[
        list[Material],
        Field(max_length=256, description="The as-run record as frozen; the host adds what it measured."),
    ]


class SessionOutput(StatusModel):
    """An output as the gateway stored it."""

    name: Annotated[LocalName, Field(description="Output name.")]
    digest: Annotated[Digest, Field(description="Digest of the content.")]
    media_type: Annotated[str, Field(max_length=127, description="Media type.")]
    size: Annotated[int, Field(ge=0, description="Octets.")]


class AgentSessionStatus(StatusModel):
    """Derived by the operator from the session store and the log."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    state: Annotated[State, Field(description="Detailed state (docs/reference/states.md).")] = State.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    run: Annotated[int, Field(ge=0, description="The current run, from 1.")] = 0
    runner: Annotated[str | None, Field(max_length=253, description="Runner of the current run.")] = None
    started_at: Annotated[
        str | None, Field(max_length=64, description="When the program of the current run began (RFC 3339).")
    ] = None
    ended_at: Annotated[str | None, Field(max_length=64, description="When the current run ended (RFC 3339).")] = None
    duration_milliseconds: Annotated[
        int | None, Field(ge=0, description="From the program's start to the run's end, outputs uploaded.")
    ] = None
    first_byte_milliseconds: Annotated[
        int | None, Field(ge=0, description="From the program's start to the first it reported; told at the run's end.")
    ] = None
    outputs: Annotated[
        list[SessionOutput],
        Field(default_factory=list, max_length=64, description="Outputs of the last run."),
    ]
    reflection: Annotated[Digest | None, Field(description="Reflection of the last run, in the content store.")] = None
    tokens: Annotated[int, Field(ge=0, description="Tokens of all runs, as the harness reports.")] = 0
    cost_minor_units: Annotated[int, Field(ge=0, description="Cost of all runs in minor currency units.")] = 0
    conditions: Conditions


class AgentSession(Resource):
    """The logical session of one Agent on one Task. Only the operator writes it."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="agentsessions",
        short_names=("tas",),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Role", ".spec.role"),
            Column("Agent", ".spec.agentRef.name"),
            Column("Run", ".status.run", "integer"),
            Column("Task", ".spec.taskRef.name", priority=1),
            Column("Isolated", '.status.conditions[?(@.type=="Isolated")].status', priority=1),
            Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', priority=1),
        ),
        ready_condition="Succeeded",
        selectable=(".status.phase", ".spec.role"),
        spec_rules=(Rule("self == oldSelf", "the spec of an AgentSession is immutable"),),
        status_defaults={"phase": "Pending", "state": "pending"},
        immutable_spec=True,
    )
    spec: AgentSessionSpec
    status: AgentSessionStatus | None = None
