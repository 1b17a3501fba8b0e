"""What an AgentSession's status says: a projection of the session store, nothing decided here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triplane.api.meta import State
from triplane.domain.conditions import Finding, progress_findings
from triplane.domain.session import Outcome, RunState, RunView, SessionView

STATE_OF_OUTCOME: Mapping[Outcome, State] = {
    Outcome.SUCCEEDED: State.COMPLETED,
    Outcome.FAILED: State.FAILED,
    Outcome.REFUSED: State.FAILED,
    Outcome.TIMED_OUT: State.TIMED_OUT,
    Outcome.CANCELLED: State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class SessionOutlook:
    """State and conditions of an AgentSession, without times."""

    state: State
    findings: tuple[Finding, ...]
    transient: bool


def outlook(view: SessionView) -> SessionOutlook:
    """From the last run; a session without one is pending."""
    run = view.last_run
    state, reason, message = _standing(view, run)
    transient = state in (State.QUEUED, State.RETRYING, State.PENDING)
    over = state in (State.COMPLETED, State.FAILED, State.TIMED_OUT, State.CANCELLED)
    status = "True" if state is State.COMPLETED else "False" if over else "Unknown"
    progress = progress_findings(working=None if over else message, stalled=None)
    return SessionOutlook(state, (Finding("Succeeded", status, reason, message), _isolated(run), *progress), transient)


def _standing(view: SessionView, run: RunView | None) -> tuple[State, str, str]:
    if view.revoked is not None:
        return State.CANCELLED, "Revoked", f"The session was revoked: {view.revoked}"
    if run is None:
        return State.PENDING, "Offered", "Waiting for the operator's launch permit"
    match run.state:
        case RunState.PERMITTED:
            return State.QUEUED, "Queued", f"Run {run.run} waits for a free runner"
        case RunState.CLAIMED:
            return State.QUEUED, "Starting", f"Runner {run.runner} is preparing run {run.run}"
        case RunState.STARTED:
            return State.RUNNING, "Running", f"Run {run.run} is at work on runner {run.runner}"
        case RunState.LOST:
            return (
                State.RETRYING,
                "RunnerLost",
                f"Run {run.run} was lost: {run.end_reason}; a new run follows",
            )
        case RunState.REVOKED:
            return State.CANCELLED, "Revoked", f"Run {run.run} was revoked: {run.end_reason}"
        case _:
            result = run.result
            assert result is not None
            return STATE_OF_OUTCOME[result.outcome], result.reason, result.message


def _isolated(run: RunView | None) -> Finding:
    facts = run.facts if run is not None else {}
    if "isolated" not in facts:
        return Finding("Isolated", "Unknown", "NotStarted", "No run has started yet")
    how = str(facts.get("isolation") or "a sandbox")
    if facts["isolated"]:
        return Finding("Isolated", "True", "Sandboxed", f"The harness runs in {how}"[:1024])
    return Finding("Isolated", "False", "NoSandbox", f"The harness is not isolated: {how}"[:1024])


def summary(view: SessionView) -> dict[str, Any]:
    """The other status fields: run, runner, times, outputs, reflection, tokens, cost."""
    run = view.last_run
    results = [item.result for item in view.runs if item.result is not None]
    result = run.result if run is not None else None
    return {
        "run": run.run if run is not None else 0,
        "runner": run.runner if run is not None else None,
        **_times(run),
        "outputs": [
            {"name": out.name, "digest": out.digest, "mediaType": out.media_type, "size": out.size}
            for out in (result.outputs if result is not None else ())
        ],
        "reflection": result.reflection if result is not None else None,
        "tokens": sum(item.usage.tokens for item in results),
        "costMinorUnits": sum(item.usage.cost_minor_units for item in results),
    }


def _times(run: RunView | None) -> dict[str, Any]:
    """When the run's program ran. The first octet is told once the run is over: no write for it alone."""
    started = run.started_at if run is not None else None
    ended = run.ended_at if run is not None else None
    first = run.first_record_at if run is not None and ended is not None else None
    return {
        "startedAt": started,
        "endedAt": ended,
        "durationMilliseconds": _milliseconds(started, ended),
        "firstByteMilliseconds": _milliseconds(started, first),
    }


def _milliseconds(since: str | None, until: str | None) -> int | None:
    if since is None or until is None:
        return None
    passed = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    return max(0, round(passed.total_seconds() * 1000))  # a clock that was set back makes no negative time
