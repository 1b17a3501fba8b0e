"""The log entries of a Node's decisions: what it runs was settled, and that it was cut short."""

from typing import Any

from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject

PLANNED = "node.planned"
ABORTED = "node.aborted"


def planned_id(node_uid: str) -> str:
    """``node.planned/<node>/1``."""
    return event_id(PLANNED, node_uid, 1)


def aborted_id(node_uid: str) -> str:
    """``node.aborted/<node>/1``."""
    return event_id(ABORTED, node_uid, 1)


def node_planned(
    subject: EventSubject,
    stream: str,
    plan_digest: str,
    steps: int,
    *,
    workflow: tuple[str, int] | None = None,
) -> EventBody:
    """``node.planned/<node>/1``: the steps are settled for good; ``workflow`` is ``(uid, generation)`` of the Workflow
    they come from."""
    data: dict[str, Any] = {"planDigest": plan_digest, "steps": steps}
    if workflow is not None:
        data |= {"workflowUid": workflow[0], "workflowGeneration": workflow[1]}
    return EventBody(
        id=planned_id(subject.uid),
        type=PLANNED,
        stream=stream,
        actor=SYSTEM_ACTOR,
        subject=subject,
        data=data,
        blobs=(plan_digest,),
    )


def node_aborted(
    subject: EventSubject, stream: str, reason: str, *, step: str | None = None, node_uid: str | None = None
) -> EventBody:
    """``node.aborted/<node>/1``: every unfinished step is cancelled. ``reason`` is FailFast, with the ``step`` that
    failed, or Replaced, with the UID of the Node that takes its place."""
    data: dict[str, Any] = {"reason": reason}
    if step is not None:
        data["step"] = step
    if node_uid is not None:
        data["nodeUid"] = node_uid
    return EventBody(
        id=aborted_id(subject.uid), type=ABORTED, stream=stream, actor=SYSTEM_ACTOR, subject=subject, data=data
    )
