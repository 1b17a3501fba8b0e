"""Node: one inline step becomes a Task; the Node's status is that Task's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import TERMINAL, State
from triplane.domain.conditions import Finding, condition, progress_findings


@dataclass(frozen=True, slots=True)
class NodeOutlook:
    """State and conditions of a Node, without times."""

    state: State
    findings: tuple[Finding, ...]


def waiting(reason: str, message: str, *, stalled: bool = False) -> NodeOutlook:
    """There is no Task yet, and why."""
    resolved = Finding("ResolvedRefs", "True", "ResolvedRefs", "Every reference resolves")
    if not stalled:
        resolved = Finding("ResolvedRefs", "False", reason, message)
    progress = progress_findings(
        working=None if stalled else f"Waiting: {message}", stalled=(reason, message) if stalled else None
    )
    state = State.BLOCKED if stalled else State.AWAITING_DEPENDENCY
    return NodeOutlook(state, (Finding("Succeeded", "Unknown", reason, message), resolved, *progress))


def from_task(task: str, status: Mapping[str, Any] | None) -> NodeOutlook:
    """The Task's summary, told as the Node's."""
    state = State((status or {}).get("state") or State.PENDING)
    told = condition(status, "Succeeded") or {
        "status": "Unknown",
        "reason": "Pending",
        "message": "Not yet observed by the operator",
    }
    message = f"Task {task}: {told['message']}"
    stalled = condition(status, "Stalled")
    halted = stalled is not None and stalled["status"] == "True"
    return NodeOutlook(
        state,
        (
            Finding("Succeeded", told["status"], told["reason"], message),
            Finding("ResolvedRefs", "True", "ResolvedRefs", "Every reference resolves"),
            *progress_findings(
                working=None if state in TERMINAL or halted else message,
                stalled=(told["reason"], message) if halted else None,
            ),
        ),
    )


def outlived(task: str, *, accepted: bool) -> NodeOutlook:
    """The Task was deleted after it had ended; its evidence stays, and the work is not done twice."""
    verdict = "was accepted" if accepted else "failed"
    message = f"Task {task} {verdict} and was deleted since; `triplane lineage` still answers for it"
    reason = "Accepted" if accepted else "TaskFailed"
    return NodeOutlook(
        State.COMPLETED if accepted else State.FAILED,
        (
            Finding("Succeeded", "True" if accepted else "False", reason, message),
            Finding("ResolvedRefs", "True", "ResolvedRefs", "Every reference resolves"),
            *progress_findings(working=None, stalled=None),
        ),
    )
