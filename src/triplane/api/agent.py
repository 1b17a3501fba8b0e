"""Agent: who works. Its requester (stamped by admission) is its controlling principal."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Authority
from triplane.api.meta import Column, Conditions, KindInfo, LocalRef, Model, Resource, StatusModel
from triplane.api.text import Line, LocalName


class AgentLifecycle(StrEnum):
    """Whether the Agent may be given work."""

    ACTIVE = "Active"
    SUSPENDED = "Suspended"


class AgentSpec(Model):
    """What people declare of an Agent."""

    display_name: Annotated[Line | None, Field(description="Name shown to people.")] = None
    harness_ref: Annotated[LocalRef, Field(description="How it is run.")]
    capabilities: Annotated[
        list[LocalName],
        Field(
            default_factory=list,
            max_length=64,
            description="What it can do; Tasks require these by name. `review` makes it a reviewer.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ]
    model: Annotated[
        Line | None,
        Field(description="Model the harness is told to use; recorded as declared, never as proven."),
    ] = None
    model_family: Annotated[
        LocalName | None, Field(description="Family of the model, as declared; `distinctModelFamily` compares it.")
    ] = None
    authority: Annotated[
        Authority | None, Field(description="What it may use, whatever a Task grants; absent: the installation's.")
    ] = None
    max_concurrent_sessions: Annotated[
        int | None, Field(ge=1, le=1000, description="Sessions of it at work at once; absent: no limit of its own.")
    ] = None
    lifecycle: Annotated[AgentLifecycle, Field(description="A suspended Agent gets no new runs.")] = (
        AgentLifecycle.ACTIVE
    )


class AgentStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    public_id: Annotated[
        str | None,
        Field(max_length=63, description="Stable identifier `{name}-{8 characters}`, never changed."),
    ] = None
    conditions: Conditions


class Agent(Resource):
    """Who works: an identity with capabilities, run by a Harness, controlled by the user who made it."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="agents",
        short_names=("tag",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Harness", ".spec.harnessRef.name"),
            Column("Capabilities", ".spec.capabilities"),
            Column("Public-Id", ".status.publicId", priority=1),
            Column("Requester", r".metadata.annotations.triplane\.dev/requester", priority=1),
        ),
        ready_condition="Ready",
    )
    spec: AgentSpec
    status: AgentStatus | None = None
