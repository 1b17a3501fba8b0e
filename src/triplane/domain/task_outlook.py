"""What a Task's status says while nothing can be done but wait, and when it is over.

Kept apart from the decision so that every state, reason and message of a Task stands on one page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triplane.api.meta import State
from triplane.domain.conditions import Finding, progress_findings

CANCELLING_REASONS = frozenset({"GraphDeleted", "NodeDeleted", "SessionRevoked"})
"""Reasons of a Task that was withdrawn rather than failed."""
TIMED_OUT_REASON = "TimedOut"


@dataclass(frozen=True, slots=True)
class Outlook:
    """State and conditions of a Task, without times."""

    state: State
    succeeded: Finding
    reviewed: Finding
    resolved: Finding
    working: str | None
    stalled: tuple[str, str] | None
    reviewer: str | None = None
    review_session: str | None = None
    transient: bool = False
    """Likely over within a second: worth a status write only if it lasts (design §4, write budget)."""

    def findings(self) -> tuple[Finding, ...]:
        """Every condition of the Task, in the order of the documentation."""
        return (
            self.succeeded,
            self.reviewed,
            self.resolved,
            *progress_findings(working=self.working, stalled=self.stalled),
        )

    def reviewing(self, agent: str, session: str) -> "Outlook":
        """The same wait, seen as part of the review. The message stays while the session moves: its own status
        tells how far it is, and a Task is written once per review (design §4, write budget)."""
        message = f"Agent {agent} reviews the outputs in session {session}"
        return replace(in_review("InReview", message, reviewer=agent), review_session=session)


_RESOLVED = Finding("ResolvedRefs", "True", "ResolvedRefs", "Every reference resolves")
_NOT_REVIEWED = Finding("Reviewed", "Unknown", "NotProduced", "There are no outputs to review yet")


def unresolved(missing: Sequence[tuple[str, str]]) -> Outlook:
    """A reference dangles; it heals when the object appears."""
    reason = missing[0][0]
    message = "; ".join(text for _, text in missing)
    return Outlook(
        State.AWAITING_DEPENDENCY,
        Finding("Succeeded", "Unknown", reason, f"Waiting: {message}"),
        _NOT_REVIEWED,
        Finding("ResolvedRefs", "False", reason, message),
        working=f"Waiting: {message}",
        stalled=None,
    )


def blocked(reason: str, message: str) -> Outlook:
    """Nothing moves until somebody acts; the message says who and how."""
    review = reason == "NoIndependentReviewer"
    return Outlook(
        State.BLOCKED,
        Finding("Succeeded", "Unknown", reason, message),
        Finding("Reviewed", "False" if review else "Unknown", reason, message) if review else _NOT_REVIEWED,
        _RESOLVED,
        working=None,
        stalled=(reason, message),
    )


def in_run(reason: str, message: str, *, queued: bool) -> Outlook:
    """A run is on its way or at work."""
    return Outlook(
        State.QUEUED if queued or reason == "Starting" else State.RUNNING,
        Finding("Succeeded", "Unknown", reason, message),
        _NOT_REVIEWED,
        _RESOLVED,
        working=message,
        stalled=None,
        transient=queued or reason == "Starting",
    )


def in_review(reason: str, message: str, *, reviewer: str) -> Outlook:
    """The outputs are there; somebody judges them."""
    return Outlook(
        State.REVIEWING,
        Finding("Succeeded", "Unknown", reason, message),
        Finding("Reviewed", "Unknown", reason, message),
        _RESOLVED,
        working=message,
        stalled=None,
        reviewer=reviewer,
    )


def finished(round_: int | None, review: str | None, failed: tuple[str, str] | None) -> Outlook:
    """Accepted, failed or cancelled: nothing will be done any more."""
    if round_ is not None:
        message = f"The outputs of round {round_} were accepted by Review {review}"
        return Outlook(
            State.COMPLETED,
            Finding("Succeeded", "True", "Accepted", message),
            Finding("Reviewed", "True", "Approved", message),
            _RESOLVED,
            working=None,
            stalled=None,
        )
    assert failed is not None
    reason, message = failed
    if reason in CANCELLING_REASONS:
        state = State.CANCELLED
    else:
        state = State.TIMED_OUT if reason == TIMED_OUT_REASON else State.FAILED
    rejected = reason == "ReworksExhausted"
    return Outlook(
        state,
        Finding("Succeeded", "False", reason, message),
        Finding("Reviewed", "False", "Rejected", message)
        if rejected
        else Finding("Reviewed", "False", "NotAccepted", "No output was accepted"),
        _RESOLVED,
        working=None,
        stalled=None,
    )
