"""Review: a verdict bound to exact digests and to the reviewer's authenticated identity."""

from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.meta import Column, Gate, KindInfo, Model, ObjectRef, Resource, Rule, Subject, Verdict
from triplane.api.text import Line


class ReviewSpec(Model):
    """The verdict. Immutable; there is no status."""

    task_ref: Annotated[ObjectRef, Field(description="The Task it is about.")]
    gate: Annotated[Gate, Field(description="What the verdict is on.")] = Gate.OUTPUTS
    round: Annotated[int, Field(ge=1, description="The review round the verdict is for.")]
    verdict: Annotated[Verdict, Field(description="Approve or Reject.")]
    subjects: Annotated[
        list[Subject],
        Field(
            min_length=1,
            max_length=64,
            description="Every output reviewed, by digest; a verdict on other digests is void.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    findings: Annotated[
        list[Line],
        Field(
            default_factory=list,
            max_length=20,
            description="What was found; the next run of the producer gets it.",
        ),
    ]
    session_ref: Annotated[
        ObjectRef | None,
        Field(description="The review session. Only the operator sets it; without it a person reviewed."),
    ] = None
    agent_ref: Annotated[ObjectRef | None, Field(description="The reviewing Agent. Only the operator sets it.")] = None


class Review(Resource):
    """A verdict on the outputs of one round of a Task."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="reviews",
        short_names=("trv",),
        columns=(
            Column("Verdict", ".spec.verdict"),
            Column("Gate", ".spec.gate"),
            Column("Task", ".spec.taskRef.name"),
            Column("Round", ".spec.round", "integer"),
            Column("Agent", ".spec.agentRef.name"),
            Column("Requester", r".metadata.annotations.triplane\.dev/requester", priority=1),
        ),
        ready_condition=None,
        selectable=(".spec.verdict",),
        spec_rules=(
            Rule("self == oldSelf", "the spec of a Review is immutable: make another Review"),
            Rule(
                "!has(self.sessionRef) || self.gate == 'Outputs'",
                "leave to launch or to call a tool is given by people: leave sessionRef out",
            ),
            Rule("has(self.sessionRef) == has(self.agentRef)", "sessionRef and agentRef go together"),
            Rule(
                "self.verdict != 'Reject' || (has(self.findings) && size(self.findings) > 0)",
                "a rejection needs at least one finding",
            ),
        ),
        immutable_spec=True,
    )
    spec: ReviewSpec
