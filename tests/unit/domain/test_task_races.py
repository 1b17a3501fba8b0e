"""What happens between two looks: edits, deletions and returns while a permit is out or a review is under way."""

from dataclasses import replace

import pytest
from tests.unit.domain.task_world import World, agent, task

from triplane.api.meta import Verdict
from triplane.domain.session import Outcome, RunState
from triplane.domain.task import decide
from triplane.domain.task_facts import FailTask, Launch, OpenSession, Place
from triplane.domain.task_runs import in_force, to_show


def _permits(world: World, role: str) -> list[str]:
    """Sessions of that role which a runner could still claim a run of."""
    return [
        session.name
        for session in world.sessions.values()
        if session.role == role
        and session.view is not None
        and any(run.state is RunState.PERMITTED and not run.permit_expired for run in session.view.runs)
    ]


def _expire(world: World) -> None:
    for name, session in world.sessions.items():
        assert session.view is not None
        runs = tuple(replace(run, permit_expired=run.state is RunState.PERMITTED) for run in session.view.runs)
        world.sessions[name] = replace(session, view=replace(session.view, runs=runs))


def test_an_edit_while_a_permit_is_out_never_puts_out_a_second_one() -> None:
    world = World()
    world.advance()
    world.snapshot = "s0"
    world.advance()
    assert _permits(world, "producer") == ["producer-uid-writer-s1"]
    _expire(world)
    world.advance()
    assert _permits(world, "producer") == ["producer-uid-writer-s0"]


def test_a_session_that_has_produced_stays_the_one_under_review() -> None:
    """Even if a run of another session of the same round, earlier in the alphabet, comes to life."""
    world = World()
    world.advance()
    world.end_run("producer")
    world.advance()
    produced = world.sessions["producer-uid-writer-s1"]
    assert produced.view is not None
    stray = replace(
        produced,
        name="a-stray",
        uid="uid-stray",
        view=replace(produced.view, runs=(replace(produced.view.runs[0], state=RunState.STARTED, result=None),)),
    )
    world.sessions = {"a-stray": stray, **world.sessions}
    placement = world.decisions.latest("producer", 1)
    assert placement is not None
    session = in_force(tuple(world.sessions.values()), placement)
    assert session is not None
    assert session.name == produced.name


@pytest.mark.parametrize("order", ["made in this order", "the other way round"])
def test_people_are_shown_the_session_at_work_and_after_it_the_last_one_that_was(order: str) -> None:
    world = World()
    world.advance()
    revoked = world.sessions["producer-uid-writer-s1"]
    assert revoked.view is not None
    run = replace(revoked.view.runs[0], state=RunState.REVOKED, claimed_at="2026-01-31T12:00:00Z")
    revoked = replace(revoked, view=replace(revoked.view, runs=(run,)))
    begun = replace(run, state=RunState.STARTED, claimed_at="2026-01-31T12:00:01Z")
    narrower = replace(revoked, name="narrower", uid="uid-2", view=replace(revoked.view, runs=(begun,)))
    stopped = replace(narrower, view=replace(revoked.view, runs=(replace(begun, state=RunState.REVOKED),)))
    placement = world.decisions.latest("producer", 1)
    for second in (narrower, stopped):
        sessions = (revoked, second) if order == "made in this order" else (second, revoked)
        shown = to_show(sessions, placement)
        assert shown is not None
        assert shown.name == "narrower"
    assert to_show((revoked,), None) is None


def test_a_reviewer_given_up_does_not_come_back_beside_its_successor() -> None:
    judges = (agent("j1", "review", principal="p-bob"), agent("j2", "review", principal="p-bob"))
    world = World(agents=(agent("writer", "write"), *judges))
    world.advance()
    world.end_run("producer")
    first = world.advance().outlook.reviewer
    everybody = world.agents
    _expire(world)
    world.agents = tuple(item for item in everybody if item.name != first)
    second = world.advance().outlook.reviewer
    assert second != first
    world.agents = everybody
    world.snapshot = "s2"
    _expire(world)
    world.advance()
    assert [name for name in _permits(world, "reviewer") if f"uid-{first}" in name] == []


def test_void_verdict_is_not_retried_in_a_session_whose_agent_was_edited() -> None:
    world = World()
    world.advance()
    world.end_run("producer")
    world.advance()
    world.end_run("reviewer", void="other digests")
    world.snapshot = "s2"
    world.advance()
    launched = [step.session.name for step in world.history if isinstance(step, Launch)]
    assert launched[-1] == "reviewer-uid-judge-s2-1"


@pytest.mark.parametrize("change", [{"principal": "p-eve"}, {"harness_principal": "p-alice"}, {"active": False}])
def test_a_reviewer_is_only_opened_as_it_was_placed(change: dict[str, object]) -> None:
    """Its Harness was deleted and made anew by the producer's user, or it was suspended, before it began."""
    world = World()
    world.advance()
    world.end_run("producer")
    while not (
        world.history and isinstance(world.history[-1], Place) and world.history[-1].placement.role != "producer"
    ):
        plan = decide(world.facts())
        assert plan.action is not None
        world.history.append(plan.action)
        world._apply(plan.action)
    world.agents = tuple(replace(a, **change) if a.name == "judge" else a for a in world.agents)  # type: ignore[arg-type]
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert plan.outlook.stalled[0] == "NoIndependentReviewer"
    assert not [step for step in world.history if isinstance(step, OpenSession) and step.placement.role == "reviewer"]


def test_a_suspended_producer_is_replaced_for_the_rework() -> None:
    world = World(agents=(agent("a", "write"), agent("b", "write"), agent("judge", "review", principal="p-bob")))
    world.advance()
    placed = next(step.placement for step in world.history if isinstance(step, Place))
    world.end_run("producer")
    world.advance()
    world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",))
    world.agents = tuple(replace(a, active=a.uid != placed.agent_uid) for a in world.agents)
    assert world.advance().outlook.stalled is None
    latest = world.decisions.latest("producer", 2)
    assert latest is not None
    assert latest.agent_uid != placed.agent_uid


def test_work_done_anew_is_recorded_anew() -> None:
    """The session was deleted by an admin after its outputs had been recorded: other outputs, other Artifacts."""
    world = World(task=task(maxRetries=0))
    world.advance()
    world.end_run("producer")
    world.advance()
    gone = world.sessions.pop("producer-uid-writer-s1")
    world.sessions.pop("reviewer-uid-judge-s1-1")
    world.advance()
    again = world.sessions["producer-uid-writer-s1"]
    world.sessions["producer-uid-writer-s1"] = replace(again, uid="uid-second")
    other = "sha256:" + "b" * 64
    world.end_run("producer", digest=other)
    world.advance()
    assert {uid for uid, _, _ in world.artifacts} == {gone.uid, "uid-second"}
    world.end_run("reviewer", Outcome.FAILED)
    assert not any(isinstance(step, FailTask) for step in world.history)


def test_people_are_not_waited_for_when_none_of_them_could_be_independent() -> None:
    world = World(task=task(review={"people": ["bob"]}), agents=(agent("writer", "write", principal=None),))
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert plan.outlook.stalled[0] == "NoIndependentReviewer"
