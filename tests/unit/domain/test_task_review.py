"""Who must approve a round together, and whose word adds nothing."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.domain.task_world import DIGEST, NothingLiveError, World, agent, task

from triplane.api.meta import Gate, State, Subject, Verdict
from triplane.domain.eligibility import Call, Candidate, Member, Producer, beside, choose_reviewers, dependent
from triplane.domain.session import RunState
from triplane.domain.task import decide
from triplane.domain.task_facts import AcceptRound, DecideByPerson, OpenSession, Place, RecordAgentReview, SessionFacts
from triplane.domain.verdict import Moment, PersonReview

SUBJECTS = (Subject(name="report", digest=DIGEST),)
WRITER = agent("writer", "write")
BOB = agent("judge-b", "review", principal="p-bob")
CAROL = agent("judge-c", "review", principal="p-carol")
DAVE = agent("judge-d", "review", principal="p-dave")


def by(user: str, name: str = "", **changes: Any) -> PersonReview:
    values: dict[str, Any] = {
        "name": name or f"by-{user}", "uid": f"uid-{name or user}", "username": user, "principal": f"p-{user}",
        "round": 1, "verdict": Verdict.APPROVE, "findings": (), "subjects": SUBJECTS,
    }  # fmt: skip
    return PersonReview(**{**values, **changes})


def produced(review: dict[str, Any], *agents: Candidate, **changes: Any) -> World:
    """A Task whose producer has done its work."""
    world = World(task=task(review=review), agents=(WRITER, *agents), **changes)
    world.advance()
    world.end_run("producer")
    world.advance()
    return world


def seated(world: World) -> set[str]:
    return {item.agent_name for item in world.decisions.placements if item.role == "reviewer"}


def test_two_agents_review_at_the_same_time_and_the_second_approval_accepts() -> None:
    world = produced({"reviewers": 2}, BOB, CAROL)
    assert seated(world) == {"judge-b", "judge-c"}
    world.end_run("reviewer", verdict=Verdict.APPROVE, of="judge-b")
    waiting = world.advance()
    assert waiting.outlook.state is State.REVIEWING
    assert "1 of 2 have approved" in waiting.outlook.succeeded.message
    world.end_run("reviewer", verdict=Verdict.APPROVE, of="judge-c")
    assert world.advance().outlook.state is State.COMPLETED
    assert [type(step) for step in world.history][-3:] == [RecordAgentReview, RecordAgentReview, AcceptRound]


def test_one_rejection_rejects_the_round_whatever_the_others_said() -> None:
    world = produced({"reviewers": 2}, BOB, CAROL)
    world.end_run("reviewer", verdict=Verdict.APPROVE, of="judge-b")
    world.advance()
    world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",), of="judge-c")
    world.advance()
    assert world.decisions.rejected == {1: ("no",)}
    assert not world.decisions.over


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param((BOB,), "2 are needed, but among judge-b", id="one short"),
        pytest.param((BOB, agent("second", "review", principal="p-bob")), "not so many of different", id="one user"),
        pytest.param(
            (BOB, agent("second", "review", principal="p-carol", harness_principal="p-bob")), "not so many",
            id="one runs the other's Harness",
        ),
        pytest.param((BOB, agent("own", "review")), "own is controlled by the same user", id="the producer's own"),
    ],
)  # fmt: skip
def test_without_the_whole_quorum_nobody_is_asked(others: tuple[Candidate, ...], expected: str) -> None:
    world = produced({"reviewers": 2}, *others)
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert plan.outlook.stalled[0] == "NoIndependentReviewer"
    assert expected in plan.outlook.stalled[1]
    assert not seated(world)


def test_a_third_agent_of_another_user_heals_the_stall() -> None:
    world = produced({"reviewers": 2}, BOB)
    world.agents += (CAROL,)
    assert world.advance().outlook.state is State.REVIEWING
    assert seated(world) == {"judge-b", "judge-c"}


def test_a_reviewer_that_comes_to_nothing_is_replaced_in_its_seat() -> None:
    world = produced({"reviewers": 2}, BOB, CAROL, DAVE)
    first = seated(world)
    gone = min(first)
    world.agents = tuple(item for item in world.agents if item.name != gone)
    for name, session in list(world.sessions.items()):
        if session.agent_uid == f"uid-{gone}":
            del world.sessions[name]
    world.advance()
    assert seated(world) == {"judge-b", "judge-c", "judge-d"}
    panel = world.decisions.panel(1)
    assert [item.seat for item in panel] == [0, 1]
    assert gone not in {item.agent_name for item in panel}
    for name in {item.agent_name for item in panel}:
        world.end_run("reviewer", verdict=Verdict.APPROVE, of=name)
    assert world.advance().outlook.state is State.COMPLETED


def test_who_is_at_work_goes_on_while_nobody_is_there_for_the_other_seat() -> None:
    world = produced({"reviewers": 2}, BOB, CAROL)
    world.end_run("reviewer", void="void", of="judge-b")
    world.advance()
    world.end_run("reviewer", void="void", of="judge-b")
    plan = world.advance()
    assert plan.outlook.stalled is None
    assert "nobody for the rest" in plan.outlook.succeeded.message
    assert "judge-b could not complete its review" in plan.outlook.succeeded.message
    world.end_run("reviewer", verdict=Verdict.APPROVE, of="judge-c")
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "2 approvals are needed, 1 given" in plan.outlook.stalled[1]
    world.agents += (DAVE,)
    world.advance()
    world.end_run("reviewer", verdict=Verdict.APPROVE, of="judge-d")
    assert world.advance().outlook.state is State.COMPLETED


def test_with_agents_and_people_one_of_each_is_needed() -> None:
    world = produced({"reviewers": 2, "capability": "review", "people": ["carol", "dave"]}, BOB)
    world.people = (by("carol"), by("dave"))
    plan = world.advance()
    assert plan.outlook.state is State.REVIEWING, "two people are not one of each"
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    assert world.advance().outlook.state is State.COMPLETED


def test_a_person_who_is_first_is_waited_for_no_more() -> None:
    world = produced({"reviewers": 2, "capability": "review", "people": ["carol"]}, BOB)
    assert "carol" in world.advance().outlook.succeeded.message
    world.people = (by("carol"),)
    said = world.advance().outlook
    assert said.succeeded.reason == "InReview"
    assert "1 of 2 have approved" in said.succeeded.message
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    assert world.advance().outlook.state is State.COMPLETED


def test_an_agent_of_a_person_who_has_approved_is_replaced() -> None:
    world = produced({"reviewers": 2, "capability": "review", "people": ["bob", "carol"]}, BOB)
    world.people = (by("bob"),)
    world.advance()
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    plan = world.advance()
    assert plan.outlook.stalled is not None
    assert "controlled by a user who has approved already" in plan.outlook.stalled[1]
    world.agents += (DAVE,)
    world.advance()
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    assert world.advance().outlook.state is State.COMPLETED


@pytest.mark.parametrize(
    ("people", "says"),
    [
        pytest.param(("alice", "bob"), "of review.people (alice)", id="one of two is the producer's user"),
        pytest.param(("bob",), "2 more of review.people", id="fewer named than needed"),
    ],
)
def test_too_few_people_stall_at_once(people: tuple[str, ...], says: str) -> None:
    plan = produced({"reviewers": 2, "people": list(people)}).advance()
    assert plan.outlook.stalled is not None
    assert says in plan.outlook.stalled[1]


def test_lowering_the_quorum_accepts_with_what_was_given() -> None:
    world = produced({"reviewers": 2, "people": ["bob", "carol"]})
    world.people = (by("bob"),)
    assert world.advance().outlook.state is State.REVIEWING
    world.task = task(review={"reviewers": 1, "people": ["bob", "carol"]})
    assert world.advance().outlook.state is State.COMPLETED


@pytest.mark.parametrize(
    ("producer", "reviewer", "says"),
    [
        pytest.param("gpt", "claude", None, id="another family"),
        pytest.param("gpt", "gpt", "has the modelFamily of the producing Agent", id="the same"),
        pytest.param("gpt", None, "declares no modelFamily", id="the reviewer does not say"),
        pytest.param(None, "claude", "the producing Agent declares no modelFamily", id="the producer did not say"),
    ],
)
def test_a_distinct_model_family_must_be_declared_on_both_sides(
    producer: str | None, reviewer: str | None, says: str | None
) -> None:
    agents = (replace(WRITER, model_family=producer), replace(BOB, model_family=reviewer))
    world = World(task=task(review={"distinctModelFamily": True}), agents=agents)
    world.advance()
    world.end_run("producer")
    plan = world.advance()
    assert (plan.outlook.stalled is None) is (says is None)
    if says is not None:
        assert plan.outlook.stalled is not None
        assert says in plan.outlook.stalled[1]


@pytest.mark.parametrize(
    ("review", "says"),
    [
        pytest.param(by("bob", made=Moment(seq=5)), "before there was anything to judge", id="earlier in the log"),
        pytest.param(
            by("bob", made=Moment("2026-03-01T11:59:59Z", 99)), "before there was anything", id="earlier by the clock"
        ),
        pytest.param(by("bob", round=2), "for round 2; round 1 is open", id="a round that is not yet"),
        pytest.param(by("bob", gate=Gate.LAUNCH), "for which nobody asks now", id="another gate"),
        pytest.param(by("bob", gate=Gate.TOOL), "does not wait for leave now", id="a call of a tool"),
    ],
)
def test_void_reviews_say_why(review: PersonReview, says: str) -> None:
    world = produced({"people": ["bob"]}, produced_since={1: Moment("2026-03-01T12:00:00Z", 10)})
    world.people = (review,)
    plan = world.advance()
    assert plan.outlook.state is State.REVIEWING
    assert says in plan.outlook.succeeded.message
    assert says in plan.outlook.reviewed.message


def test_a_review_made_in_the_second_of_the_artifact_and_seen_after_it_counts() -> None:
    world = produced({"people": ["bob"]}, produced_since={1: Moment("2026-03-01T12:00:00Z", 10)})
    world.people = (by("bob", made=Moment("2026-03-01T12:00:00Z", 11)),)
    assert world.advance().outlook.state is State.COMPLETED


def test_a_review_before_there_are_outputs_is_void_and_stays_so() -> None:
    world = World(task=task(review={"people": ["bob"]}), produced_since={1: Moment(seq=10)})
    world.people = (by("bob", made=Moment(seq=4)),)
    assert "before round 1 had outputs" in world.advance().outlook.succeeded.message
    world.end_run("producer")
    assert "before there was anything to judge" in world.advance().outlook.succeeded.message


def test_a_review_after_the_end_is_told_of_and_changes_nothing() -> None:
    world = produced({"people": ["bob"]})
    world.people = (by("bob"),)
    assert world.advance().outlook.state is State.COMPLETED
    world.people += (by("bob", "late", verdict=Verdict.REJECT, findings=("no",)),)
    plan = world.advance()
    assert plan.outlook.state is State.COMPLETED
    assert "Review late decides nothing: the Task is over" in plan.outlook.succeeded.message


def test_a_person_nobody_asked_is_told_so() -> None:
    world = produced({}, BOB)
    world.people = (by("bob"),)
    assert "spec.review.people asks none" in world.advance().outlook.succeeded.message


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=7),
    st.integers(1, 4),
)
def test_a_chosen_panel_is_independent_of_the_producer_and_of_one_another(
    users: list[tuple[str, str]], count: int
) -> None:
    pool = [agent(f"j{n}", "review", principal=own, harness_principal=h) for n, (own, h) in enumerate(users)]
    producer = Producer("uid-writer", "a", "a")
    panel: list[Candidate] = []
    for left in range(count, 0, -1):
        members = tuple(_member(item) for item in panel)
        choice = choose_reviewers(pool, Call(None, "review", left, members), producer, "uid-task")
        if choice.agent is None:
            assert not panel, "what was begun can be finished"
            assert not _exists(pool, producer, count)
            return
        panel.append(choice.agent)
    for number, item in enumerate(panel):
        assert dependent(item, producer) is None
        assert all(beside(item, _member(other)) is None for other in panel[number + 1 :])


def _member(item: Candidate) -> Member:
    return Member(item.name, item.uid, item.principal, item.harness_principal)


def _exists(pool: list[Candidate], producer: Producer, count: int) -> bool:
    fit = [item for item in pool if dependent(item, producer) is None]
    return any(
        all(beside(one, _member(other)) is None for one, other in combinations(chosen, 2))
        for chosen in combinations(fit, count)
    )


_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["approve", "reject", "void", "fail", "person", "person-rejects", "produce", "lose"]),
        st.sampled_from(["alice", "bob", "carol", "dave"]),
    ),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(_MOVES, st.sampled_from([{"reviewers": 2}, {"reviewers": 2, "people": ["bob", "carol", "alice"]}, {
    "reviewers": 3, "capability": "review", "people": ["bob", "carol", "alice", "dave"]}]))  # fmt: skip
def test_no_history_accepts_without_a_full_quorum_of_different_users(
    moves: list[tuple[str, str]], review: dict[str, Any]
) -> None:
    world = World(task=task(review=review, maxRetries=1, maxReworks=1), agents=(WRITER, BOB, CAROL, DAVE))
    world.advance()
    for number, (move, user) in enumerate(moves):
        round_ = len(world.decisions.rejected) + 1
        try:
            if move == "produce":
                world.end_run("producer")
            elif move == "lose":
                world.lose_run("reviewer")
            elif move == "person":
                world.people += (by(user, f"r{number}", round=round_),)
            elif move == "person-rejects":
                no = {"verdict": Verdict.REJECT, "findings": ("no",)}
                world.people += (by(user, f"r{number}", round=round_, **no),)
            else:
                verdict = Verdict.REJECT if move == "reject" else Verdict.APPROVE
                void = "void" if move in ("void", "fail") else None
                world.end_run("reviewer", verdict=verdict, findings=("no",), void=void, of=f"judge-{user[0]}")
        except NothingLiveError:
            continue
        world.advance(60)
        _at_rest(world)
    if world.decisions.accepted_round is not None:
        _quorum_holds(world, review)


def _at_rest(world: World) -> None:
    """Deciding again on what is recorded changes nothing."""
    assert decide(world.facts()).action is None


def _quorum_holds(world: World, review: dict[str, Any]) -> None:
    given_ = world.decisions.approvals_of(world.decisions.accepted_round or 0)
    placed = {item.agent_uid: item for item in world.decisions.placements if item.role == "reviewer"}
    principals = [item.principal or placed[item.agent_uid or ""].principal for item in given_]
    assert len(set(principals)) == len(principals) >= review["reviewers"]
    assert "p-alice" not in principals
    agents = sum(1 for item in given_ if item.agent_uid)
    if review.get("people") and review.get("capability"):
        assert 0 < agents < len(given_)
    elif review.get("people"):
        assert agents == 0
    assert all(item.subjects == SUBJECTS for item in given_)


def test_nothing_is_launched_twice_for_a_seat() -> None:
    world = produced({"reviewers": 3}, BOB, CAROL, DAVE)
    opened = [step.placement.agent_name for step in world.history if isinstance(step, OpenSession)]
    assert sorted(opened[1:]) == ["judge-b", "judge-c", "judge-d"]
    assert sum(isinstance(step, Place) for step in world.history) == 4
    runs = [run for item in world.sessions.values() if item.view for run in item.view.runs]
    assert sum(run.state is RunState.PERMITTED for run in runs) == 3
    assert not any(isinstance(step, DecideByPerson) for step in world.history)


def test_a_seat_is_filled_only_while_its_instructions_are_nobodys_who_produced() -> None:
    """Whoever were placed meanwhile would count as having failed, and the round could never be completed."""
    world = produced({"reviewers": 2}, BOB, CAROL, DAVE)
    first, second = sorted(seated(world))
    world.end_run("reviewer", verdict=Verdict.APPROVE, of=first)
    world.advance()
    world.end_run("reviewer", void="other outputs", of=second)
    world.instructions_principal = "p-alice"
    plan = decide(world.facts())
    for _ in range(8):
        plan = world.advance()
        world.pass_(3600)
        if not any(map(_live, world.sessions.values())):
            break
        world.end_run("reviewer", void="other outputs", of=second)
    assert plan.outlook.stalled is not None
    assert "which instructs the reviewer" in plan.outlook.stalled[1]
    assert seated(world) == {first, second}
    world.instructions_principal = None
    world.advance()
    assert len(seated(world)) == 3


def _live(session: SessionFacts) -> bool:
    run = session.view.last_run if session.view is not None else None
    return run is not None and run.state is RunState.PERMITTED
