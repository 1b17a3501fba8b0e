"""Capability: instructions and an output contract that Tasks require by name."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import Column, Conditions, KindInfo, Model, Output, Resource, StatusModel
from triplane.api.text import Line, Prose


class CapabilitySpec(Model):
    """What people declare of a Capability."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    instructions: Annotated[
        Prose | None,
        Field(description="Given to every run that exercises the capability, and pinned by digest."),
    ] = None
    outputs: Annotated[
        list[Output],
        Field(
            default_factory=list,
            max_length=32,
            description="Output contract: what a run must leave, with media type and JSON Schema.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]


class CapabilityStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    conditions: Conditions


class Capability(Resource):
    """What an Agent can do: instructions and the contract its outputs must meet."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="capabilities",
        short_names=("tcap",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Title", ".spec.title", priority=1),
        ),
        ready_condition="Ready",
    )
    spec: CapabilitySpec
    status: CapabilityStatus | None = None
