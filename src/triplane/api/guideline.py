"""Guideline: instructions that every run they select gets, pinned into its as-run record by digest."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Pattern
from triplane.api.meta import Column, Conditions, KindInfo, Model, Resource, StatusModel
from triplane.api.policy import Selector
from triplane.api.text import Line, LocalName, ObjectName, Prose


class GuidelineScope(Model):
    """Which runs get it: all of this must hold; absent parts select everything."""

    namespaces: Annotated[
        list[Pattern] | None,
        Field(
            max_length=64,
            description="Of a Guideline in triplane-system: namespaces it is for; absent: all.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    graphs: Annotated[
        list[ObjectName] | None,
        Field(max_length=64, description="Names of Graphs.", json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = None
    agents: Annotated[
        list[ObjectName] | None,
        Field(max_length=64, description="Names of Agents.", json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = None
    capabilities: Annotated[
        list[LocalName] | None,
        Field(
            max_length=64,
            description="Capabilities one of which the run exercises; `review` selects reviewers.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    selector: Annotated[Selector | None, Field(description="Labels of the Task.")] = None


class GuidelineSpec(Model):
    """What people declare of a Guideline."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    text: Annotated[Prose, Field(min_length=1, description="The instructions, Markdown.")]
    scope: Annotated[GuidelineScope | None, Field(description="Which runs get it; absent: all of the namespace.")] = (
        None
    )
    priority: Annotated[
        int,
        Field(
            ge=-1000,
            le=1000,
            description="Runs get them in this order, highest first; ties: those of triplane-system first, then by "
            "name.",
        ),
    ] = 0


class GuidelineStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    conditions: Conditions


class Guideline(Resource):
    """Instructions for every run in its scope."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="guidelines",
        short_names=("tgl",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Priority", ".spec.priority", "integer"),
            Column("Title", ".spec.title"),
        ),
        ready_condition="Ready",
    )
    spec: GuidelineSpec
    status: GuidelineStatus | None = None
