"""What a Task's status says while nothing can be done but wait, and when it is over.

Kept apart from the decision so that every state, reason and message of a Task stands on one page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triplane.api.meta import Gate, State, Subject, WaitingReason
from triplane.domain.conditions import Finding, progress_findings

REVOKE_FIRST = frozenset({"Cancelled", "FailFast", "Replaced", "GraphDeleted", "NodeDeleted"})
"""Reasons of a Task that was withdrawn while it may be at work: it ends only when its sessions are revoked."""
CANCELLING_REASONS = REVOKE_FIRST | {"SessionRevoked"}
"""Reasons of a Task that was withdrawn rather than failed."""
INVALIDATING_REASONS = frozenset({"DependencyFailed"})
"""Reasons of a Task that was never begun, because what it needs will not come."""
TIMED_OUT_REASONS = frozenset({"TimedOut", "IdleTimeout"})
"""Reasons of a Task whose last run was killed for its time or its silence."""


@dataclass(frozen=True, slots=True)
class Leave:
    """A person's leave is waited for."""

    gate: Gate
    subjects: tuple[Subject, ...]
    """What it must name, by digest."""
    since: str
    until: str | None
    """When the default takes effect; both RFC 3339."""
    people: tuple[str, ...]
    """Who may give it."""


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
    waiting: WaitingReason | None = None
    next_run_at: str | None = None
    """When the next run may begin, while it backs off."""
    suspended: str | None = None
    """What holds it back on purpose, in words."""
    leave: tuple[Leave, str] | None = None
    """The gate that waits for a person, and that in words."""

    def findings(self) -> tuple[Finding, ...]:
        """Every condition of the Task, in the order of the documentation."""
        return (
            self.succeeded,
            self.reviewed,
            self.resolved,
            *progress_findings(working=self.working, stalled=self.stalled),
            *self._suspended(),
            *self._waiting_for_leave(),
        )

    def _waiting_for_leave(self) -> tuple[Finding, ...]:
        """Only while it waits: a Task without gates has no such condition."""
        if self.leave is None:
            return ()
        return (Finding("WaitingForApproval", "True", "WaitingForApproval", self.leave[1]),)

    def _suspended(self) -> tuple[Finding, ...]:
        """Only while it holds: a Task that nobody suspends has no such condition."""
        return (Finding("Suspended", "True", "Suspended", self.suspended),) if self.suspended is not None else ()

    def noting(self, remarks: Sequence[str]) -> "Outlook":
        """The same, with remarks after what it says of the work and of its review."""
        said = ". ".join(remarks)
        succeeded, reviewed = (
            replace(finding, message=f"{finding.message}. {said}") for finding in (self.succeeded, self.reviewed)
        )
        return replace(self, succeeded=succeeded, reviewed=reviewed)

    def calling(self, leave: Leave, message: str) -> "Outlook":
        """The same, while calls of tools wait for a person."""
        return replace(self, leave=(leave, message), waiting=WaitingReason.HUMAN_INPUT, transient=False)

    def reviewing(self, agent: str, session: str) -> "Outlook":
        """The same wait, seen as part of the review. The message stays while the session moves: its own status
        tells how far it is, and a Task is written once per review (design §4, write budget)."""
        message = f"Agent {agent} reviews the outputs in session {session}"
        review = replace(in_review("InReview", message, reviewer=agent), review_session=session)
        if self.waiting is WaitingReason.RETRY_BACKOFF and not self.transient:
            return replace(review, waiting=self.waiting, next_run_at=self.next_run_at)
        return review


SHOWN = 8
"""Tasks named in one message."""
SHORT_WAIT = 5.0
"""Seconds. A shorter wait for the next run is not worth a status write of its own."""
_QUEUEING = {"Queued": WaitingReason.QUEUED, "AgentAtLimit": WaitingReason.RATE_LIMIT}

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
        waiting=WaitingReason.DEPENDENCY,
    )


def awaiting(tasks: Sequence[str]) -> Outlook:
    """Other Tasks come first."""
    shown = ", ".join(tasks[:SHOWN]) + (f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else "")
    message = f"Waits until {'this Task is' if len(tasks) == 1 else 'these Tasks are'} accepted or skipped: {shown}"
    return Outlook(
        State.AWAITING_DEPENDENCY,
        Finding("Succeeded", "Unknown", "AwaitingDependency", message),
        _NOT_REVIEWED,
        _RESOLVED,
        working=message,
        stalled=None,
        transient=True,
        waiting=WaitingReason.DEPENDENCY,
    )


def backing_off(message: str, next_run_at: str, *, seconds: float) -> Outlook:
    """A run did not succeed; the next one waits its time, ``seconds`` from the end of the last."""
    return Outlook(
        State.RETRYING,
        Finding("Succeeded", "Unknown", "RetryBackoff", message),
        _NOT_REVIEWED,
        _RESOLVED,
        working=message,
        stalled=None,
        transient=seconds <= SHORT_WAIT,
        waiting=WaitingReason.RETRY_BACKOFF,
        next_run_at=next_run_at,
    )


def held(by: Sequence[str]) -> Outlook:
    """Somebody suspended it on purpose: it could go on, and will when they lift it."""
    message = suspension(by)
    return Outlook(
        State.BLOCKED,
        Finding("Succeeded", "Unknown", "Suspended", message),
        _NOT_REVIEWED,
        _RESOLVED,
        working=None,
        stalled=None,
        waiting=WaitingReason.HUMAN_INPUT,
        suspended=message,
    )


def suspension(by: Sequence[str]) -> str:
    """Who holds it, and how it is lifted."""
    return f"Suspended by {' and '.join(by)}: nothing is launched until spec.suspend is false there"


def awaiting_leave(leave: Leave, message: str) -> Outlook:
    """A person must give leave before the session is launched."""
    return Outlook(
        State.BLOCKED,
        Finding("Succeeded", "Unknown", "WaitingForApproval", message),
        _NOT_REVIEWED,
        _RESOLVED,
        working=message,
        stalled=None,
        waiting=WaitingReason.HUMAN_INPUT,
        leave=(leave, message),
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
        waiting=WaitingReason.HUMAN_INPUT,
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
        waiting=_QUEUEING.get(reason),
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


def finished(
    round_: int | None,
    review: str | None,
    failed: tuple[str, str] | None,
    skipped: tuple[str, str] | None = None,
) -> Outlook:
    """Accepted, failed, cancelled or skipped: nothing will be done any more."""
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
    if failed is None:
        assert skipped is not None
        return Outlook(
            State.SKIPPED,
            Finding("Succeeded", "True", *skipped),
            Finding("Reviewed", "Unknown", "NotProduced", "It was skipped: there are no outputs"),
            _RESOLVED,
            working=None,
            stalled=None,
            waiting=WaitingReason.CONDITION_FALSE if skipped[0] == "ConditionFalse" else None,
        )
    reason, message = failed
    rejected = reason == "ReworksExhausted"
    return Outlook(
        _end_state(reason),
        Finding("Succeeded", "False", reason, message),
        Finding("Reviewed", "False", "Rejected", message)
        if rejected
        else Finding("Reviewed", "False", "NotAccepted", "No output was accepted"),
        _RESOLVED,
        working=None,
        stalled=None,
    )


def _end_state(reason: str) -> State:
    if reason in CANCELLING_REASONS:
        return State.CANCELLED
    if reason in INVALIDATING_REASONS:
        return State.INVALIDATED
    return State.TIMED_OUT if reason in TIMED_OUT_REASONS else State.FAILED
