"""The Task decision: rounds, independence, retries, rework, withdrawal; and laws over random histories."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.domain.task_world import DIGEST, NothingLiveError, World, agent, task

from triplane.api.meta import State, Subject, Verdict
from triplane.domain.session import Outcome
from triplane.domain.task_facts import FailTask, Launch, Place, RecordArtifacts
from triplane.domain.verdict import PersonReview


def test_approved_first_round_is_accepted_after_six_steps() -> None:
    world = World()
    assert world.advance().outlook.state is State.QUEUED
    world.end_run("producer")
    waiting = world.advance()
    assert waiting.outlook.state is State.REVIEWING
    assert waiting.outlook.reviewer == "judge"
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    done = world.advance()
    assert done.outlook.state is State.COMPLETED
    assert [type(step).__name__ for step in world.history] == [
        "Place", "OpenSession", "Launch", "RecordArtifacts", "Place", "OpenSession", "Launch", "RecordAgentReview",
    ]  # fmt: skip


def test_rejection_gives_the_findings_to_the_next_run_of_the_same_session() -> None:
    world = World()
    world.advance()
    world.end_run("producer")
    world.advance()
    world.end_run("reviewer", verdict=Verdict.REJECT, findings=("row 3 is missing",))
    world.advance()
    launches = [step for step in world.history if isinstance(step, Launch)]
    assert launches[-1].findings == ("row 3 is missing",)
    assert launches[-1].session.name == launches[0].session.name
    assert launches[-1].run == 2


def test_edited_agent_gets_a_new_session_for_the_rework_but_not_mid_run() -> None:
    world = World()
    world.advance()
    world.snapshot = "s2"
    before = set(world.sessions)
    world.end_run("producer")
    world.advance()
    assert {s.role for n, s in world.sessions.items() if n not in before} == {"reviewer"}
    world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",))
    world.advance()
    assert "producer-uid-writer-s2" in world.sessions


def test_reworks_are_bounded_and_the_findings_named() -> None:
    world = World(task=task(maxReworks=1))
    for _ in range(2):
        world.advance()
        world.end_run("producer")
        world.advance()
        world.end_run("reviewer", verdict=Verdict.REJECT, findings=("total is wrong",))
    end = world.advance()
    assert end.outlook.state is State.FAILED
    assert end.outlook.succeeded.reason == "ReworksExhausted"
    assert "total is wrong" in end.outlook.succeeded.message


@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        pytest.param((), "there is none in this namespace", id="no other agent at all"),
        pytest.param((agent("judge", "review"),), "same user", id="same controlling user"),
        pytest.param((agent("judge", "review", principal=None),), "no recorded", id="reviewer without a stamp"),
        pytest.param(
            (agent("judge", "review", principal="p-bob", harness_principal="p-alice"),),
            "runs a Harness controlled by the user of the producing Agent",
            id="the producer's user controls the reviewer's program",
        ),
        pytest.param((agent("judge", "review", principal="p-bob", active=False),), "suspended", id="suspended"),
        pytest.param((agent("judge", principal="p-bob"),), "there is none", id="reviewer without the capability"),
    ],
)
def test_without_an_independent_reviewer_the_task_stalls_and_says_why(agents: tuple, expected: str) -> None:
    world = World(agents=(agent("writer", "write", "review"), *agents))
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert plan.outlook.stalled[0] == "NoIndependentReviewer"
    assert expected in plan.outlook.stalled[1] or (
        expected.startswith("there is none") and "writer" in plan.outlook.stalled[1]
    )
    world.agents = (*world.agents, agent("late", "review", principal="p-carol"))
    assert world.advance().outlook.reviewer == "late"


def test_reviewer_whose_user_took_over_the_producers_harness_is_not_independent() -> None:
    producer = agent("writer", "write", harness_principal="p-bob")
    world = World(agents=(producer, agent("judge", "review", principal="p-bob")))
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "whose Harness the producing Agent ran" in plan.outlook.stalled[1]


def test_reviewer_instructed_by_the_producing_user_is_not_independent() -> None:
    world = World(instructions_principal="p-alice")
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "Capability review, which instructs the reviewer" in plan.outlook.stalled[1]
    world.instructions_principal = "p-bob"
    assert world.advance().outlook.reviewer == "judge"


def test_people_who_all_control_the_producer_stall_the_task_at_once() -> None:
    world = World(task=task(review={"people": ["alice"]}))
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "name somebody else there" in plan.outlook.stalled[1]


def test_a_third_users_harness_may_serve_both_sides() -> None:
    world = World(
        agents=(
            agent("writer", "write", harness_principal="p-platform"),
            agent("judge", "review", principal="p-bob", harness_principal="p-platform"),
        )
    )
    world.advance()
    world.end_run("producer")
    assert world.advance().outlook.reviewer == "judge"


def test_failed_runs_are_retried_and_then_fail_the_task_with_the_reason() -> None:
    world = World(task=task(maxRetries=1))
    world.advance()
    world.end_run("producer", Outcome.FAILED)
    world.advance()
    assert [step.run for step in world.history if isinstance(step, Launch)] == [1, 2]
    world.end_run("producer", Outcome.FAILED)
    assert world.advance().outlook.succeeded.reason == "HarnessFailed"


def test_lost_runs_do_not_use_up_retries() -> None:
    world = World(task=task(maxRetries=0))
    for _ in range(3):
        world.advance()
        world.lose_run("producer")
    assert world.advance().outlook.state is State.QUEUED


def test_failed_reviewer_is_replaced_and_only_then_the_task_stalls() -> None:
    world = World(
        task=task(maxRetries=0),
        agents=(
            agent("writer", "write"),
            agent("j1", "review", principal="p-bob"),
            agent("j2", "review", principal="p-bob"),
        ),
    )
    world.advance()
    world.end_run("producer")
    first = world.advance().outlook.reviewer
    world.end_run("reviewer", Outcome.FAILED)
    second = world.advance().outlook.reviewer
    assert {first, second} == {"j1", "j2"}
    world.end_run("reviewer", void="the verdict is on other digests")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "could not complete its review" in plan.outlook.stalled[1]


def test_placed_agent_that_is_deleted_before_it_worked_is_replaced() -> None:
    world = World(agents=(agent("a", "write"), agent("b", "write"), agent("judge", "review", principal="p-bob")))
    plan = world.advance()
    assert plan.action is None
    placed = next(step for step in world.history if isinstance(step, Place)).placement
    world.sessions.clear()
    world.agents = tuple(item for item in world.agents if item.uid != placed.agent_uid)
    world.advance()
    again = [step.placement for step in world.history if isinstance(step, Place)][-1]
    assert again.agent_uid != placed.agent_uid
    assert again.ordinal == 1


def test_deleted_graph_cancels_what_has_begun() -> None:
    world = World()
    world.advance()
    world.withdrawn = ("GraphDeleted", "Graph g was deleted")
    end = world.advance()
    assert end.outlook.state is State.CANCELLED
    assert isinstance(world.history[-1], FailTask)


def _review(**changes: object) -> PersonReview:
    values: dict[str, object] = {
        "name": "r", "uid": "u", "username": "bob", "principal": "p-bob", "round": 1,
        "verdict": Verdict.APPROVE, "findings": (), "subjects": (Subject(name="report", digest=DIGEST),),
    }  # fmt: skip
    return PersonReview(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("review", "void"),
    [
        pytest.param(_review(username="eve", principal="p-eve"), "not in spec.review.people", id="somebody else"),
        pytest.param(_review(username="alice", principal="p-alice"), "controls the producing", id="self-review"),
        pytest.param(_review(username=None, principal=None), "no authenticated requester", id="no stamp"),
        pytest.param(
            _review(subjects=(Subject(name="report", digest="sha256:" + "b" * 64),)), "but the round produced",
            id="other digest",
        ),
        pytest.param(_review(subjects=(Subject(name="other", digest=DIGEST),)), "does not name", id="other output"),
    ],
)  # fmt: skip
def test_person_review_counts_only_from_an_independent_listed_user_on_exact_digests(
    review: PersonReview, void: str
) -> None:
    world = World(task=task(review={"people": ["bob", "alice"]}))
    world.advance()
    world.end_run("producer")
    world.people = (review,)
    plan = world.advance()
    assert plan.outlook.state is State.REVIEWING
    assert void in plan.outlook.succeeded.message
    world.people = (review, _review(name="good"))
    assert world.advance().outlook.state is State.COMPLETED


def test_person_review_of_an_earlier_round_is_stale() -> None:
    world = World(task=task(review={"people": ["bob"]}))
    world.advance()
    world.end_run("producer")
    world.people = (_review(verdict=Verdict.REJECT, findings=("no",)),)
    world.advance()
    world.end_run("producer")
    world.people = (_review(),)
    assert world.advance().outlook.state is State.REVIEWING


_EVENTS = st.lists(
    st.sampled_from(
        ["produce", "fail", "lose", "approve", "reject", "void", "review-fails", "edit", "drop-judge", "add-judge"]
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(_EVENTS, st.integers(0, 2), st.integers(0, 2))
def test_no_history_accepts_without_an_independent_review_of_what_was_produced(
    events: list[str], retries: int, reworks: int
) -> None:
    world = World(task=task(maxRetries=retries, maxReworks=reworks))
    world.advance()
    for number, event in enumerate(events):
        _happen(world, event, number)
        rest = world.advance(limit=60)
        if rest.outlook.state is State.COMPLETED:
            _check_acceptance(world)
    assert world.decisions.accepted_round is None or world.decisions.failed is None
    assert len(world.decisions.rejected) <= reworks + 1


def _happen(world: World, event: str, number: int) -> None:
    digest = f"sha256:{number:064x}"
    with suppress(NothingLiveError):
        match event:
            case "produce":
                world.end_run("producer", digest=digest)
            case "fail":
                world.end_run("producer", Outcome.FAILED)
            case "lose":
                world.lose_run("producer")
            case "approve":
                world.end_run("reviewer", verdict=Verdict.APPROVE)
            case "reject":
                world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",))
            case "void":
                world.end_run("reviewer", void="other digests")
            case "review-fails":
                world.end_run("reviewer", Outcome.FAILED)
            case "edit":
                world.snapshot = f"s{number}"
            case "drop-judge":
                world.agents = tuple(item for item in world.agents if "review" not in item.capabilities)
            case "add-judge":
                world.agents = (*world.agents, agent(f"judge{number}", "review", principal="p-bob"))


def _check_acceptance(world: World) -> None:
    round_ = world.decisions.accepted_round
    assert round_ is not None
    producer = world.decisions.latest("producer", round_)
    reviewer = world.decisions.latest("reviewer", round_)
    assert producer is not None
    assert reviewer is not None
    assert producer.agent_uid != reviewer.agent_uid
    assert producer.principal != reviewer.principal
    assert None not in (producer.principal, reviewer.principal)
    recorded = [step for step in world.history if isinstance(step, RecordArtifacts) and step.round == round_]
    assert len(recorded) == 1
    assert (recorded[0].session.uid, recorded[0].run.run, "report") in world.artifacts


def test_accepted_task_takes_no_further_step() -> None:
    world = World()
    world.decisions = replace(world.decisions, accepted_round=1, accepted_review="r")
    world.withdrawn = ("GraphDeleted", "gone")
    assert world.advance().outlook.state is State.COMPLETED
    assert world.history == []
