"""The log entries of leave that people give beside a verdict that decides a round: asked, given, refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triplane.api.meta import Gate, Subject
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject
from triplane.domain.task_facts import Approval


def approval_asked(
    subject: EventSubject, stream: str, round_: int, session_uid: str, subjects: Sequence[Subject]
) -> EventBody:
    """``approval.asked/<task>/<round>/<session>``: the session waits for leave; the time-out counts from here."""
    data = {
        "gate": Gate.LAUNCH.value,
        "round": round_,
        "sessionUid": session_uid,
        "subjects": [item.wire() for item in subjects],
    }
    return _body("approval.asked", subject, stream, round_, session_uid, data)


def approval_given(subject: EventSubject, stream: str, approval: Approval, **more: Any) -> EventBody:
    """``approval.given/<task>/<round>/<key>``: the actor is who gave leave, ``system`` when the default did."""
    data = _approval_data(approval) | more
    if approval.review_uid is None:
        data["byDefault"] = True
    body = _body("approval.given", subject, stream, approval.round, approval.key, data)
    return replace(body, actor=approval.principal or SYSTEM_ACTOR)


def approval_refused(
    subject: EventSubject, stream: str, approval: Approval, findings_digest: str, **more: Any
) -> EventBody:
    """``approval.refused/<task>/<round>/<key>``; the findings are prose and lie in the content store."""
    data = _approval_data(approval) | more | {"findingsDigest": findings_digest}
    body = _body("approval.refused", subject, stream, approval.round, approval.key, data, (findings_digest,))
    return replace(body, actor=approval.principal or SYSTEM_ACTOR)


def _approval_data(approval: Approval) -> dict[str, Any]:
    outputs = approval.gate is Gate.OUTPUTS
    facts = {
        "gate": approval.gate.value,
        "round": approval.round,
        "reviewName": approval.review_name,
        "reviewUid": approval.review_uid,
        "reviewerPrincipal": approval.principal,
        "reviewSessionUid" if outputs else "sessionUid": approval.session_uid,
        "reviewerAgentUid": approval.agent_uid,
        "subjects": [item.wire() for item in approval.subjects],
    }
    return {key: value for key, value in facts.items() if value is not None}


def approval_of(data: Mapping[str, Any], key: str) -> Approval:
    return Approval(
        gate=Gate(data["gate"]),
        round=data["round"],
        key=key,
        subjects=tuple(Subject(**item) for item in data["subjects"]),
        review_name=data.get("reviewName"),
        review_uid=data.get("reviewUid"),
        principal=data.get("reviewerPrincipal"),
        session_uid=data.get("reviewSessionUid") or data.get("sessionUid"),
        agent_uid=data.get("reviewerAgentUid"),
    )


def _body(
    type_: str,
    subject: EventSubject,
    stream: str,
    n: int,
    key: str,
    data: Mapping[str, Any],
    blobs: tuple[str, ...] = (),
) -> EventBody:
    return EventBody(event_id(type_, subject.uid, n, key), type_, stream, SYSTEM_ACTOR, subject, data, blobs)
