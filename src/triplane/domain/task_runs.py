"""Brings one session of a Task to a run that succeeds: launch, wait, back off, try again, give up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from triplane.api.meta import Subject
from triplane.domain import retry
from triplane.domain.conditions import rfc3339
from triplane.domain.retry import FailedRun, Failure
from triplane.domain.session import LIVE_RUN_STATES, HeldBy, Outcome, RunState, RunView
from triplane.domain.task_facts import Action, FailTask, Launch, LineUp, Placement, Plan, SessionFacts, TaskFacts
from triplane.domain.task_outlook import backing_off, in_run
from triplane.domain.verdict import VerdictVoid


def act(action: Action) -> Plan:
    """A step to take now; what is seen meanwhile says so."""
    return Plan(action, in_run("Working", "The operator is taking the next step", queued=True))


GOVERNED = frozenset({"AuthorityNarrowed", "AuthorityExpired", "PolicyDenied", "BudgetExceeded"})
"""Reasons of revocations that took a session what it had, and leave the Task to go on without it."""


def governed(revoked: str | None) -> bool:
    """Whether a session was revoked because it had more than it may have."""
    return revoked is not None and revoked.partition(":")[0] in GOVERNED


def succeeded(run: RunView) -> bool:
    """Whether the run is over and left what was asked."""
    return run.result is not None and run.result.outcome is Outcome.SUCCEEDED


def session_of(facts: TaskFacts, placement: Placement) -> SessionFacts | None:
    """The session that serves a placement: the one in force in this round, else the one whose frozen
    snapshot equals what would be frozen now. An edit mid-run disturbs no run; it opens the next one anew."""
    return serving(facts.sessions, placement, facts.expected_session.get(placement.key))


def serving(sessions: Sequence[SessionFacts], placement: Placement, expected: str | None) -> SessionFacts | None:
    """As ``session_of``; ``expected`` is the name of the session that would be frozen now."""
    if (session := in_force(sessions, placement)) is not None:
        return session
    return next((session for session in sessions if session.name == expected), None)


def in_force(sessions: Sequence[SessionFacts], placement: Placement) -> SessionFacts | None:
    """The session of a placement that has done the round's work, else the one at work on it.

    A permit that a runner may still take counts as work: a second one beside it would have it done twice.
    """
    at_work = None
    for session in sessions:
        if (session.role, session.agent_uid) != (placement.role, placement.agent_uid) or session.view is None:
            continue
        runs = [run for run in session.view.runs if run.run_inputs.get("round") == placement.round]
        if any(map(succeeded, runs)) and not isinstance(session.verdict, VerdictVoid):
            return session
        if at_work is None and any(map(_claimable_or_live, runs)):
            at_work = session
    return at_work


def to_show(sessions: Sequence[SessionFacts], placement: Placement | None) -> SessionFacts | None:
    """The session that people are pointed to: the one in force, else the Agent's that was at work last."""
    if placement is None:
        return None
    own = [each for each in sessions if (each.role, each.agent_uid) == (placement.role, placement.agent_uid)]
    return in_force(own, placement) or max(own, key=_at_work_last, default=None)


def _at_work_last(session: SessionFacts) -> tuple[int, str, str]:
    claimed = [run.claimed_at for run in session.view.runs if run.claimed_at] if session.view is not None else []
    return session.round, max(claimed, default=""), session.made_at or ""


def _claimable_or_live(run: RunView) -> bool:
    return run.state in LIVE_RUN_STATES or (run.state is RunState.PERMITTED and not run.permit_expired)


def produced_by(run: RunView) -> tuple[Subject, ...]:
    """What a run left, as verdicts name it."""
    outputs = run.result.outputs if run.result is not None else ()
    return tuple(Subject(name=output.name, digest=output.digest) for output in outputs)


@dataclass(frozen=True, slots=True)
class Settled:
    """A session has done the round's work, by this run."""

    succeeded: RunView


def drive(
    facts: TaskFacts, session: SessionFacts, placement: Placement, findings: tuple[str, ...]
) -> Plan | Settled | FailTask:
    """Bring one session to a succeeded run of this round: launch, wait, retry, or give up."""
    view, round_ = session.view, placement.round
    assert view is not None
    runs = [run for run in view.runs if run.run_inputs.get("round") == round_]
    last = runs[-1] if runs else None
    if view.revoked is not None and not governed(view.revoked):
        return FailTask("SessionRevoked", f"Session {session.name} was revoked: {view.revoked}", round_)
    if last is not None and last.state is RunState.PERMITTED and (session.wanted or view.passed_over):
        return act(Launch(session, last.run, round_, findings) if session.launchable else LineUp(session))
    if last is not None and (last.state is RunState.PERMITTED or last.state in LIVE_RUN_STATES):
        return Plan(None, in_run(*_waiting_for(session, last), queued=last.state is RunState.PERMITTED))
    if last is not None and succeeded(last) and not isinstance(session.verdict, VerdictVoid):
        return Settled(last)
    failed = failed_runs(facts.sessions, placement)
    if (latest := retry.latest(failed)) is not None:
        alike = sum(1 for item in failed if item.failure is latest.failure)
        if alike > retry.allowance(latest.failure, facts.task.spec.max_retries):
            return _given_up(latest, placement, alike)
        if (wait := _backing_off(facts, latest, alike)) is not None:
            return wait
    number = (view.last_run.run if view.last_run is not None else 0) + 1
    if not session.launchable and view.passed_over:
        return act(LineUp(session))
    if not session.launchable:
        return Plan(None, in_run(*_queued(session, number), queued=True))
    return act(Launch(session, number, round_, findings))


def failed_runs(sessions: Sequence[SessionFacts], placement: Placement) -> tuple[FailedRun, ...]:
    """Runs of the placement's round that did not succeed, over all its sessions. A producer's count whoever the
    Agent was; a reviewer that comes to nothing is replaced, so each has its own."""
    failed = []
    for session in sessions:
        if session.role != placement.role or session.view is None:
            continue
        if session.role == "reviewer" and session.agent_uid != placement.agent_uid:
            continue
        for run in session.view.runs:
            if run.run_inputs.get("round") != placement.round:
                continue
            failure = retry.failure_of(run, void=session.role == "reviewer")
            last = run is session.view.runs[-1]
            if failure is None or (last and succeeded(run) and not isinstance(session.verdict, VerdictVoid)):
                continue
            reason, message = _said_of(session, run)
            failed.append(FailedRun(session.name, session.uid, run, failure, reason, message))
    return tuple(failed)


def _said_of(session: SessionFacts, run: RunView) -> tuple[str, str]:
    if run.result is None:
        return "RunnerLost", run.end_reason or "its runner is gone"
    if not succeeded(run):
        return run.result.reason, run.result.message
    if isinstance(session.verdict, VerdictVoid):
        return session.verdict.reason, session.verdict.message
    return "VerdictMissing", "its verdict decided nothing"


def _given_up(latest: FailedRun, placement: Placement, alike: int) -> FailTask:
    if latest.failure is Failure.LOST:
        message = f"{alike} runs of {latest.session} were lost with their runners"
    else:
        message = f"Run {latest.run.run} of {latest.session} by {placement.agent_name} failed: {latest.message}"
    return FailTask(latest.reason, message, placement.round)


def _backing_off(facts: TaskFacts, latest: FailedRun, alike: int) -> Plan | None:
    """The wait before the next run, None once it is over."""
    policy = facts.task.spec.retry
    due = retry.due(policy, alike, latest)
    if due is None or facts.now is None or due <= facts.now.astimezone(UTC):
        return None
    did = "was lost" if latest.failure is Failure.LOST else "failed"
    at = rfc3339(due)
    message = (
        f"Run {latest.run.run} of session {latest.session} {did} ({latest.reason}: {latest.message[:512]}); the next "
        f"one may begin at {at}"
    )
    seconds = retry.delay(policy, alike, latest)
    return Plan(
        None, backing_off(message, at, seconds=seconds), after=(due - facts.now.astimezone(UTC)).total_seconds()
    )


def _waiting_for(session: SessionFacts, run: RunView) -> tuple[str, str]:
    assert session.view is not None
    agent = session.view.offer.agent_name
    match run.state:
        case RunState.PERMITTED:
            return _queued(session, run.run)
        case RunState.CLAIMED:
            return "Starting", f"Runner {run.runner} is preparing run {run.run} of agent {agent}"
        case _:
            return "Running", f"Agent {agent} is working: run {run.run} of session {session.name}"


def _queued(session: SessionFacts, run: int) -> tuple[str, str]:
    assert session.view is not None
    if session.view.held_by is HeldBy.AGENT_LIMIT:
        return (
            "AgentAtLimit",
            f"Run {run} of session {session.name} waits until Agent {session.view.offer.agent_name} has fewer sessions "
            "at work: its maxConcurrentSessions is reached",
        )
    return "Queued", f"Run {run} of session {session.name} waits for a free runner"
