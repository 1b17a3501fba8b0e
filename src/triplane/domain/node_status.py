"""What a Node's status says: the sum of its steps, small enough for an API object, and quiet.

It is made of the steps' states and reasons, not of their messages: an agent that goes from one sentence to the next
must not cost a write of the Node.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triplane.api.meta import PHASE_OF, TERMINAL, State, WaitingReason
from triplane.domain.conditions import Finding, progress_findings
from triplane.domain.node_steps import StepFacts, fit

MAX_ACTIVE = 32
MAX_MESSAGE = 1024
NAMED = 5
"""Steps that a message names."""

_FIRST = (
    State.RUNNING,
    State.STREAMING,
    State.REVIEWING,
    State.RETRYING,
    State.QUEUED,
    State.PENDING,
    State.BLOCKED,
    State.AWAITING_DEPENDENCY,
)
"""The Node is in the first of these states that one of its unfinished steps is in."""
_AT_WORK = frozenset({State.RUNNING, State.STREAMING, State.REVIEWING})
_BETWEEN = frozenset({State.PENDING, State.QUEUED, State.AWAITING_DEPENDENCY})
"""States of the next step in which a Node that has steps behind it is running all the same."""
_ROOTS = frozenset({State.FAILED, State.TIMED_OUT})
_WORDS: Mapping[State, str] = {
    State.AWAITING_DEPENDENCY: "waiting for others",
    State.REVIEWING: "in review",
    State.RETRYING: "waiting to be tried again",
}


@dataclass(frozen=True, slots=True)
class NodeOutlook:
    """State and conditions of a Node, and its steps; times come from the steps."""

    state: State
    findings: tuple[Finding, ...]
    steps: tuple[StepFacts, ...] = ()
    waiting_reason: str | None = None

    @property
    def over(self) -> bool:
        """Nothing will be done any more."""
        return self.state in TERMINAL

    def fields(self) -> dict[str, Any]:
        """The status but for conditions and for what only the controller knows."""
        over = sum(1 for step in self.steps if step.state in TERMINAL)
        started = min((step.started_at for step in self.steps if step.started_at), default=None)
        completed = max((step.completed_at for step in self.steps if step.completed_at), default=None)
        if not self.over:
            completed = None
        return {
            "phase": PHASE_OF[self.state].value,
            "state": self.state.value,
            "waitingReason": self.waiting_reason,
            "steps": fit([step.row() for step in self.steps]),
            "active": [step.name for step in self.steps if step.state in _AT_WORK][:MAX_ACTIVE],
            "progress": f"{over}/{len(self.steps)}" if self.steps else None,
            "startedAt": started,
            "completedAt": completed,
            "durationSeconds": _seconds(started, completed),
            "tokens": sum(step.tokens for step in self.steps),
            "costMinorUnits": sum(step.cost_minor_units for step in self.steps),
        }


def waiting(reason: str, message: str, *, state: State = State.AWAITING_DEPENDENCY, refs: bool = False) -> NodeOutlook:
    """It cannot begin yet; ``refs`` tells whether all that it names is there."""
    return NodeOutlook(
        state,
        (
            Finding("Succeeded", "Unknown", reason, message),
            _RESOLVED if refs else Finding("ResolvedRefs", "False", reason, message),
            *progress_findings(working=f"Waiting: {message}", stalled=None),
        ),
        waiting_reason=(WaitingReason.QUEUED if state is State.QUEUED else WaitingReason.DEPENDENCY).value,
    )


def blocked(reason: str, message: str) -> NodeOutlook:
    """Nothing moves until somebody acts."""
    return NodeOutlook(
        State.BLOCKED,
        (
            Finding("Succeeded", "Unknown", reason, message),
            _RESOLVED,
            *progress_findings(working=None, stalled=(reason, message)),
        ),
        waiting_reason=WaitingReason.HUMAN_INPUT.value,
    )


def suspended(message: str) -> NodeOutlook:
    """It has not begun, because somebody holds it back on purpose."""
    return NodeOutlook(
        State.BLOCKED,
        (
            Finding("Succeeded", "Unknown", "Suspended", message),
            _RESOLVED,
            *progress_findings(working=None, stalled=None),
            Finding("Suspended", "True", "Suspended", message),
        ),
        waiting_reason=WaitingReason.HUMAN_INPUT.value,
    )


def cancelled(reason: str, message: str) -> NodeOutlook:
    """It ended before it began, or without being known what it was to do."""
    return NodeOutlook(
        State.CANCELLED,
        (Finding("Succeeded", "False", reason, message), _RESOLVED, *progress_findings(working=None, stalled=None)),
    )


def roll_up(
    steps: Sequence[StepFacts], *, halted: tuple[str, str] | None = None, suspended: str | None = None
) -> NodeOutlook:
    """The sum of the steps. ``halted`` is why the Node was cut short, ``suspended`` what holds it back."""
    if all(step.state in TERMINAL for step in steps):
        return _finished(steps, halted)
    state, leading = _state(steps)
    stalled = None
    if leading.stalled and state is State.BLOCKED:
        stalled = (leading.reason, _cut(f"Step {leading.name} (Task {leading.task}): {leading.message}"))
    reason = stalled[0] if stalled else leading.reason if state is leading.state else "Running"
    message = stalled[1] if stalled else _progress(steps)
    held = () if suspended is None else (Finding("Suspended", "True", "Suspended", f"{suspended} suspends it"),)
    return NodeOutlook(
        state,
        (
            Finding("Succeeded", "Unknown", reason, message),
            _RESOLVED,
            *progress_findings(working=None if stalled else message, stalled=stalled),
            *held,
        ),
        tuple(steps),
        waiting_reason=leading.waiting_reason if state is leading.state else None,
    )


def _state(steps: Sequence[StepFacts]) -> tuple[State, StepFacts]:
    """The state of the Node, and the step it has it from."""
    begun = any(step.state in TERMINAL for step in steps)
    unfinished = [step for step in steps if step.state not in TERMINAL]
    rank = {state: place for place, state in enumerate(_FIRST)}
    # Of several blocked steps the one that somebody must do something about speaks.
    leading = min(unfinished, key=lambda step: (rank[step.state], not step.stalled))
    state = State.RUNNING if begun and leading.state in _BETWEEN else leading.state
    return state, leading


def _finished(steps: Sequence[StepFacts], halted: tuple[str, str] | None) -> NodeOutlook:
    states = [step.state for step in steps]
    if all(state in (State.COMPLETED, State.SKIPPED) for state in states):
        state = State.COMPLETED if State.COMPLETED in states or not states else State.SKIPPED
        status, reason = "True", "Accepted" if state is State.COMPLETED else steps[0].reason
        message = _counted(steps)
    else:
        status = "False"
        state, reason, message = _undone(steps, halted)
    return NodeOutlook(
        state,
        (
            Finding("Succeeded", status, reason, _cut(message)),
            _RESOLVED,
            *progress_findings(working=None, stalled=None),
        ),
        tuple(steps),
    )


def _undone(steps: Sequence[StepFacts], halted: tuple[str, str] | None) -> tuple[State, str, str]:
    """How a Node ended of which not every step was accepted or skipped, by the steps that began it."""
    roots = [step for step in steps if step.state in _ROOTS]
    if not roots:
        stopped = [step for step in steps if step.state is State.CANCELLED]
        if not stopped:  # only what it depends on outside of this Node failed
            roots = [step for step in steps if step.state is State.INVALIDATED]
        elif halted is not None:
            return State.CANCELLED, halted[0], f"{halted[1]}; {_counted(steps)}"
        else:
            return State.CANCELLED, stopped[0].reason, f"{_named(stopped)}; {_counted(steps)}"
    if halted is not None and halted[0] != "FailFast":
        return State.CANCELLED, halted[0], f"{halted[1]}; {_named(roots)}; {_counted(steps)}"
    timed_out = all(step.state is State.TIMED_OUT for step in roots)
    reason = halted[0] if halted is not None else roots[0].reason if len(roots) == 1 else "StepsFailed"
    return State.TIMED_OUT if timed_out else State.FAILED, reason, f"{_named(roots)}; {_counted(steps)}"


def _named(steps: Sequence[StepFacts]) -> str:
    """The first of the steps with their reasons, and what the first says."""
    names = ", ".join(f"{step.name} ({step.reason})" for step in steps[:NAMED])
    more = f" and {len(steps) - NAMED} more" if len(steps) > NAMED else ""
    verb = "was cancelled" if steps[0].state is State.CANCELLED else "failed"
    said = f": {steps[0].message[:512]}" if steps[0].message else ""
    return f"Step {names}{more} {verb}{said}"


def _progress(steps: Sequence[StepFacts]) -> str:
    at_work = [step.name for step in steps if step.state in _AT_WORK]
    if not at_work:
        return _counted(steps)
    more = f" and {len(at_work) - NAMED} more" if len(at_work) > NAMED else ""
    return f"{_counted(steps)}; at work: {', '.join(at_work[:NAMED])}{more}"


def _counted(steps: Sequence[StepFacts]) -> str:
    """``3 of 5 steps completed, 1 running, 1 waiting for others``."""
    counts = Counter(step.state for step in steps)
    done = counts.pop(State.COMPLETED, 0)
    rest = (f"{counts[state]} {_WORDS.get(state, state.value.replace('_', ' '))}" for state in State if counts[state])
    return ", ".join([f"{done} of {len(steps)} steps completed", *rest])


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _seconds(started: str | None, completed: str | None) -> int:
    if started is None or completed is None:
        return 0
    return max(0, int((datetime.fromisoformat(completed) - datetime.fromisoformat(started)).total_seconds()))


_RESOLVED = Finding("ResolvedRefs", "True", "ResolvedRefs", "Every reference resolves")
