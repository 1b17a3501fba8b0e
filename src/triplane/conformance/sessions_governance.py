"""The contract of ``SessionStore`` for what governs execution: voided permits, what is spent, questions to people."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from triplane.conformance.sessionsubject import Opening, Subject, claimed, offer, offered, permit, permitted
from triplane.domain.session import Outcome, Question, RunResult, RunState, Spent, Usage
from triplane.errors import Conflict, InvalidInput, NotFound, PermitRefused
from triplane.ports import SessionStore

FAILED = RunResult(Outcome.FAILED, "HarnessFailed", "exit code 1", usage=Usage(100, 20, 3), exit_code=1)
SOME_TIME = datetime(2020, 2, 2, tzinfo=UTC)


@pytest.fixture
async def subject(opening: Opening) -> AsyncIterator[Subject]:
    """One store, empty."""
    async with opening() as made:
        yield made


@pytest.fixture
def store(subject: Subject) -> SessionStore:
    return subject.store


# Voided permits


async def test_an_older_permit_is_refused_once_voided_and_asked_for_anew(subject: Subject) -> None:
    await offered(subject.store)
    await permitted(subject.store)
    assert await subject.other.void_permits("team", "PolicyChanged") == 1
    assert await subject.store.revocation_revision() == 1
    view = await subject.store.get("s1")
    assert view is not None
    assert view.runs[0].permit_expired
    with pytest.raises(PermitRefused, match=r"revocation revision 0, now it is 1 \(PolicyChanged\); a new one was ask"):
        await subject.store.claim_run("s1", 1, "runner", "i1")
    assert await subject.store.wanted() == ["s1"]
    await permitted(subject.store)
    assert (await subject.store.claim_run("s1", 1, "runner", "i1")).permit_counter == 2


async def test_any_claim_leaves_a_voided_permit_and_asks_for_another(store: SessionStore) -> None:
    await offered(store)
    await permitted(store)
    await store.void_permits(None, "AuthorityNarrowed")
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["s1"]


async def test_a_permit_decided_before_the_voiding_and_written_after_it_is_refused(store: SessionStore) -> None:
    await offered(store)
    revision = await store.revocation_revision()
    await store.void_permits("team", "PolicyChanged")
    assert await store.permit(permit(revision=revision))
    assert await store.claim("runner", "i1") is None
    with pytest.raises(PermitRefused, match="PolicyChanged"):
        await store.claim_run("s1", 1, "runner", "i1")


@pytest.mark.parametrize(
    ("namespace", "void"),
    [
        pytest.param("team", True, id="its own namespace"),
        pytest.param(None, True, id="every namespace"),
        pytest.param("tea", False, id="another namespace"),
    ],
)
async def test_permits_are_voided_where_it_was_said(store: SessionStore, namespace: str | None, void: bool) -> None:
    await offered(store)
    await permitted(store)
    assert await store.void_permits(namespace, "PolicyChanged") == 1
    assert (await store.claim("runner", "i1") is None) is void


async def test_each_voiding_stays_in_force_beside_later_ones(store: SessionStore) -> None:
    """One elsewhere, or a later revocation, raises no older permit from the dead."""
    await offered(store)
    await permitted(store)
    assert [await store.void_permits(where, "PolicyChanged") for where in ("team", None, "else")] == [1, 2, 3]
    assert await store.permit(permit(counter=2, revision=1))
    with pytest.raises(PermitRefused, match="now it is 2"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.permit(permit(counter=3, revision=2))
    assert await store.claim_run("s1", 1, "runner", "i1")


async def test_of_a_revocation_and_a_voiding_the_newer_counts(store: SessionStore) -> None:
    for uid in ("s1", "s2", "s3"):
        await offered(store, uid)
    assert await store.revoke("s2", "TaskCancelled")
    await store.void_permits("team", "PolicyChanged")
    assert await store.permit(permit(counter=1, revision=1))
    with pytest.raises(PermitRefused, match=r"now it is 2 \(PolicyChanged\)"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.revoke("s3", "TaskCancelled")
    assert await store.permit(permit(counter=2, revision=2))
    with pytest.raises(PermitRefused, match="now it is 3;"):
        await store.claim_run("s1", 1, "runner", "i1")


async def test_what_runs_goes_on_when_permits_are_voided(store: SessionStore) -> None:
    await claimed(store)
    await store.void_permits(None, "PolicyChanged")
    assert await store.renew("s1", 1, 1) is None
    assert [run.session_uid for run in await store.live()] == ["s1"]
    assert await store.wanted() == []
    assert await store.finish("s1", 1, FAILED)


async def test_who_had_asked_need_not_ask_again(store: SessionStore) -> None:
    await offered(store, "asked")
    assert await store.claim("runner", "i1") is None
    await permitted(store, "asked")
    await offered(store, "ahead")
    await permitted(store, "ahead")
    assert await store.wanted() == []
    await store.void_permits("else", "PolicyChanged")
    assert await store.wanted() == []
    await store.void_permits("team", "PolicyChanged")
    assert await store.wanted() == ["asked"]


async def test_a_voiding_racing_a_claim_comes_before_or_after_it(subject: Subject) -> None:
    taken = 0
    for number in range(20):
        uid = f"s{number}"
        await offered(subject.store, uid)
        await permitted(subject.store, uid)
        pair = [subject.other.claim("runner", "i1"), subject.store.void_permits("team", "PolicyChanged")]
        got = await asyncio.gather(*pair[:: 1 if number % 2 else -1])
        claim = next((each for each in got if each is None or not isinstance(each, int)), None)
        view = await subject.store.get(uid)
        assert view is not None
        assert view.runs[0].state is (RunState.PERMITTED if claim is None else RunState.CLAIMED)
        assert await subject.store.claim("runner", "i2") is None
        taken += claim is not None
        await subject.store.close_session(uid)
    assert taken == len(await subject.store.live())


@pytest.mark.parametrize(
    ("namespace", "reason"),
    [pytest.param("", "PolicyChanged", id="an empty namespace"), pytest.param("team", "", id="no reason")],
)
async def test_a_voiding_without_place_or_reason_is_refused(store: SessionStore, namespace: str, reason: str) -> None:
    with pytest.raises(InvalidInput):
        await store.void_permits(namespace, reason)
    assert await store.revocation_revision() == 0


# What is spent


async def started(store: SessionStore, uid: str = "s1", run: int = 1) -> None:
    await claimed(store, uid, run)
    await store.start(uid, run, {})


async def spent(store: SessionStore, uid: str = "t1") -> Spent:
    return (await store.spent([uid]))[uid]


async def _finish(store: SessionStore) -> None:
    assert await store.finish("s1", 1, FAILED)


async def _lose(store: SessionStore) -> None:
    assert await store.lose("s1", 1, counter=0, reason="LeaseExpired")


async def _lose_instances(store: SessionStore) -> None:
    assert await store.lose_instances("runner", "another")


async def _revoke(store: SessionStore) -> None:
    assert await store.revoke("s1", "BudgetExceeded")


async def _go_on(store: SessionStore) -> None:
    assert await store.renew("s1", 1, 1) is None


ENDS = [
    pytest.param(_go_on, id="is live"),
    pytest.param(_finish, id="has finished"),
    pytest.param(_lose, id="was lost"),
    pytest.param(_lose_instances, id="was lost with its runner"),
    pytest.param(_revoke, id="was revoked"),
]


@pytest.mark.parametrize("end", ENDS)
async def test_a_run_counts_for_what_it_reported_when_it(
    subject: Subject, end: Callable[[SessionStore], Awaitable[None]]
) -> None:
    await started(subject.store)
    await subject.other.report("s1", 1, Usage(100, 20, 3))
    await subject.elapse(0.2)
    await end(subject.store)
    expected = Spent(tokens=120, cost_minor_units=3, seconds=1, sessions=1)
    assert await subject.other.spent(["t1", "g1"]) == {"t1": expected, "g1": expected}
    view = await subject.store.get("s1")
    assert view is not None
    assert view.runs[0].usage == Usage(100, 20, 3)


async def test_time_goes_on_for_a_live_run_and_stands_still_when_it_is_over(subject: Subject) -> None:
    await claimed(subject.store)
    await subject.elapse(1.1)
    assert (await spent(subject.store)).seconds == 0, "it has not started"
    await subject.store.start("s1", 1, {})
    await subject.elapse(1.1)
    assert (await spent(subject.store)).seconds == 2
    await subject.store.finish("s1", 1, FAILED)
    over = (await spent(subject.store)).seconds
    await subject.elapse(1.1)
    assert (await spent(subject.store)).seconds == over == 2


async def test_a_report_lowers_nothing_and_a_result_neither(subject: Subject, store: SessionStore) -> None:
    await started(store)
    await subject.elapse(0.01)
    await store.report("s1", 1, Usage(200, 5, 0))
    await store.report("s1", 1, Usage(100, 10, 1))
    assert await spent(store) == Spent(tokens=210, cost_minor_units=1, seconds=1, sessions=1)
    await store.finish("s1", 1, FAILED)
    assert await spent(store) == Spent(tokens=220, cost_minor_units=3, seconds=1, sessions=1)


async def test_a_report_on_a_run_that_is_over_or_unclaimed_changes_nothing(store: SessionStore) -> None:
    await started(store)
    await store.finish("s1", 1, FAILED)
    before = await spent(store)
    await store.report("s1", 1, Usage(1000, 1000, 1000))
    await offered(store, "s2")
    await permitted(store, "s2")
    await store.report("s2", 1, Usage(1000, 1000, 1000))
    assert await spent(store) == before
    with pytest.raises(NotFound, match="run 7"):
        await store.report("s1", 7, Usage())


@pytest.mark.parametrize(
    "usage",
    [pytest.param(Usage(-1), id="less than nothing"), pytest.param(Usage(0, 0, 2**53), id="more than can be counted")],
)
async def test_a_report_nobody_can_mean_is_refused(store: SessionStore, usage: Usage) -> None:
    await started(store)
    with pytest.raises(InvalidInput, match="between 0 and 9007199254740991"):
        await store.report("s1", 1, usage)


async def test_a_boundless_result_is_kept_within_what_can_be_counted(subject: Subject, store: SessionStore) -> None:
    await started(store)
    await subject.elapse(0.01)
    assert await store.finish("s1", 1, replace(FAILED, usage=Usage(10**30, 10**30, 10**30)))
    assert await spent(store) == Spent(2 * (2**53 - 1), 2**53 - 1, 1, 1)


async def test_spending_adds_up_beneath_task_node_and_graph(store: SessionStore) -> None:
    for number, (task, node, graph) in enumerate(
        [("t1", "n1", "g1"), ("t1", "n1", "g1"), ("t2", "n1", "g1"), ("t3", None, "g1"), ("t4", "n2", "g2")], start=1
    ):
        uid = f"s{number}"
        assert await store.offer(replace(offer(uid, task=task, graph=graph), node_uid=node))
        await permitted(store, uid)
        await store.claim_run(uid, 1, "runner", "i1")
        usage = Usage(10**number, 0, 1)
        if number == 3:
            await store.report(uid, 1, usage)
        else:
            await store.finish(uid, 1, replace(FAILED, usage=usage))
    await permitted(store, "s1", 2)
    await store.claim_run("s1", 2, "runner", "i1")
    await store.finish("s1", 2, replace(FAILED, usage=Usage(3, 0, 1)))
    assert await store.spent(["t1", "t2", "t3", "n1", "n2", "g1", "g2"]) == {
        "t1": Spent(113, 3, 0, 2),
        "t2": Spent(1000, 1, 0, 1),
        "t3": Spent(10_000, 1, 0, 1),
        "n1": Spent(1113, 4, 0, 3),
        "n2": Spent(100_000, 1, 0, 1),
        "g1": Spent(11_113, 5, 0, 4),
        "g2": Spent(100_000, 1, 0, 1),
    }
    view = await store.get("s1")
    assert view is not None
    assert view.offer.node_uid == "n1"


async def test_nothing_spent_is_there_with_zeros(store: SessionStore) -> None:
    await offered(store)
    await permitted(store)
    assert await store.spent(["t1", "nobody"]) == {"t1": Spent(), "nobody": Spent()}
    assert await store.spent([]) == {}


async def test_a_run_is_counted_once_however_often_its_end_is_told(subject: Subject) -> None:
    for number in range(6):
        await started(subject.store, f"s{number}")
    ends = [
        store.finish(f"s{number}", 1, FAILED)
        for number in range(6)
        for store in (subject.store, subject.other, subject.store)
    ]
    assert sorted(await asyncio.gather(*ends)) == [False] * 12 + [True] * 6
    counted = await spent(subject.store, "g1")
    assert (counted.tokens, counted.cost_minor_units, counted.sessions) == (720, 18, 6)


# Questions


def question(invocation: str = "call-1", *, digest: str = "d1", uid: str = "s1", seconds: float = 60) -> Question:
    until = SOME_TIME + timedelta(seconds=seconds)
    return Question(uid, 1, invocation, digest, "mail/send", ("alice", "bob"), SOME_TIME, until)


async def test_a_question_is_kept_by_the_stores_clock_and_seen_by_others(subject: Subject) -> None:
    await claimed(subject.store)
    before = await subject.store.now()
    kept = await subject.store.ask(question())
    assert before <= kept.asked_at <= await subject.store.now()
    assert kept == replace(question(), asked_at=kept.asked_at, until=kept.asked_at + timedelta(seconds=60))
    assert await subject.other.questions(["s1"]) == [kept]
    assert await subject.other.questions(["s2"]) == []
    assert await subject.other.questions([]) == []


async def test_asking_again_tells_the_answer(subject: Subject) -> None:
    await claimed(subject.store)
    kept = await subject.store.ask(question())
    assert await subject.store.ask(question()) == kept
    assert await subject.other.answer("s1", "call-1", approved=True, review="review-uid", principal="alice")
    answered = replace(kept, answer=True, review="review-uid", principal="alice")
    assert await subject.store.ask(question()) == answered
    assert await subject.store.questions(["s1"]) == [answered]


async def test_the_first_answer_stands(store: SessionStore) -> None:
    await claimed(store)
    await store.ask(question())
    assert await store.answer("s1", "call-1", approved=False, review="r1", principal="alice")
    assert not await store.answer("s1", "call-1", approved=True, review="r2", principal="bob")
    (kept,) = await store.questions(["s1"])
    assert (kept.answer, kept.review, kept.principal) == (False, "r1", "alice")


async def test_one_of_many_answers_at_once_stands(subject: Subject) -> None:
    await claimed(subject.store)
    await subject.store.ask(question())
    answers = [
        (subject.store if number % 2 else subject.other).answer(
            "s1", "call-1", approved=number % 3 == 0, review=f"r{number}", principal="alice"
        )
        for number in range(6)
    ]
    told = await asyncio.gather(*answers)
    assert sorted(told) == [False] * 5 + [True]
    (kept,) = await subject.store.questions(["s1"])
    assert kept.review == f"r{told.index(True)}"


async def test_an_answer_past_its_time_does_not_count(subject: Subject) -> None:
    await claimed(subject.store)
    await subject.store.ask(question(seconds=0.2))
    await subject.elapse(0.3)
    assert not await subject.store.answer("s1", "call-1", approved=True, review="r1", principal="alice")
    (kept,) = await subject.store.questions(["s1"])
    assert kept.answer is None


async def test_an_answer_to_nothing_is_an_error(store: SessionStore) -> None:
    with pytest.raises(NotFound, match="call-1"):
        await store.answer("s1", "call-1", approved=True, review="r1", principal="alice")


async def test_leave_is_given_for_one_call_not_for_each_that_bears_its_name(store: SessionStore) -> None:
    await claimed(store)
    await store.ask(question())
    await store.answer("s1", "call-1", approved=True, review="r1", principal="alice")
    with pytest.raises(Conflict, match="another call needs a name of its own"):
        await store.ask(question(digest="d2"))
    await store.finish("s1", 1, FAILED)
    await claimed(store, run=2)
    with pytest.raises(Conflict, match="asked by run 1"):
        await store.ask(replace(question(), run=2))


async def test_only_a_live_run_may_ask(store: SessionStore) -> None:
    with pytest.raises(NotFound, match="no run 1"):
        await store.ask(question())
    await offered(store)
    await permitted(store)
    with pytest.raises(Conflict, match="run 1 is permitted"):
        await store.ask(question())
    await store.claim_run("s1", 1, "runner", "i1")
    kept = await store.ask(question())
    await store.finish("s1", 1, FAILED)
    with pytest.raises(Conflict, match="run 1 is finished"):
        await store.ask(question("call-2"))
    assert await store.ask(question()) == kept


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(question(seconds=0), id="no time to answer"),
        pytest.param(question(""), id="no name"),
        pytest.param(replace(question(), approvers=()), id="nobody to answer"),
    ],
)
async def test_a_question_nobody_could_answer_is_refused(store: SessionStore, asked: Question) -> None:
    await claimed(store)
    with pytest.raises(InvalidInput):
        await store.ask(asked)


async def test_questions_come_by_session_and_time(subject: Subject) -> None:
    for uid in ("s1", "s2"):
        await claimed(subject.store, uid)
    for uid, name in (("s2", "b"), ("s1", "z"), ("s1", "a"), ("s2", "a")):
        await subject.store.ask(question(name, uid=uid))
        await subject.elapse(0.001)
    found = await subject.other.questions(["s2", "s1"])
    assert [(each.session_uid, each.invocation) for each in found] == [
        ("s1", "z"),
        ("s1", "a"),
        ("s2", "b"),
        ("s2", "a"),
    ]


# Wake-ups


async def _void(store: SessionStore) -> None:
    await store.void_permits("team", "PolicyChanged")


async def _ask(store: SessionStore) -> None:
    await store.ask(question("call-2"))


async def _answer(store: SessionStore) -> None:
    await store.answer("s1", "call-1", approved=True, review="r1", principal="alice")


@pytest.mark.parametrize("act", [_void, _ask, _answer], ids=lambda act: act.__name__.strip("_"))
async def test_a_change_rings_for_every_subscriber(
    subject: Subject, act: Callable[[SessionStore], Awaitable[None]]
) -> None:
    await claimed(subject.store)
    await subject.store.ask(question())
    async with subject.store.changes() as here, subject.other.changes() as there:
        for bell in (here, there):
            while await bell.wait(0.5):
                pass  # rung by subscribing, or by what was done before
        await act(subject.store)
        assert await here.wait(5)
        assert await there.wait(5)
