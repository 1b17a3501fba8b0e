"""A person's leave before a session is launched, and before a tool is called."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.domain.task_world import DIGEST, World, task
from tests.unit.domain.test_task_review import by

from triplane.api.meta import Gate, State, Subject, Verdict, WaitingReason
from triplane.domain.conditions import rfc3339
from triplane.domain.session import Question, RunState
from triplane.domain.task import decide
from triplane.domain.task_facts import AnswerCalls, AnswerLaunch, AskLeave, FailTask, Launch
from triplane.domain.verdict import Moment, PersonReview

SNAPSHOT = (Subject(name="snapshot", digest=DIGEST),)
OTHER = "sha256:" + "c" * 64


def gated(**approval: Any) -> World:
    return World(task=task(approval={"people": ["bob"], **approval}))


def leave(user: str = "bob", **changes: Any) -> PersonReview:
    return by(user, gate=Gate.LAUNCH, **{"subjects": SNAPSHOT, **changes})


def launched(world: World) -> int:
    return sum(isinstance(step, Launch) for step in world.history)


def test_nothing_is_launched_before_leave_is_given_and_then_it_goes_on() -> None:
    world = gated()
    plan = world.advance()
    assert launched(world) == 0
    assert isinstance(world.history[-1], AskLeave)
    assert plan.outlook.state is State.BLOCKED
    assert plan.outlook.waiting is WaitingReason.HUMAN_INPUT
    assert plan.outlook.leave is not None
    assert plan.outlook.leave[0].subjects == SNAPSHOT
    assert plan.outlook.leave[0].people == ("bob",)
    findings = {item.type: item for item in plan.outlook.findings()}
    assert findings["WaitingForApproval"].status == "True"
    world.people = (leave(),)
    plan = world.advance()
    assert launched(world) == 1
    assert plan.outlook.leave is None
    assert "WaitingForApproval" not in {item.type for item in plan.outlook.findings()}


def test_leave_is_asked_once_however_often_it_is_looked_at() -> None:
    world = gated()
    world.advance()
    world.advance()
    assert sum(isinstance(step, AskLeave) for step in world.history) == 1


def test_a_refusal_ends_the_task_with_its_findings() -> None:
    world = gated()
    world.advance()
    world.people = (leave(verdict=Verdict.REJECT, findings=("not this quarter",)),)
    plan = world.advance()
    assert plan.outlook.state is State.FAILED
    assert world.decisions.failed == ("ApprovalDenied", "not this quarter")
    assert launched(world) == 0


@pytest.mark.parametrize(
    ("review", "says"),
    [
        pytest.param(leave("eve"), "not in spec.approval.people", id="somebody else"),
        pytest.param(leave("alice"), "controls the producing Agent", id="the Agent's own user"),
        pytest.param(leave(subjects=(Subject(name="snapshot", digest=OTHER),)), "the verdict is on", id="other digest"),
        pytest.param(leave(round=2), "leave to launch is asked in round 1", id="another round"),
        pytest.param(leave(username=None, principal=None), "no authenticated requester", id="no stamp"),
        pytest.param(leave(made=Moment(seq=0)), "before there was anything", id="before it was asked"),
        pytest.param(by("bob"), "before round 1 had outputs", id="the gate of outputs"),
    ],
)
def test_leave_that_does_not_count_says_why(review: PersonReview, says: str) -> None:
    world = gated(people=["bob", "alice"])
    world.advance()
    world.people = (review,)
    plan = world.advance()
    assert launched(world) == 0
    assert says in plan.outlook.succeeded.message


def test_when_the_time_is_up_the_default_denies() -> None:
    world = gated(timeoutSeconds=60)
    plan = world.advance()
    assert plan.after == pytest.approx(60)
    world.pass_(59)
    assert world.advance().outlook.state is State.BLOCKED
    world.pass_(1)
    assert world.advance().outlook.state is State.FAILED
    assert isinstance(world.history[-1], FailTask)
    assert world.decisions.failed is not None
    assert world.decisions.failed[0] == "ApprovalTimedOut"


def test_the_default_may_approve_and_that_is_recorded_as_nobody_s_word() -> None:
    world = gated(timeoutSeconds=60, onTimeout="Approve")
    world.advance()
    world.pass_(61)
    world.advance()
    answers = [step for step in world.history if isinstance(step, AnswerLaunch)]
    assert [step.review for step in answers] == [None]
    assert launched(world) == 1


def test_leave_given_after_the_time_is_late() -> None:
    world = gated(timeoutSeconds=60)
    world.advance()
    world.pass_(120)
    world.people = (leave(made=Moment(rfc3339(world.now))),)
    assert world.advance().outlook.state is State.FAILED


def test_leave_given_in_time_counts_though_the_operator_looked_later() -> None:
    world = gated(timeoutSeconds=60)
    world.advance()
    world.people = (leave(made=Moment(rfc3339(world.now + timedelta(seconds=30)))),)
    world.pass_(3600)
    world.advance()
    assert launched(world) == 1


def test_a_new_snapshot_needs_new_leave_and_the_old_one_is_void() -> None:
    world = gated()
    world.advance()
    world.people = (leave(),)
    world.launchable = False
    world.advance()
    world.snapshot = "s2"
    for name, session in list(world.sessions.items()):
        assert session.view is not None
        runs = tuple(replace(run, permit_expired=True) for run in session.view.runs)
        world.sessions[name] = replace(session, view=replace(session.view, runs=runs))
    before = launched(world)
    plan = world.advance()
    assert plan.outlook.succeeded.reason == "WaitingForApproval"
    assert plan.outlook.leave is not None
    assert plan.outlook.leave[0].subjects == (Subject(name="snapshot", digest=OTHER),)
    assert launched(world) == before
    world.people += (leave(uid="again"),)
    assert "the verdict is on" in world.advance().outlook.succeeded.message
    assert sum(isinstance(step, AskLeave) for step in world.history) == 2


def test_rework_and_retries_of_the_same_session_need_no_further_leave() -> None:
    world = gated()
    world.advance()
    world.people = (leave(),)
    world.advance()
    world.end_run("producer")
    world.advance()
    world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",))
    world.advance()
    assert launched(world) == 3
    assert sum(isinstance(step, AskLeave) for step in world.history) == 1


def test_people_who_all_control_the_agent_stall_it() -> None:
    plan = gated(people=["alice"]).advance()
    assert plan.outlook.stalled is not None
    assert plan.outlook.stalled[0] == "NoIndependentApprover"


def asking(world: World, **changes: Any) -> None:
    """The session at work asks to call a tool."""
    name, session = next(iter(world.sessions.items()))
    view = session.view
    assert view is not None
    runs = (*view.runs[:-1], replace(view.runs[-1], state=RunState.STARTED))
    values: dict[str, Any] = {
        "session_uid": session.uid, "run": 1, "invocation": "call-1", "digest": DIGEST, "tool": "mail/send",
        "approvers": ("bob",), "asked_at": world.now, "until": world.now + timedelta(seconds=30),
    }  # fmt: skip
    question = Question(**{**values, **changes})
    world.sessions[name] = replace(session, view=replace(view, runs=runs), questions=(question,))


def call_leave(user: str = "bob", **changes: Any) -> PersonReview:
    return by(user, gate=Gate.TOOL, **{"subjects": (Subject(name="call-1", digest=DIGEST),), **changes})


@pytest.mark.parametrize("verdict", [Verdict.APPROVE, Verdict.REJECT])
def test_a_call_that_waits_is_shown_and_answered(verdict: Verdict) -> None:
    world = World()
    world.advance()
    asking(world)
    plan = world.advance()
    assert plan.outlook.state is State.RUNNING
    assert plan.outlook.leave is not None
    assert plan.outlook.leave[0].gate is Gate.TOOL
    assert "mail/send" in plan.outlook.leave[1]
    assert plan.after == pytest.approx(30)
    world.people = (call_leave(verdict=verdict, findings=("why?",)),)
    plan = world.advance()
    assert plan.outlook.leave is None
    (answer,) = [step for step in world.history if isinstance(step, AnswerCalls)]
    assert answer.review.verdict is verdict


@pytest.mark.parametrize(
    ("review", "says"),
    [
        pytest.param(call_leave("eve"), "not in the Tool's approvers", id="somebody else"),
        pytest.param(
            call_leave(subjects=(Subject(name="call-1", digest=OTHER),)), "the verdict is on", id="other arguments"
        ),
        pytest.param(
            call_leave(subjects=(Subject(name="call-2", digest=DIGEST),)), "does not wait for leave", id="another call"
        ),
        pytest.param(call_leave("alice"), "controls the producing Agent", id="the Agent's own user"),
    ],
)
def test_leave_to_call_that_does_not_count_says_why(review: PersonReview, says: str) -> None:
    world = World()
    world.advance()
    asking(world, approvers=("bob", "alice"))
    world.people = (review,)
    plan = world.advance()
    assert not any(isinstance(step, AnswerCalls) for step in world.history)
    assert says in plan.outlook.succeeded.message


def test_a_question_past_its_time_is_no_longer_asked() -> None:
    world = World()
    world.advance()
    asking(world)
    world.pass_(31)
    assert decide(world.facts()).outlook.leave is None
