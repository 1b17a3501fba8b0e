"""Graph: the container of a workstream (a mission); Nodes and Tasks belong to it."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Authority
from triplane.api.meta import Column, Conditions, KindInfo, Model, Phase, Resource, StatusModel
from triplane.api.text import Line, Prose


class Workstream(Model):
    """The targeted outcome in words. Every session of the Graph gets it in its work order."""

    markdown: Annotated[Prose, Field(description="What this workstream is for, in Markdown.")]
    version: Annotated[int, Field(ge=1, le=2**31 - 1, description="Version the owners give the text.")] = 1


class GraphSpec(Model):
    """What people declare of a Graph."""

    title: Annotated[Line | None, Field(description="Short title, shown by `triplane status`.")] = None
    workstream: Annotated[Workstream | None, Field(description="The outcome, in words.")] = None
    authority: Annotated[
        Authority | None, Field(description="What everything beneath may use and be given; absent: the installation's.")
    ] = None
    suspend: Annotated[
        bool, Field(description="While true no run is launched under it; runs that are at work go on.")
    ] = False


class WorkCounts(StatusModel):
    """How many Tasks are in which phase."""

    total: Annotated[int, Field(ge=0, description="All Tasks of the Graph.")] = 0
    succeeded: Annotated[int, Field(ge=0, description="Tasks whose outputs were accepted.")] = 0
    failed: Annotated[int, Field(ge=0, description="Tasks that failed or were cancelled.")] = 0
    active: Annotated[int, Field(ge=0, description="Tasks still pending, running or in review.")] = 0


class GraphStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    tasks: Annotated[WorkCounts, Field(description="Roll-up of the Graph's Tasks.")] = WorkCounts()
    conditions: Conditions


class Graph(Resource):
    """A workstream: the container in which Nodes, Tasks and Artifacts cohere."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="graphs",
        short_names=("tg",),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Tasks", ".status.tasks.total", "integer"),
            Column("Succeeded", ".status.tasks.succeeded", "integer"),
            Column("Failed", ".status.tasks.failed", "integer"),
            Column("Title", ".spec.title", priority=1),
        ),
        ready_condition="Ready",
        selectable=(".status.phase",),
        status_defaults={"phase": "Pending"},
    )
    spec: GraphSpec
    status: GraphStatus | None = None
