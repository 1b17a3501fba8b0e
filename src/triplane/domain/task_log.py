"""The log entries of a Task's decisions: how each is written, and how they are read back.

The log is where a decision stands; only ``read_decisions`` brings a recorded one back into force.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import Gate, Subject, Verdict
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject
from triplane.domain.approval_log import approval_of
from triplane.domain.session import RunOutput
from triplane.domain.task_facts import Approval, Asked, Decisions, Placement
from triplane.domain.task_needs import Composition

TASK_EVENTS = frozenset(
    {
        "task.placed",
        "task.accepted",
        "task.rejected",
        "task.failed",
        "task.skipped",
        "input.composed",
        "approval.asked",
        "approval.given",
        "approval.refused",
    }
)
_ENDS = frozenset({"task.accepted", "task.failed", "task.skipped"})
EDGES_PER_ENTRY = 16
"""Edges in one ``input.composed``: so many fit into the 16 KiB of an entry's data whatever their names are."""


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """Which Review decided, and whose it is."""

    name: str
    uid: str
    principal: str | None
    session_uid: str | None = None
    agent_uid: str | None = None

    def data(self) -> dict[str, Any]:
        """Structured facts for the log; absent ones are left out."""
        facts = {
            "reviewName": self.name,
            "reviewUid": self.uid,
            "reviewerPrincipal": self.principal,
            "reviewSessionUid": self.session_uid,
            "reviewerAgentUid": self.agent_uid,
        }
        return {key: value for key, value in facts.items() if value is not None}


def task_placed(
    subject: EventSubject,
    stream: str,
    placement: Placement,
    *,
    owner_uid: str | None = None,
    depends_on: Sequence[str] = (),
) -> EventBody:
    """``task.placed/<task>/<round>/<role>[.<ordinal>]``: who was chosen. ``owner_uid`` is the Task's Node or Graph,
    ``depends_on`` the UIDs of the Tasks it waited for: the resource graph learns them from here."""
    key = placement.role if placement.ordinal == 0 else f"{placement.role}.{placement.ordinal}"
    data: dict[str, Any] = {
        "role": placement.role,
        "round": placement.round,
        "ordinal": placement.ordinal,
        "agentUid": placement.agent_uid,
        "agentName": placement.agent_name,
    }
    if placement.principal is not None:
        data["agentPrincipal"] = placement.principal
    if placement.harness_principal is not None:
        data["harnessPrincipal"] = placement.harness_principal
    if placement.model_family is not None:
        data["modelFamily"] = placement.model_family
    if placement.seat:
        data["seat"] = placement.seat
    if owner_uid is not None:
        data["ownerUid"] = owner_uid
    if depends_on:
        data["dependsOn"] = sorted(depends_on)
    return _body("task.placed", subject, stream, placement.round, key, data)


def task_accepted(
    subject: EventSubject, stream: str, round_: int, reviews: Sequence[ReviewFacts], subjects: Sequence[Subject]
) -> EventBody:
    """``task.accepted/<task>/<round>``: the outputs hold, by these Reviews, the last of which completed them."""
    data = {
        "round": round_,
        **reviews[-1].data(),
        "reviews": [review.data() for review in reviews],
        "subjects": [subject.wire() for subject in subjects],
    }
    return _body("task.accepted", subject, stream, round_, None, data)


def task_rejected(
    subject: EventSubject, stream: str, round_: int, review: ReviewFacts, findings_digest: str, count: int
) -> EventBody:
    """``task.rejected/<task>/<round>``: the findings are prose and lie in the content store."""
    data = {"round": round_, **review.data(), "findingsDigest": findings_digest, "findingsCount": count}
    return _body("task.rejected", subject, stream, round_, None, data, (findings_digest,))


def task_failed(subject: EventSubject, stream: str, round_: int, reason: str, message_digest: str) -> EventBody:
    """``task.failed/<task>/<round>``: nothing further will be tried."""
    data = {"round": round_, "reason": reason, "messageDigest": message_digest}
    return _body("task.failed", subject, stream, round_, None, data, (message_digest,))


def task_skipped(
    subject: EventSubject, stream: str, reason: str, message_digest: str, values: Mapping[str, str]
) -> EventBody:
    """``task.skipped/<task>/1``: it is not to be done; ``values`` are the states of the steps that say so (in a list:
    their names do not fit the log's rule for keys)."""
    data: dict[str, Any] = {"reason": reason, "messageDigest": message_digest}
    if values:
        data["values"] = {"steps": [{"step": step, "state": state} for step, state in values.items()]}
    return _body("task.skipped", subject, stream, 1, None, data, (message_digest,))


def input_composed(subject: EventSubject, stream: str, composition: Composition) -> tuple[EventBody, ...]:
    """``input.composed/<task>/1/<input>``, and from the 17th edge on ``….2`` and so forth: what became the input."""
    bodies = []
    for first in range(0, len(composition.edges), EDGES_PER_ENTRY):
        number = first // EDGES_PER_ENTRY + 1
        data = {
            "input": composition.input,
            "merge": composition.merge.value,
            "digest": composition.digest,
            "edges": [edge.data() for edge in composition.edges[first : first + EDGES_PER_ENTRY]],
        }
        key = composition.input if number == 1 else f"{composition.input}.{number}"
        bodies.append(_body("input.composed", subject, stream, 1, key, data, (composition.digest,)))
    return tuple(bodies)


def task_stalled(subject: EventSubject, stream: str, reason: str) -> EventBody:
    """``task.stalled/<task>/<generation>/<reason>``: once per generation and reason."""
    return _body("task.stalled", subject, stream, subject.generation, reason, {"reason": reason})


def artifact_recorded(
    subject: EventSubject, stream: str, session_uid: str, run: int, round_: int, output: RunOutput
) -> EventBody:
    """``artifact.recorded/<session>/<run>/<output>``; the subject is the Artifact."""
    data = {
        "sessionUid": session_uid,
        "run": run,
        "round": round_,
        "output": output.name,
        "digest": output.digest,
        "mediaType": output.media_type,
        "size": output.size,
    }
    return EventBody(
        id=event_id("artifact.recorded", session_uid, run, output.name),
        type="artifact.recorded",
        stream=stream,
        actor=SYSTEM_ACTOR,
        subject=subject,
        data=data,
        blobs=(output.digest,),
    )


def review_recorded(
    subject: EventSubject,
    stream: str,
    actor: str,
    review: ReviewFacts,
    verdict: Verdict,
    subjects: Sequence[Subject],
    artifact_uids: Sequence[str] = (),
    *,
    gate: Gate = Gate.OUTPUTS,
) -> EventBody:
    """``review.recorded/<review>/1``: a verdict that counts; the actor is the reviewing principal."""
    data = {
        **review.data(),
        "verdict": verdict.value,
        "subjects": [subject_.wire() for subject_ in subjects],
    }
    if artifact_uids:
        data["artifactUids"] = sorted(artifact_uids)
    if gate is not Gate.OUTPUTS:
        data["gate"] = gate.value
    return EventBody(
        id=event_id("review.recorded", subject.uid, 1),
        type="review.recorded",
        stream=stream,
        actor=actor,
        subject=subject,
        data=data,
        # What other gates are about is frozen in a session or in a call; it is no blob of its own.
        blobs=tuple(dict.fromkeys(subject_.digest for subject_ in subjects)) if gate is Gate.OUTPUTS else (),
    )


def read_decisions(entries: Iterable[Mapping[str, Any]], texts: Mapping[str, Sequence[str]]) -> Decisions:
    """What was decided, from the Task's entries in log order; ``texts`` resolves digests of findings and
    messages to their lines."""
    placements: list[Placement] = []
    accepted: Mapping[str, Any] | None = None
    rejected: dict[int, tuple[str, ...]] = {}
    failed: tuple[str, str] | None = None
    skipped: tuple[str, str] | None = None
    composed: dict[str, str] = {}
    ended_at: str | None = None
    approvals: list[Approval] = []
    asked: dict[str, Asked] = {}
    answered: dict[str, str] = {}
    counted: set[str] = set()
    for entry in entries:
        data = entry["data"]
        counted |= {item["reviewUid"] for item in (data, *data.get("reviews", ())) if item.get("reviewUid")}
        if entry["type"] in ("approval.given", "approval.refused") and "reviewUid" in data:
            answered[entry["id"].split("/", 3)[3]] = data["reviewUid"]
        if entry["type"] in _ENDS and ended_at is None:
            ended_at = entry.get("time")
        match entry["type"]:
            case "task.placed":
                placements.append(
                    Placement(
                        role=data["role"],
                        round=data["round"],
                        ordinal=data["ordinal"],
                        agent_uid=data["agentUid"],
                        agent_name=data["agentName"],
                        principal=data.get("agentPrincipal"),
                        harness_principal=data.get("harnessPrincipal"),
                        model_family=data.get("modelFamily"),
                        seat=data.get("seat", 0),
                    )
                )
            case "approval.asked":
                asked[data["sessionUid"]] = Asked(entry["seq"], entry["time"])
            case "approval.given":
                approvals.append(approval_of(data, entry["id"].split("/", 3)[3]))
            case "task.accepted":
                accepted = data
            case "task.rejected":
                rejected[data["round"]] = tuple(texts[data["findingsDigest"]])
            case "task.failed":
                failed = (data["reason"], "\n".join(texts[data["messageDigest"]]))
            case "task.skipped":
                skipped = (data["reason"], "\n".join(texts[data["messageDigest"]]))
            case "input.composed":
                composed[data["input"]] = data["digest"]
    return Decisions(
        placements=tuple(placements),
        accepted_round=accepted["round"] if accepted else None,
        accepted_review=accepted["reviewName"] if accepted else None,
        accepted_subjects=tuple(Subject(**item) for item in accepted["subjects"]) if accepted else (),
        rejected=rejected,
        failed=failed,
        skipped=skipped,
        composed=composed,
        approvals=tuple(approvals),
        asked=asked,
        answered=answered,
        counted=frozenset(counted),
        ended_at=ended_at,
    )


def _body(
    type_: str,
    subject: EventSubject,
    stream: str,
    n: int,
    key: str | None,
    data: Mapping[str, Any],
    blobs: tuple[str, ...] = (),
) -> EventBody:
    return EventBody(
        id=event_id(type_, subject.uid, n, key),
        type=type_,
        stream=stream,
        actor=SYSTEM_ACTOR,
        subject=subject,
        data=data,
        blobs=blobs,
    )
