"""Gates where a person's leave is needed beside a Task's reviews: to launch a session, and to call a tool.

Leave to launch is asked once per producing session, for exactly the snapshot that was frozen, before its first permit.
An edit that changes the snapshot makes another session, and leave is asked anew. What was asked and answered stands
in the log; the time-out runs from the entry that asked, by the clock of the stores.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from triplane.api.meta import ApprovalDefault, Gate, Subject
from triplane.domain.conditions import rfc3339
from triplane.domain.quorum import void_on_outputs
from triplane.domain.session import Question, RunState, SessionView
from triplane.domain.task_facts import (
    AnswerCalls,
    AnswerLaunch,
    AskLeave,
    FailTask,
    Placement,
    Plan,
    SessionFacts,
    TaskFacts,
)
from triplane.domain.task_outlook import Leave, awaiting_leave, blocked
from triplane.domain.task_runs import act, produced_by, session_of, succeeded
from triplane.domain.verdict import Matter, Moment, PersonReview, void_for

SNAPSHOT = "snapshot"
"""Name of the subject of leave to launch."""
NOTED = 8
"""Void Reviews told of in one message."""


def launch(facts: TaskFacts, session: SessionFacts, placement: Placement) -> Plan | None:
    """What must happen before this producing session gets its first permit; None: nothing, it may."""
    policy, view, round_ = facts.task.spec.approval, session.view, placement.round
    if policy is None or view is None or view.revoked is not None or _begun(view) or _given(facts, session):
        return None
    asked = facts.decisions.asked.get(session.uid)
    if asked is None:
        return act(AskLeave(session, round_))
    matter = _launch_matter(facts, session, placement)
    for item in facts.people_reviews:
        spent = item.uid in facts.decisions.counted  # leave is for one session: the next needs a word of its own
        if item.gate is Gate.LAUNCH and not spent and _void_on_launch(matter, item, round_) is None:
            return act(AnswerLaunch(session, round_, item))
    until = _until(facts, asked.at)
    left = (until - facts.now.astimezone(UTC)).total_seconds() if until is not None and facts.now is not None else None
    if left is not None and left <= 0 and until is not None:
        if policy.on_timeout is ApprovalDefault.APPROVE:
            return act(AnswerLaunch(session, round_, None))
        message = (
            f"Nobody of {', '.join(policy.people)} gave leave to launch session {session.name} by {rfc3339(until)}, "
            "and approval.onTimeout is Deny"
        )
        return act(FailTask("ApprovalTimedOut", message, round_))
    own = next((agent.users for agent in facts.agents if agent.uid == placement.agent_uid), frozenset[str]())
    free = [name for name in policy.people if name not in own]
    if not free or None in matter.controllers:
        why = f"everybody in approval.people ({', '.join(policy.people)}) controls the producing Agent or its Harness"
        if free:
            why = "the producing Agent or its Harness has no recorded controlling user"
        message = f"Nobody can give leave to launch session {session.name}: {why}; name somebody else there"
        return Plan(None, blocked("NoIndependentApprover", message), after=left)
    leave = Leave(Gate.LAUNCH, matter.subjects, asked.at, rfc3339(until) if until else None, tuple(free))
    said = f"Waiting for leave by {' or '.join(free)} to launch session {session.name} ({_said(matter.subjects)})"
    if until is not None:
        said += f"; at {rfc3339(until)} the default is {policy.on_timeout.value}"
    return Plan(None, awaiting_leave(leave, said), after=left)


def _begun(view: SessionView) -> bool:
    return any(run.state is not RunState.PERMITTED for run in view.runs)


def _given(facts: TaskFacts, session: SessionFacts) -> bool:
    assert session.view is not None
    digest = session.view.offer.snapshot_digest
    return any(
        item.gate is Gate.LAUNCH
        and item.session_uid == session.uid
        and any(subject.digest == digest for subject in item.subjects)
        for item in facts.decisions.approvals
    )


def _until(facts: TaskFacts, asked_at: str) -> datetime | None:
    policy = facts.task.spec.approval
    if policy is None or policy.timeout_seconds is None:
        return None
    return datetime.fromisoformat(asked_at).astimezone(UTC) + timedelta(seconds=policy.timeout_seconds)


def launch_subjects(session: SessionFacts) -> tuple[Subject, ...]:
    """What leave to launch is given for."""
    assert session.view is not None
    return (Subject(name=SNAPSHOT, digest=session.view.offer.snapshot_digest),)


def _launch_matter(facts: TaskFacts, session: SessionFacts, placement: Placement) -> Matter:
    policy, asked = facts.task.spec.approval, facts.decisions.asked[session.uid]
    assert policy is not None
    until = _until(facts, asked.at)
    return Matter(
        subjects=launch_subjects(session),
        since=Moment(session.made_at, asked.seq),
        people=tuple(policy.people),
        where="spec.approval.people",
        controllers=frozenset((placement.principal, placement.harness_principal)),
        until=rfc3339(until) if until is not None else None,
    )


def _void_on_launch(matter: Matter, item: PersonReview, round_: int) -> str | None:
    if item.round != round_:
        return f"Review {item.name} is for round {item.round}; leave to launch is asked in round {round_}"
    return void_for(item, matter)


def open_calls(session: SessionFacts, now: datetime | None) -> tuple[Question, ...]:
    """Calls of its tools that wait for a person now."""
    return tuple(item for item in session.questions if item.answer is None and now is not None and now < item.until)


def answer_calls(facts: TaskFacts) -> AnswerCalls | None:
    """The next answer a person has given to a call that waits."""
    for session in facts.sessions:
        waiting = open_calls(session, facts.now)
        for item in facts.people_reviews if waiting else ():
            named = tuple(question for question in waiting if question.invocation in {s.name for s in item.subjects})
            if item.gate is Gate.TOOL and named and _void_on_calls(facts, session, named, item) is None:
                return AnswerCalls(session, named, item)
    return None


def _void_on_calls(
    facts: TaskFacts, session: SessionFacts, named: Sequence[Question], item: PersonReview
) -> str | None:
    if item.uid in facts.decisions.counted and not _answered_by(facts, session, named, item):
        # Sessions count their calls alike, so the same call of the next one has the same name and digest.
        return f"Review {item.name} has answered another call; this one needs a word of its own"
    placement = next(
        (
            placed
            for placed in reversed(facts.decisions.placements)
            if (placed.role, placed.agent_uid) == (session.role, session.agent_uid)
        ),
        None,
    )
    if placement is None:
        return f"Review {item.name}: nobody was placed to make that call"
    people = set[str](named[0].approvers).intersection(*(question.approvers for question in named))
    matter = Matter(
        subjects=tuple(Subject(name=question.invocation, digest=question.digest) for question in named),
        since=Moment(session.made_at),
        people=tuple(sorted(people)),
        where="the Tool's approvers",
        controllers=frozenset((placement.principal, placement.harness_principal)),
    )
    return void_for(item, matter)


def _answered_by(facts: TaskFacts, session: SessionFacts, named: Sequence[Question], item: PersonReview) -> bool:
    """Whether the log has it as the answer to these calls: a crash came before they were told."""
    answered = facts.decisions.answered
    return all(answered.get(f"{session.uid}.{question.invocation}") == item.uid for question in named)


def calling(facts: TaskFacts, plan: Plan) -> Plan:
    """The same wait, while calls of tools wait for a person too."""
    for session in facts.sessions:
        if waiting := open_calls(session, facts.now):
            return Plan(None, plan.outlook.calling(*_call_leave(waiting)), after=_shorter(facts, waiting, plan.after))
    return plan


def _call_leave(waiting: Sequence[Question]) -> tuple[Leave, str]:
    subjects = tuple(Subject(name=item.invocation, digest=item.digest) for item in waiting)
    since, until = min(item.asked_at for item in waiting), min(item.until for item in waiting)
    people = tuple(sorted({name for item in waiting for name in item.approvers}))
    calls = ", ".join(f"{item.tool} ({item.invocation} {item.digest})" for item in waiting[:NOTED])
    leave = Leave(Gate.TOOL, subjects, rfc3339(since.astimezone(UTC)), rfc3339(until.astimezone(UTC)), people)
    return leave, f"Waiting for leave by {' or '.join(people)} to call {calls}"


def _shorter(facts: TaskFacts, waiting: Sequence[Question], after: float | None) -> float | None:
    assert facts.now is not None
    left = min((item.until - facts.now).total_seconds() for item in waiting)
    return left if after is None else min(after, left)


def void_reviews(facts: TaskFacts) -> tuple[str, ...]:
    """Why each Review of a person decided nothing, the latest first; those that counted are left out."""
    said = (_void(facts, item) for item in reversed(facts.people_reviews))
    return tuple(reason for reason in said if reason is not None)[:NOTED]


def _void(facts: TaskFacts, item: PersonReview) -> str | None:
    decisions = facts.decisions
    if item.uid in decisions.counted or any(
        question.review == item.uid for session in facts.sessions for question in session.questions
    ):
        return None
    if decisions.over:
        return f"Review {item.name} decides nothing: the Task is over"
    round_ = len(decisions.rejected) + 1
    placement = decisions.latest("producer", round_)
    session = session_of(facts, placement) if placement is not None else None
    match item.gate:
        case Gate.TOOL:
            return _void_call(facts, item)
        case Gate.LAUNCH:
            if placement is None or session is None or session.uid not in decisions.asked or _given(facts, session):
                return f"Review {item.name} gives leave to launch, for which nobody asks now"
            return _void_on_launch(_launch_matter(facts, session, placement), item, round_)
        case Gate.OUTPUTS:
            produced = _produced(facts, session, round_)
            if item.round == round_ and (placement is None or produced is None):
                return f"Review {item.name} was made before round {round_} had outputs; make another when it has"
            if placement is None:
                return f"Review {item.name} is for round {item.round}; round {round_} is open"
            return void_on_outputs(facts, placement, produced or (), item)


def _void_call(facts: TaskFacts, item: PersonReview) -> str | None:
    names = {subject.name for subject in item.subjects}
    for session in facts.sessions:
        named = [question for question in open_calls(session, facts.now) if question.invocation in names]
        if named:
            return _void_on_calls(facts, session, named, item)
    return f"Review {item.name} answers a call of a tool that does not wait for leave now"


def _produced(facts: TaskFacts, session: SessionFacts | None, round_: int) -> tuple[Subject, ...] | None:
    """The recorded outputs of the round; None while there are none."""
    for run in session.view.runs if session is not None and session.view is not None else ():
        if run.run_inputs.get("round") == round_ and succeeded(run) and session is not None:
            subjects = produced_by(run)
            if all((session.uid, run.run, subject.name) in facts.artifacts for subject in subjects):
                return subjects
    return None


def _said(subjects: Sequence[Subject]) -> str:
    return ", ".join(f"{subject.name} {subject.digest}" for subject in subjects)
