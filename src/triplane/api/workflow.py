"""Workflow: a reusable graph of steps, run by Nodes."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import Column, Conditions, KindInfo, Model, Resource, StatusModel
from triplane.api.text import PLAIN_TEXT, Line, LocalName
from triplane.api.work import STEP_RULES, Steps


class ParameterType(StrEnum):
    """What a parameter's value must be; the value is text in every case."""

    TEXT = "Text"
    INTEGER = "Integer"
    DECIMAL = "Decimal"
    BOOLEAN = "Boolean"
    JSON = "Json"
    SELECT = "Select"


class Parameter(Model):
    """What a Node may set when it runs the Workflow. ``[[name]]`` in objectives, definitions of done, literal inputs
    and parameters of Capabilities stands for its value; conditions see it as ``parameters["name"]``, always text
    (``int(…)`` converts)."""

    name: Annotated[LocalName, Field(description="Name of the parameter.")]
    type: Annotated[ParameterType, Field(description="What its value must be.")] = ParameterType.TEXT
    description: Annotated[Line | None, Field(description="What it is for.")] = None
    default: Annotated[
        str | None,
        Field(
            max_length=4096, pattern=PLAIN_TEXT, description="Value when a Node sets none; absent: a Node must set one."
        ),
    ] = None
    options: Annotated[list[Line] | None, Field(max_length=64, description="The values a Select may have.")] = None


class WorkflowSpec(Model):
    """What people declare of a Workflow."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    parameters: Annotated[
        list[Parameter] | None,
        Field(
            max_length=64,
            description="What a Node may set.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    steps: Steps


class WorkflowStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    steps: Annotated[int, Field(ge=0, description="Number of steps.")] = 0
    depth: Annotated[int, Field(ge=0, description="Steps on the longest path.")] = 0
    order: Annotated[
        list[str], Field(default_factory=list, max_length=256, description="The steps in an order that works.")
    ]
    conditions: Conditions


class Workflow(Resource):
    """A reusable graph of steps. A Node runs it as it stands when the Node's first step begins."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="workflows",
        short_names=("twf",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Steps", ".status.steps", "integer"),
            Column("Depth", ".status.depth", "integer"),
            Column("Title", ".spec.title", priority=1),
        ),
        ready_condition="Ready",
        spec_rules=STEP_RULES,
    )
    spec: WorkflowSpec
    status: WorkflowStatus | None = None
