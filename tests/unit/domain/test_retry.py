"""Retries: whose doing a failure is, how long is waited, and when it is given up."""

from datetime import datetime, timedelta

import pytest
from tests.unit.domain.task_world import World, agent, task

from triplane.api.meta import State, Verdict, WaitingReason
from triplane.api.work import RetryPolicy
from triplane.domain import retry
from triplane.domain.retry import FailedRun, Failure
from triplane.domain.session import Outcome, RunResult, RunState, RunView
from triplane.domain.task_facts import FailTask, Launch


def run(state: RunState = RunState.FINISHED, outcome: Outcome | None = None, reason: str = "HarnessFailed") -> RunView:
    result = RunResult(outcome, reason, "") if outcome is not None else None
    return RunView(1, state, 1, False, result=result, ended_at="2026-03-01T12:00:00.000000Z")


@pytest.mark.parametrize(
    ("view", "void", "failure"),
    [
        pytest.param(run(outcome=Outcome.FAILED), False, Failure.AGENT, id="the program failed"),
        pytest.param(run(outcome=Outcome.TIMED_OUT, reason="TimedOut"), False, Failure.AGENT, id="it took too long"),
        pytest.param(run(outcome=Outcome.SUCCEEDED), True, Failure.AGENT, id="its verdict is void"),
        pytest.param(run(outcome=Outcome.SUCCEEDED), False, None, id="it succeeded"),
        pytest.param(run(outcome=Outcome.REFUSED, reason="ProgramNotApproved"), False, Failure.REFUSED, id="refused"),
        pytest.param(run(outcome=Outcome.FAILED, reason="HostFailed"), False, Failure.REFUSED, id="the host failed"),
        pytest.param(run(RunState.LOST), False, Failure.LOST, id="lost with its runner"),
        pytest.param(run(RunState.STARTED), False, None, id="still at work"),
        pytest.param(run(RunState.PERMITTED), False, None, id="not begun"),
    ],
)
def test_whose_doing_a_failure_is(view: RunView, void: bool, failure: Failure | None) -> None:
    assert retry.failure_of(view, void=void) is failure


def _failed(uid: str = "u", number: int = 1) -> FailedRun:
    view = RunView(number, RunState.LOST, 1, False, ended_at="2026-03-01T12:00:00.000000Z")
    return FailedRun("s", uid, view, Failure.LOST, "RunnerLost", "")


@pytest.mark.parametrize(("failures", "whole"), [(1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (1000, 300)])
def test_waits_double_up_to_the_longest(failures: int, whole: int) -> None:
    wait = retry.delay(RetryPolicy(), failures, _failed())
    assert whole * (1 - retry.JITTER) <= wait <= whole


def test_waits_differ_between_sessions_but_not_between_askings() -> None:
    waits = {retry.delay(RetryPolicy(), 9, _failed(f"u{number}")) for number in range(100)}
    assert len(waits) == 100
    assert max(waits) - min(waits) > 40
    assert retry.delay(RetryPolicy(), 9, _failed("u7")) in waits


def test_no_backoff_means_at_once() -> None:
    policy = RetryPolicy.model_validate({"backoffSeconds": 0})
    assert retry.due(policy, 3, _failed()) == datetime.fromisoformat("2026-03-01T12:00:00Z")


WAITING = {"backoffSeconds": 100, "maxBackoffSeconds": 1000}


def test_the_next_run_waits_and_says_until_when() -> None:
    world = World(task=task(maxRetries=2, retry=WAITING))
    world.advance()
    world.end_run("producer", Outcome.FAILED)
    plan = world.advance()
    assert (plan.outlook.state, plan.outlook.waiting) == (State.RETRYING, WaitingReason.RETRY_BACKOFF)
    assert plan.after is not None
    assert 80 <= plan.after <= 100
    assert plan.outlook.next_run_at is not None
    due = world.now + timedelta(seconds=plan.after)
    assert datetime.fromisoformat(plan.outlook.next_run_at) == due.replace(microsecond=0)
    assert "HarnessFailed: it failed" in plan.outlook.succeeded.message
    assert not plan.outlook.transient
    world.pass_(plan.after / 2)
    later = world.advance()
    assert later.after == pytest.approx(plan.after / 2)
    assert later.outlook == plan.outlook, "a wait is written once"
    world.pass_(later.after)
    assert world.advance().outlook.state is State.QUEUED
    world.end_run("producer", Outcome.FAILED)
    again = world.advance()
    assert again.after is not None
    assert 160 <= again.after <= 200


def test_a_short_wait_is_not_worth_a_status_write() -> None:
    world = World(task=task(retry={"backoffSeconds": 2}))
    world.advance()
    world.end_run("producer", Outcome.FAILED)
    assert world.advance().outlook.transient


def test_a_clock_that_went_back_only_makes_the_wait_longer() -> None:
    world = World(task=task(retry=WAITING))
    world.advance()
    world.end_run("producer", Outcome.FAILED)
    world.pass_(-3600)
    plan = world.advance()
    assert plan.outlook.state is State.RETRYING
    assert plan.after is not None
    assert plan.after > 3600


@pytest.mark.parametrize(
    ("fail", "allowed", "reason"),
    [
        pytest.param(lambda world: world.end_run("producer", Outcome.FAILED), 3, "HarnessFailed", id="by the agent"),
        pytest.param(lambda world: world.lose_run("producer"), retry.MAX_LOST_RUNS, "RunnerLost", id="lost"),
        pytest.param(
            lambda world: world.end_run("producer", Outcome.REFUSED, reason="ProgramNotApproved"),
            retry.MAX_REFUSED_RUNS, "ProgramNotApproved", id="refused",
        ),
    ],
)  # fmt: skip
def test_each_sort_of_failure_has_its_own_allowance(fail, allowed: int, reason: str) -> None:  # type: ignore[no-untyped-def]
    world = World(task=task(maxRetries=3))
    for _ in range(allowed):
        world.advance()
        fail(world)
        assert world.advance().outlook.state is State.QUEUED
    fail(world)
    end = world.advance(limit=3)
    assert (end.outlook.state, end.outlook.succeeded.reason) == (State.FAILED, reason)


def test_what_the_infrastructure_did_does_not_use_up_the_agents_retries() -> None:
    world = World(task=task(maxRetries=1))
    for fail in (
        lambda: world.lose_run("producer"),
        lambda: world.end_run("producer", Outcome.REFUSED, reason="SandboxFailed"),
        lambda: world.end_run("producer", Outcome.FAILED),
        lambda: world.lose_run("producer"),
    ):
        world.advance()
        fail()
    assert world.advance().outlook.state is State.QUEUED
    world.end_run("producer", Outcome.FAILED)
    assert world.advance().outlook.state is State.FAILED


def test_failures_are_remembered_when_an_edit_opens_another_session() -> None:
    world = World(task=task(maxRetries=1))
    world.advance()
    world.end_run("producer", Outcome.FAILED)
    world.snapshot = "s2"
    world.advance()
    assert "producer-uid-writer-s2" in world.sessions
    world.end_run("producer", Outcome.FAILED)
    world.snapshot = "s3"
    assert world.advance().outlook.state is State.FAILED


def test_each_round_has_its_own_allowance() -> None:
    world = World(task=task(maxRetries=1, maxReworks=1))
    for verdict in (Verdict.REJECT, Verdict.APPROVE):
        world.advance()
        world.end_run("producer", Outcome.FAILED)
        world.advance()
        world.end_run("producer")
        world.advance()
        world.end_run("reviewer", verdict=verdict, findings=("no",))
    assert world.advance().outlook.state is State.COMPLETED


def test_a_reviewers_wait_is_part_of_the_review_and_of_each_reviewer_alone() -> None:
    judges = (agent("j1", "review", principal="p-bob"), agent("j2", "review", principal="p-bob"))
    world = World(agents=(agent("writer", "write"), *judges), task=task(maxRetries=1, retry=WAITING))
    world.advance()
    world.end_run("producer")
    first = world.advance().outlook.reviewer
    world.end_run("reviewer", Outcome.FAILED)
    plan = world.advance()
    assert (plan.outlook.state, plan.outlook.waiting) == (State.REVIEWING, WaitingReason.RETRY_BACKOFF)
    assert plan.outlook.reviewer == first
    assert plan.after is not None
    world.pass_(plan.after)
    world.advance()
    world.end_run("reviewer", Outcome.FAILED)
    second = world.advance()
    assert second.outlook.reviewer not in (first, None)
    assert second.after is None, "the other reviewer has failed at nothing yet"
    assert isinstance(world.history[-1], Launch)


def test_the_last_words_of_a_given_up_task_are_those_of_its_last_run() -> None:
    world = World(task=task(maxRetries=0))
    world.advance()
    world.end_run("producer", Outcome.TIMED_OUT, reason="TimedOut")
    end = world.advance()
    assert end.outlook.state is State.TIMED_OUT
    assert isinstance(world.history[-1], FailTask)
    assert world.history[-1].message == "Run 1 of producer-uid-writer-s1 by writer failed: it failed"
