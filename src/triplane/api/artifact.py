"""Artifact: one immutable output, by digest, with its lineage."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import (
    Column,
    Conditions,
    KindInfo,
    Model,
    ObjectRef,
    Phase,
    Resource,
    Rule,
    StatusModel,
    Subject,
)
from triplane.api.text import Digest, LocalName, MediaType


class ArtifactSpec(Model):
    """What was produced, by whom, from what. Immutable."""

    name: Annotated[LocalName, Field(description="Output name in the Task.")]
    digest: Annotated[Digest, Field(description="Digest of the content; `triplane artifact get` fetches it.")]
    media_type: Annotated[MediaType, Field(description="Media type of the content.")]
    size: Annotated[int, Field(ge=0, description="Octets.")]
    task_ref: Annotated[ObjectRef, Field(description="The Task it is an output of.")]
    session_ref: Annotated[ObjectRef, Field(description="The session that produced it.")]
    run: Annotated[int, Field(ge=1, description="The run that produced it.")]
    round: Annotated[int, Field(ge=1, description="The review round it belongs to.")]
    materials: Annotated[list[Subject], Field(max_length=64, description="Inputs of that run, by digest.")]


class ArtifactStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    phase: Annotated[Phase, Field(description="Summary for columns and field selectors.")] = Phase.PENDING
    review: Annotated[str | None, Field(max_length=253, description="The Review that decided.")] = None
    conditions: Conditions


class Artifact(Resource):
    """One immutable output, by digest. Only the operator writes it."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="artifacts",
        short_names=("tart",),
        columns=(
            Column("Output", ".spec.name"),
            Column("Reviewed", '.status.conditions[?(@.type=="Reviewed")].status'),
            Column("Size", ".spec.size", "integer"),
            Column("Task", ".spec.taskRef.name"),
            Column("Digest", ".spec.digest", priority=1),
            Column("Media-Type", ".spec.mediaType", priority=1),
        ),
        ready_condition="Reviewed",
        selectable=(".spec.digest", ".status.phase"),
        spec_rules=(Rule("self == oldSelf", "the spec of an Artifact is immutable"),),
        status_defaults={"phase": "Pending"},
        immutable_spec=True,
    )
    spec: ArtifactSpec
    status: ArtifactStatus | None = None
