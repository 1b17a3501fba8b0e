"""The contract of ``SessionStore``: offers, permits, claims, leases, records, results."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from triplane.conformance.sessionsubject import Opening, Subject, claimed, offer, offered, permit, permitted
from triplane.domain.session import (
    Claim,
    HeldBy,
    LiveRun,
    OpenSession,
    Outcome,
    Outstanding,
    RunOutput,
    RunResult,
    RunState,
    RunView,
    SessionView,
    Usage,
)
from triplane.errors import Conflict, InvalidDigest, InvalidInput, NotFound, PermitRefused, SequenceGap
from triplane.ports import SessionStore

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
DONE = RunResult(
    Outcome.SUCCEEDED,
    "Finished",
    "all is well: ✓",
    outputs=(RunOutput("report", "report.md", ONE, "text/markdown", 12),),
    reflection=TWO,
    usage=Usage(10, 20, 3),
    exit_code=0,
)
FAILED = RunResult(Outcome.FAILED, "HarnessFailed", "exit code 1", exit_code=1)


@pytest.fixture
async def subject(opening: Opening) -> AsyncIterator[Subject]:
    """One store, empty."""
    async with opening() as made:
        yield made


@pytest.fixture
def store(subject: Subject) -> SessionStore:
    return subject.store


async def test_a_permit_lives_from_its_decision_not_from_its_writing(store: SessionStore) -> None:
    await offered(store)
    decided_at = await store.now() - timedelta(seconds=11)
    assert await store.permit(replace(permit(), decided_at=decided_at))
    assert await store.claim("r", "i") is None
    with pytest.raises(PermitRefused, match="expired"):
        await store.claim_run("s1", 1, "r", "i")


async def test_a_permit_decided_ahead_of_the_stores_clock_lives_from_its_writing(store: SessionStore) -> None:
    await offered(store)
    assert await store.permit(replace(permit(), decided_at=await store.now() + timedelta(hours=1)))
    assert await store.claim("r", "i") is not None


async def claims(store: SessionStore, most: int) -> list[Claim]:
    """What a runner gets that asks so often."""
    got = [await store.claim("runner", "i1") for _ in range(most)]
    return [claim for claim in got if claim is not None]


async def permit_wanted(store: SessionStore) -> None:
    """As the operator answers."""
    for uid in await store.wanted():
        await permitted(store, uid)


async def claims_with_permits(store: SessionStore, most: int) -> list[Claim]:
    """As ``claims``, while the operator permits what is wanted."""
    got: list[Claim] = []
    for _ in range(2 * most):
        if len(got) < most:
            got += await claims(store, 1)
            await permit_wanted(store)
    return got


async def seen(store: SessionStore, uid: str = "s1") -> SessionView:
    view = await store.get(uid, records=True)
    assert view is not None
    return view


async def last(store: SessionStore, uid: str = "s1") -> RunView:
    run = (await seen(store, uid)).last_run
    assert run is not None
    return run


# Offers


async def test_an_offer_is_kept_as_it_was_made_and_made_once(store: SessionStore) -> None:
    assert await store.offer(offer())
    assert not await store.offer(replace(offer(), name="another", work_order={}))
    assert await store.get("s1") == SessionView(offer(), runs=())


async def test_an_offer_without_permit_is_not_claimable_and_a_runner_asks_for_one(store: SessionStore) -> None:
    await offered(store)
    assert await store.wanted() == []
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["s1"]
    assert (await seen(store)).wanted
    with pytest.raises(PermitRefused, match="no permit for run 1"):
        await store.claim_run("s1", 1, "runner", "i1")


async def test_text_no_backend_can_keep_is_refused_by_all(store: SessionStore) -> None:
    for order in ({"a": "\0"}, {"\0": 1}, {"a": float("nan")}, {"a": "\ud800"}):
        with pytest.raises(InvalidInput):
            await store.offer(replace(offer(), work_order=order))
    assert await store.get("s1") is None
    assert await store.offer(replace(offer(), work_order={"a": "\\u0000 is only an escape, written out"}))


# Permits


async def test_a_permit_is_visible_before_it_is_claimed(store: SessionStore) -> None:
    await offered(store)
    assert await store.next_permit_counter("s1", 1) == 1
    await permitted(store)
    assert await last(store) == RunView(
        1, RunState.PERMITTED, 1, permit_expired=False, run_inputs={"findings": ["of run 1, counter 1"]}
    )
    assert await store.next_permit_counter("s1", 1) == 2
    assert await store.next_permit_counter("s1", 2) == 1


async def test_a_higher_counter_replaces_an_unclaimed_permit_and_another_does_not(store: SessionStore) -> None:
    await offered(store)
    assert await store.permit(permit(counter=2))
    assert not await store.permit(permit(counter=2))
    assert not await store.permit(permit(counter=1))
    assert await store.permit(permit(counter=3))
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert (claim.permit_counter, claim.run_inputs) == (3, {"findings": ["of run 1, counter 3"]})


async def test_a_permit_for_a_claimed_or_ended_run_is_not_written(store: SessionStore) -> None:
    await claimed(store)
    assert not await store.permit(permit(counter=9))
    assert await store.finish("s1", 1, DONE)
    assert not await store.permit(permit(counter=9))
    assert (await last(store)).permit_counter == 1


@pytest.mark.parametrize("end", ["finish", "lose"])
async def test_run_two_is_permitted_only_after_run_one_has_ended(store: SessionStore, end: str) -> None:
    await offered(store)
    with pytest.raises(PermitRefused, match="not the next"):
        await store.permit(permit(run=2))
    await permitted(store)
    with pytest.raises(PermitRefused, match="run 1 is permitted"):
        await store.permit(permit(run=2))
    await store.claim_run("s1", 1, "runner", "i1")
    with pytest.raises(PermitRefused, match="run 1 is claimed"):
        await store.permit(permit(run=2))
    await store.start("s1", 1, {})
    with pytest.raises(PermitRefused, match="run 1 is started"):
        await store.permit(permit(run=2))
    if end == "finish":
        assert await store.finish("s1", 1, FAILED)
    else:
        assert await store.lose("s1", 1, counter=0, reason="LeaseExpired")
    with pytest.raises(PermitRefused, match="not the next one, which is run 2"):
        await store.permit(permit(run=3))
    assert await store.permit(permit(run=2))
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert claim.run == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"seconds": 10.1}, "10 seconds", id="longer than ten seconds"),
        pytest.param({"seconds": -1.0}, "10 seconds", id="negative life"),
        pytest.param({"run": 0}, "count from 1", id="run zero"),
        pytest.param({"counter": 0}, "count from 1", id="counter zero"),
    ],
)
async def test_a_permit_no_session_could_use_is_invalid(
    store: SessionStore, change: dict[str, float], why: str
) -> None:
    await offered(store)
    with pytest.raises(InvalidInput, match=why):
        await store.permit(replace(permit(), **change))  # type: ignore[arg-type]


async def test_a_permit_for_another_snapshot_an_unknown_or_a_closed_session_is_refused(
    store: SessionStore,
) -> None:
    with pytest.raises(PermitRefused, match="never offered"):
        await store.permit(permit("nobody"))
    await offered(store)
    with pytest.raises(PermitRefused, match="needs a new session"):
        await store.permit(replace(permit(), snapshot_digest=ONE))
    await store.close_session("s1")
    with pytest.raises(PermitRefused, match="closed"):
        await store.permit(permit())


# Claims


async def test_a_claim_hands_over_offer_and_run_inputs(store: SessionStore) -> None:
    await offered(store)
    await permitted(store)
    order = offer()
    assert await store.claim("runner", "i1") == Claim(
        session_uid="s1",
        namespace="team",
        name="session-s1",
        task_uid="t1",
        graph_uid="g1",
        agent_uid="a1",
        agent_name="agent",
        role="Producer",
        run=1,
        permit_counter=1,
        runner="runner",
        instance="i1",
        work_order=order.work_order,
        run_inputs={"findings": ["of run 1, counter 1"]},
    )
    run = await last(store)
    assert (run.state, run.runner, run.instance) == (RunState.CLAIMED, "runner", "i1")
    assert run.claimed_at is not None
    assert RFC3339.fullmatch(run.claimed_at)
    assert [run.session_uid for run in await store.live()] == ["s1"]


async def test_claims_come_oldest_first_and_a_run_is_handed_out_once(store: SessionStore) -> None:
    uids = ["zz", "aa", "mm"]
    for uid in uids:
        await offered(store, uid)
    for uid in reversed(uids):
        await permitted(store, uid)
    claims = [await store.claim("runner", "i1") for _ in range(4)]
    assert [claim and claim.session_uid for claim in claims] == [*uids, None]
    with pytest.raises(PermitRefused, match="run 1 of session aa is claimed"):
        await store.claim_run("aa", 1, "runner", "i2")


async def test_runners_racing_never_get_one_run_twice(subject: Subject) -> None:
    uids = [f"s{number}" for number in range(24)]
    for uid in uids:
        await offered(subject.store, uid)
        await permitted(subject.store, uid)
    got: list[str] = []

    async def run(store: SessionStore, name: str) -> None:
        while len(got) < len(uids):
            claim = await store.claim(name, "i1")
            if claim is None:
                await asyncio.sleep(0.01)
            else:
                got.append(claim.session_uid)

    async with asyncio.timeout(30):
        await asyncio.gather(*(run(side, f"r{n}") for n in range(3) for side in (subject.store, subject.other)))
    assert sorted(got) == sorted(uids)


async def test_racing_for_one_named_run_has_one_winner(subject: Subject) -> None:
    await offered(subject.store)
    await permitted(subject.store)
    found = await asyncio.gather(
        *(side.claim_run("s1", 1, "r", f"{n}") for n in range(4) for side in (subject.store, subject.other)),
        return_exceptions=True,
    )
    winners = [claim for claim in found if isinstance(claim, Claim)]
    assert len(winners) == 1
    assert {type(claim) for claim in found} == {Claim, PermitRefused}
    assert (await last(subject.store)).instance == winners[0].instance


async def test_an_expired_permit_refuses_the_claim_and_asks_for_a_new_one(subject: Subject) -> None:
    store = subject.store
    await offered(store)
    assert await store.permit(permit(seconds=0.2))
    assert not (await last(store)).permit_expired
    await subject.elapse(0.3)
    assert (await last(store)).permit_expired
    with pytest.raises(PermitRefused, match="permit 1 of run 1 of session s1 has expired"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.wanted() == ["s1"]
    assert await store.claim("runner", "i1") is None
    assert (await last(store)).state is RunState.PERMITTED
    await permitted(store)
    assert await store.wanted() == []
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert claim.permit_counter == 2


async def test_a_runner_that_finds_only_expired_permits_makes_a_session_wanted(subject: Subject) -> None:
    store = subject.store
    for uid in ("old", "new"):
        await offered(store, uid)
        assert await store.permit(permit(uid, seconds=0))
    assert await store.wanted() == []
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["old"]
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["old"], "one is on its way: nobody else is asked for"
    await subject.elapse(1.1)
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["old", "new"], "it did not come: the next is asked for"
    await permitted(store, "new")
    assert await store.wanted() == ["old"]
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert claim.session_uid == "new"


async def test_a_permit_of_another_run_refuses_the_claim(store: SessionStore) -> None:
    await claimed(store)
    await store.finish("s1", 1, FAILED)
    with pytest.raises(PermitRefused, match=r"no permit for run 2 \(permitted so far: 1\)"):
        await store.claim_run("s1", 2, "runner", "i1")
    await permitted(store, run=2)
    with pytest.raises(PermitRefused, match="run 1 of session s1 is finished"):
        await store.claim_run("s1", 1, "runner", "i1")
    with pytest.raises(PermitRefused, match="no permit for run 3"):
        await store.claim_run("s1", 3, "runner", "i1")
    with pytest.raises(PermitRefused, match="never offered"):
        await store.claim_run("s2", 1, "runner", "i1")
    assert (await store.claim_run("s1", 2, "runner", "i1")).run == 2


async def test_a_revoked_session_refuses_permit_and_claim(store: SessionStore) -> None:
    await offered(store)
    await permitted(store)
    assert await store.revoke("s1", "AgentSuspended")
    with pytest.raises(PermitRefused, match="revoked: AgentSuspended"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == []
    with pytest.raises(PermitRefused, match="AgentSuspended"):
        await store.permit(permit(counter=2, revision=1))
    assert (await seen(store)).revoked == "AgentSuspended"


async def test_a_permit_decided_before_a_revocation_in_its_task_refuses_the_claim(store: SessionStore) -> None:
    await offered(store, "s1")
    await offered(store, "s2")
    await permitted(store, "s1")
    assert await store.revoke("s2", "TaskDeleted")
    assert (await last(store)).permit_expired
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["s1"]
    with pytest.raises(PermitRefused, match="decided at revocation revision 0, now it is 1"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.permit(permit(counter=2, revision=0))  # decided before, written after
    with pytest.raises(PermitRefused, match="revocation revision"):
        await store.claim_run("s1", 1, "runner", "i1")
    assert await store.permit(permit(counter=3, revision=1))
    assert (await store.claim_run("s1", 1, "runner", "i1")).permit_counter == 3


async def test_a_revocation_in_another_task_voids_nothing(store: SessionStore) -> None:
    assert await store.offer(offer("mine", task="t1"))
    assert await store.offer(offer("theirs", task="t2"))
    await permitted(store, "mine")
    assert await store.revoke("theirs", "TaskDeleted")
    assert not (await last(store, "mine")).permit_expired
    assert (await store.claim_run("mine", 1, "runner", "i1")).permit_counter == 1


async def test_a_revocation_in_another_task_does_not_save_an_older_permit(store: SessionStore) -> None:
    assert await store.offer(offer("mine", task="t1"))
    assert await store.offer(offer("sibling", task="t1"))
    assert await store.offer(offer("theirs", task="t2"))
    await permitted(store, "mine")
    assert await store.revoke("sibling", "TaskCancelled")
    assert await store.revoke("theirs", "TaskDeleted")
    with pytest.raises(PermitRefused, match="decided at revocation revision 0, now it is 1"):
        await store.claim_run("mine", 1, "runner", "i1")
    assert await store.permit(permit("mine", counter=2, revision=1)), "decided after the one that concerns it"
    assert (await store.claim_run("mine", 1, "runner", "i1")).permit_counter == 2


# Limits


async def test_an_agent_has_no_more_live_runs_than_its_limit(store: SessionStore) -> None:
    for number in range(3):
        assert await store.offer(offer(f"s{number}"))
        assert await store.permit(replace(permit(f"s{number}"), agent_limit=2))
    assert await store.offer(offer("other", agent="a2"))
    await permitted(store, "other")
    assert [claim.session_uid for claim in await claims(store, 2)] == ["s0", "s1"]
    assert (await seen(store, "s2")).held_by is HeldBy.AGENT_LIMIT
    assert (await seen(store, "s0")).held_by is None, "it is at work, not waiting"
    assert [claim.session_uid for claim in await claims(store, 2)] == ["other"], "another agent is not held"
    with pytest.raises(PermitRefused, match="agent agent has as many live runs as its maxConcurrentSessions"):
        await store.claim_run("s2", 1, "runner", "i1")
    assert await store.wanted() == [], "a fresh permit would not help"
    await store.finish("s0", 1, DONE)
    assert (await seen(store, "s2")).held_by is None
    assert [claim.session_uid for claim in await claims(store, 2)] == ["s2"]


@pytest.mark.parametrize("end", ["finish", "lose", "lose_instances", "revoke"])
async def test_every_way_a_run_ends_makes_room(store: SessionStore, end: str) -> None:
    for number in range(2):
        assert await store.offer(offer(f"s{number}", task=f"t{number}"))
        assert await store.permit(replace(permit(f"s{number}"), agent_limit=1))
    assert len(await claims(store, 2)) == 1
    if end == "finish":
        await store.finish("s0", 1, FAILED)
    elif end == "lose":
        await store.lose("s0", 1, counter=0, reason="LeaseExpired")
    elif end == "lose_instances":
        await store.lose_instances("runner", "i2")
    else:
        await store.revoke("s0", "TaskCancelled")
    assert [claim.session_uid for claim in await claims(store, 2)] == ["s1"]


async def test_all_agents_together_have_no_more_live_runs_than_the_limit_of_all(store: SessionStore) -> None:
    await store.limit(None, 2)
    for number in range(3):
        assert await store.offer(offer(f"s{number}", agent=f"a{number}"))
        await permitted(store, f"s{number}")
    assert [claim.session_uid for claim in await claims(store, 3)] == ["s0", "s1"]
    assert (await seen(store, "s2")).held_by is HeldBy.GLOBAL_LIMIT
    with pytest.raises(PermitRefused, match="max_concurrent_sessions"):
        await store.claim_run("s2", 1, "runner", "i1")
    await store.limit(None, 3)
    assert [claim.session_uid for claim in await claims(store, 3)] == ["s2"]


async def test_a_limit_takes_effect_at_once_for_what_already_waits(store: SessionStore) -> None:
    for number in range(3):
        assert await store.offer(offer(f"s{number}"))
        assert await store.permit(replace(permit(f"s{number}"), agent_limit=1))
    assert len(await claims(store, 3)) == 1
    await store.limit("a1", 2)
    assert len(await claims(store, 3)) == 1
    await store.limit("a1", None)
    assert len(await claims(store, 3)) == 1
    await store.limit("a1", 1)
    assert len(await store.live()) == 3, "what is at work stays"


async def test_a_limit_that_would_hold_everything_for_ever_is_refused(store: SessionStore) -> None:
    await offered(store)
    with pytest.raises(InvalidInput, match="suspend instead"):
        await store.limit("a1", 0)
    with pytest.raises(InvalidInput, match="suspend instead"):
        await store.permit(replace(permit(), agent_limit=0))


async def test_an_older_decision_does_not_undo_a_newer_limit(store: SessionStore) -> None:
    await offered(store)
    decided_at = await store.now() - timedelta(seconds=1)
    await store.limit("a1", 1)
    assert await store.permit(replace(permit(), agent_limit=5, decided_at=decided_at))
    assert await store.claim("runner", "i1") is not None
    assert await store.offer(offer("s2"))
    assert (await seen(store, "s2")).held_by is HeldBy.AGENT_LIMIT


async def test_racing_runners_never_exceed_a_limit(subject: Subject) -> None:
    await subject.store.limit(None, 5)
    for number in range(24):
        assert await subject.store.offer(offer(f"s{number:02}", agent=f"a{number % 3}", graph=f"g{number % 4}"))
        assert await subject.store.permit(replace(permit(f"s{number:02}"), agent_limit=2))
    most: Counter[str] = Counter()
    done = 0

    async def run(store: SessionStore, name: str) -> None:
        nonlocal done
        while done < 24:
            claim = await store.claim(name, "i1")
            if claim is None:
                await asyncio.sleep(0.005)
                continue
            live = await store.live()
            most["all"] = max(most["all"], len(live))
            for agent, number in Counter(item.agent_uid for item in live).items():
                most[agent] = max(most[agent], number)
            await store.finish(claim.session_uid, claim.run, DONE)
            done += 1

    async with asyncio.timeout(9):
        await asyncio.gather(*(run(side, f"r{n}") for n in range(6) for side in (subject.store, subject.other)))
    assert max(most[f"a{n}"] for n in range(3)) <= 2
    assert most["all"] <= 5


# Fairness


async def test_the_graph_with_the_fewest_live_runs_comes_first_then_the_oldest(store: SessionStore) -> None:
    for uid, graph in (("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B"), ("c1", "C")):
        assert await store.offer(offer(uid, graph=graph))
        await permitted(store, uid)
    taken = [claim.session_uid for claim in await claims(store, 5)]
    assert taken == ["a1", "b1", "c1", "a2", "a3"]


async def test_a_crowd_of_one_graph_delays_another_by_no_more_than_one_slot(subject: Subject) -> None:
    """Runs end one by one and the operator permits whatever is wanted; the newcomer is not permitted yet."""
    store = subject.store
    for number in range(60):
        assert await store.offer(offer(f"crowd-{number:02}", graph="A", task=f"ta{number}"))
        if number < 8:
            await permitted(store, f"crowd-{number:02}")
    live = await claims(store, 4)
    assert await store.offer(offer("single", graph="B", task="tb"))
    order = []
    for _ in range(3):
        await store.finish(live[0].session_uid, live[0].run, DONE)
        (claim,) = await claims_with_permits(store, 1)
        live = [*live[1:], claim]
        order.append(claim.session_uid)
        await permit_wanted(store)
    assert "single" in order[:2], order


# Permits on demand


async def test_what_lies_ready_is_counted_with_the_share_of_a_graph(subject: Subject) -> None:
    store = subject.store
    assert await store.outstanding("A") == Outstanding(0, 0)
    for number, graph in enumerate("AABBC"):
        assert await store.offer(offer(f"s{number}", graph=graph, task=f"t{number}"))
    await permitted(store, "s0")
    assert await store.permit(permit("s1", seconds=0))
    await permitted(store, "s2")
    assert await store.outstanding("A") == Outstanding(2, 1)
    assert (await store.claim_run("s0", 1, "runner", "i1")).session_uid == "s0"
    assert await store.outstanding("A") == Outstanding(1, 1)
    await store.revoke("s2", "TaskCancelled")
    await store.finish("s0", 1, DONE)
    assert await store.outstanding("A") == Outstanding(0, 0)


async def test_quick_claims_ask_ahead_and_only_for_what_lacks_a_permit(store: SessionStore) -> None:
    for number in range(40):
        assert await store.offer(offer(f"s{number:02}", task=f"t{number}"))
        if number < 16:
            await permitted(store, f"s{number:02}")
    assert len(await claims(store, 4)) == 4
    assert await store.wanted() == [], "twelve permits lie ready: more than anybody needs"
    assert len(await claims(store, 12)) == 12
    ahead = len(await store.wanted())
    assert 1 <= ahead <= 8
    assert await store.wanted() == [f"s{number:02}" for number in range(16, 16 + ahead)]


async def test_who_was_passed_over_is_not_asked_for_again_until_it_has_a_permit(subject: Subject) -> None:
    store = subject.store
    assert await store.offer(offer("suspended"))
    assert await store.offer(offer("next"))
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["suspended"]
    await store.pass_over("suspended")
    await store.pass_over("next")  # not wanted: no change
    assert (await seen(store, "suspended")).passed_over
    assert not (await seen(store, "next")).passed_over
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == ["next"]
    await permitted(store, "suspended")
    assert not (await seen(store, "suspended")).passed_over
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert claim.session_uid == "suspended"


@pytest.mark.parametrize("run", [1, 2])
async def test_a_permit_that_nobody_claimed_is_taken_out_of_the_line_until_there_is_another(
    subject: Subject, run: int
) -> None:
    store = subject.store
    if run == 2:
        await claimed(store)
        await store.finish("s1", 1, DONE)
    else:
        await offered(store)
    await permitted(store, run=run)
    await store.pass_over("s1")
    await subject.other.pass_over("s1")  # again: no change
    assert (await seen(store)).passed_over
    assert await store.outstanding("g1") == Outstanding(0, 0)
    with pytest.raises(PermitRefused, match="held back"):
        await store.claim_run("s1", run, "runner", "i1")
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == [], "nobody asks for what is held back"
    await permitted(store, run=run)
    claim = await store.claim("runner", "i1")
    assert claim is not None
    assert (claim.run, claim.permit_counter) == (run, 2)
    await store.pass_over("s1")
    assert (await last(store)).state is RunState.CLAIMED, "what was claimed is not taken away"


async def test_a_permit_is_either_claimed_or_taken_out_of_the_line_when_both_are_tried_at_once(
    subject: Subject,
) -> None:
    for number in range(20):
        uid = f"s{number:02}"
        assert await subject.store.offer(offer(uid, task=f"t{number}"))
        await permitted(subject.store, uid)
        claim, _ = await asyncio.gather(subject.store.claim("runner", "i1"), subject.other.pass_over(uid))
        view = await seen(subject.store, uid)
        assert view.passed_over is (claim is None)
        assert view.runs[0].state is (RunState.PERMITTED if claim is None else RunState.CLAIMED)


async def test_who_was_passed_over_can_be_put_back_at_its_place(subject: Subject) -> None:
    store = subject.store
    assert await store.offer(offer("first"))
    assert await store.offer(offer("second"))
    assert await store.claim("runner", "i1") is None
    await store.pass_over("first")
    await store.line_up("first")
    await subject.other.line_up("first")
    view = await seen(store, "first")
    assert (view.in_line, view.passed_over, view.wanted) == (True, False, False)
    await permitted(store, "second")
    await permitted(store, "first")
    assert [claim.session_uid for claim in await claims(store, 3)] == ["first", "second"]


@pytest.mark.parametrize("end", ["claimed", "finished", "revoked", "closed"])
async def test_what_was_not_passed_over_is_not_put_in_line(store: SessionStore, end: str) -> None:
    await claimed(store)
    if end == "finished":
        await store.finish("s1", 1, DONE)
    elif end == "revoked":
        await store.revoke("s1", "TaskCancelled")
    elif end == "closed":
        await store.finish("s1", 1, DONE)
        await store.close_session("s1")
    before = await seen(store)
    await store.line_up("s1")
    assert await seen(store) == before
    assert await store.claim("runner", "i1") is None
    assert await store.wanted() == []


async def test_what_is_wanted_is_known_to_another_process(subject: Subject) -> None:
    assert await subject.store.offer(offer("s1"))
    assert await subject.store.claim("runner", "i1") is None
    assert await subject.other.wanted() == ["s1"]
    view = await subject.other.get("s1")
    assert view is not None
    assert view.wanted


# Runs


async def test_the_first_record_is_timed_by_when_its_host_heard_it(subject: Subject) -> None:
    store = subject.store
    await claimed(store)
    await store.start("s1", 1, {})
    await subject.elapse(0.3)
    await store.record("s1", 1, 1, ONE, held_seconds=0.2)
    run = await last(store)
    assert run.started_at is not None
    assert run.first_record_at is not None
    waited = datetime.fromisoformat(run.first_record_at) - datetime.fromisoformat(run.started_at)
    assert timedelta(seconds=0.05) < waited < timedelta(seconds=5)
    await store.record("s1", 1, 2, TWO)
    assert (await last(store)).first_record_at == run.first_record_at


async def test_no_record_was_heard_before_the_start(store: SessionStore) -> None:
    await claimed(store)
    await store.start("s1", 1, {})
    await store.record("s1", 1, 1, ONE, held_seconds=3600)
    run = await last(store)
    assert run.first_record_at == run.started_at


async def test_a_start_is_recorded_once_with_what_the_host_measured(store: SessionStore) -> None:
    await claimed(store)
    facts = {"isolated": True, "program": ONE, "n": [1, 2]}
    assert await store.start("s1", 1, facts)
    assert not await store.start("s1", 1, {"isolated": False})
    run = await last(store)
    assert (run.state, run.facts) == (RunState.STARTED, facts)
    assert run.started_at is not None
    assert RFC3339.fullmatch(run.started_at)
    assert [run.session_uid for run in await store.live()] == ["s1"]
    await store.finish("s1", 1, DONE)
    assert not await store.start("s1", 1, facts)
    assert (await last(store)).state is RunState.FINISHED


async def test_only_a_claimed_run_can_start(store: SessionStore) -> None:
    await offered(store)
    with pytest.raises(NotFound, match="no run 1"):
        await store.start("s1", 1, {})
    with pytest.raises(NotFound):
        await store.start("s2", 1, {})
    await permitted(store)
    with pytest.raises(Conflict, match="permitted"):
        await store.start("s1", 1, {})
    await store.claim_run("s1", 1, "runner", "i1")
    await store.lose("s1", 1, counter=0, reason="LeaseExpired")
    with pytest.raises(Conflict, match="LeaseExpired"):
        await store.start("s1", 1, {})


async def test_a_renewal_raises_the_counter_and_never_lowers_it(store: SessionStore) -> None:
    await claimed(store)
    for counter, expected in ((1, 1), (5, 5), (3, 5)):
        assert await store.renew("s1", 1, counter) is None
        assert (await last(store)).counter == expected
    await store.finish("s1", 1, DONE)
    with pytest.raises(Conflict, match="no lease to renew: it is finished"):
        await store.renew("s1", 1, 6)
    assert (await last(store)).counter == 5


async def test_a_renewal_tells_why_the_run_was_taken_away(store: SessionStore) -> None:
    await claimed(store, "s1")
    await claimed(store, "s2")
    await store.revoke("s1", "AgentSuspended")
    await store.lose("s2", 1, counter=0, reason="LeaseExpired")
    assert await store.renew("s1", 1, 1) == "AgentSuspended"
    assert await store.renew("s2", 1, 1) == "LeaseExpired"
    assert (await last(store, "s1")).counter == 0


async def test_nobody_renews_what_nobody_claimed(store: SessionStore) -> None:
    await offered(store)
    with pytest.raises(NotFound):
        await store.renew("s1", 1, 1)
    await permitted(store)
    with pytest.raises(Conflict, match="nobody has claimed it"):
        await store.renew("s1", 1, 1)


async def test_journal_segments_are_noted_without_gaps_and_once(store: SessionStore) -> None:
    await claimed(store)
    with pytest.raises(SequenceGap) as gap:
        await store.record("s1", 1, 2, TWO)
    assert gap.value.expected == 1
    first = await store.record("s1", 1, 1, ONE)
    assert (first.sequence, first.digest, first.first) == (1, ONE, True)
    again = await store.record("s1", 1, 1, ONE)
    assert again == replace(first, first=False)
    with pytest.raises(Conflict, match="what is noted stays"):
        await store.record("s1", 1, 1, TWO)
    with pytest.raises(SequenceGap) as gap:
        await store.record("s1", 1, 3, TWO)
    assert gap.value.expected == 2
    with pytest.raises(SequenceGap) as gap:
        await store.record("s1", 1, 0, TWO)
    assert gap.value.expected == 2
    assert (await store.record("s1", 1, 2, TWO)).first
    assert (await last(store)).records == 2
    assert (await seen(store)).record_digests == ((1, 1, ONE), (1, 2, TWO))


async def test_segments_are_numbered_by_run_and_end_with_it(store: SessionStore) -> None:
    await claimed(store)
    await store.record("s1", 1, 1, ONE)
    await store.finish("s1", 1, FAILED)
    with pytest.raises(Conflict, match=r"no further segment: it is finished with failed \(HarnessFailed\)"):
        await store.record("s1", 1, 2, TWO)
    assert not (await store.record("s1", 1, 1, ONE)).first
    await claimed(store, run=2)
    await store.record("s1", 2, 1, TWO)
    assert (await seen(store)).record_digests == ((1, 1, ONE), (2, 1, TWO))
    with pytest.raises(NotFound):
        await store.record("s1", 3, 1, ONE)


async def test_racing_writers_of_one_segment_note_it_once(subject: Subject) -> None:
    await claimed(subject.store)
    found = await asyncio.gather(
        *(side.record("s1", 1, 1, ONE) for _ in range(4) for side in (subject.store, subject.other))
    )
    assert sorted(receipt.first for receipt in found) == [False] * 7 + [True]
    assert (await last(subject.store)).records == 1


async def test_a_result_is_recorded_once_and_never_another(store: SessionStore) -> None:
    await claimed(store)
    await store.start("s1", 1, {})
    assert await store.finish("s1", 1, DONE)
    assert not await store.finish("s1", 1, DONE)
    for other in (FAILED, replace(DONE, message="other"), replace(DONE, usage=Usage()), replace(DONE, outputs=())):
        with pytest.raises(Conflict, match="finished with succeeded"):
            await store.finish("s1", 1, other)
    run = await last(store)
    assert (run.state, run.result) == (RunState.FINISHED, DONE)
    assert run.ended_at is not None
    assert RFC3339.fullmatch(run.ended_at)
    assert run.claimed_at is not None
    assert run.started_at is not None
    assert run.claimed_at <= run.started_at <= run.ended_at
    assert await store.live() == []


async def test_a_run_that_never_started_can_finish_and_an_unclaimed_one_cannot(store: SessionStore) -> None:
    refused = RunResult(Outcome.REFUSED, "ProgramAltered", "the program is not the one approved")
    await offered(store)
    with pytest.raises(NotFound):
        await store.finish("s1", 1, refused)
    await permitted(store)
    with pytest.raises(Conflict, match="permitted"):
        await store.finish("s1", 1, refused)
    await store.claim_run("s1", 1, "runner", "i1")
    assert await store.finish("s1", 1, refused)
    assert (await last(store)).result == refused


@pytest.mark.parametrize("end", ["lost", "revoked"])
async def test_a_run_taken_away_cannot_finish(store: SessionStore, end: str) -> None:
    await claimed(store)
    await store.start("s1", 1, {})
    if end == "lost":
        assert await store.lose("s1", 1, counter=0, reason="WhyNot")
    else:
        assert await store.revoke("s1", "WhyNot")
    with pytest.raises(Conflict, match=rf"{end} \(WhyNot\)"):
        await store.finish("s1", 1, DONE)
    run = await last(store)
    assert (run.state, run.result, run.end_reason) == (RunState(end), None, "WhyNot")
    assert run.ended_at is not None


async def test_a_run_is_lost_only_while_its_counter_stands_still(store: SessionStore) -> None:
    await claimed(store)
    await store.renew("s1", 1, 4)
    assert not await store.lose("s1", 1, counter=3, reason="LeaseExpired")
    assert (await last(store)).state is RunState.CLAIMED
    assert await store.lose("s1", 1, counter=4, reason="LeaseExpired")
    assert not await store.lose("s1", 1, counter=4, reason="LeaseExpired")
    assert not await store.lose("s2", 1, counter=0, reason="LeaseExpired")
    run = await last(store)
    assert (run.state, run.end_reason) == (RunState.LOST, "LeaseExpired")
    assert await store.live() == []


async def test_a_restarted_runner_loses_the_runs_of_its_earlier_instances_only(store: SessionStore) -> None:
    await claimed(store, "b", instance="i1")
    await claimed(store, "a", instance="i1")
    await claimed(store, "kept", instance="i2")
    await claimed(store, "done", instance="i1")
    await store.finish("done", 1, DONE)
    await offered(store, "foreign")
    await permitted(store, "foreign")
    await store.claim_run("foreign", 1, "another", "i1")
    assert await store.lose_instances("runner", "i2") == [("a", 1), ("b", 1)]
    assert await store.lose_instances("runner", "i2") == []
    assert (await last(store, "a")).end_reason == "RunnerRestarted"
    assert [run.session_uid for run in await store.live()] == ["kept", "foreign"]


# Revocation


async def test_a_revocation_ends_the_live_run_and_is_counted_once(store: SessionStore) -> None:
    await claimed(store)
    await store.start("s1", 1, {})
    assert await store.revocation_revision() == 0
    assert await store.revoke("s1", "AgentSuspended")
    assert await store.revocation_revision() == 1
    assert not await store.revoke("s1", "Again")
    assert not await store.revoke("unknown", "AgentSuspended")
    assert await store.revocation_revision() == 1
    view = await seen(store)
    assert view.revoked == "AgentSuspended"
    assert view.runs[0].state is RunState.REVOKED
    assert view.runs[0].end_reason == "AgentSuspended"
    assert await store.live() == []
    assert await store.open_sessions() == []


async def test_a_revocation_leaves_the_evidence_of_ended_runs(store: SessionStore) -> None:
    await claimed(store)
    await store.finish("s1", 1, DONE)
    assert await store.revoke("s1", "TaskDeleted")
    run = await last(store)
    assert (run.state, run.result, run.end_reason) == (RunState.FINISHED, DONE, None)


async def test_a_revocation_racing_a_claim_leaves_no_live_run(subject: Subject) -> None:
    claims = 0
    for number in range(25):
        uid = f"s{number}"
        await offered(subject.store, uid)
        await permitted(subject.store, uid)

        async def claim(uid: str = uid) -> Claim | None:
            try:
                return await subject.other.claim_run(uid, 1, "runner", "i1")
            except PermitRefused:
                return None

        pair = [claim(), subject.store.revoke(uid, "Stop")]
        got, *_ = sorted(await asyncio.gather(*pair[:: 1 if number % 2 else -1]), key=lambda x: x is True)
        run = await last(subject.store, uid)
        assert run.state is (RunState.REVOKED if got else RunState.PERMITTED)
        claims += got is not None
        with pytest.raises(PermitRefused):
            await subject.other.claim_run(uid, 1, "runner", "i2")
    assert await subject.store.live() == []
    assert await subject.store.revocation_revision() == 25


async def test_a_revocation_racing_any_claim_leaves_no_live_run(subject: Subject) -> None:
    for number in range(15):
        uid = f"s{number}"
        await offered(subject.store, uid)
        await permitted(subject.store, uid)
        await asyncio.gather(
            subject.other.claim("r", "1"), subject.store.revoke(uid, "Stop"), subject.store.claim("r", "2")
        )
        assert (await last(subject.store, uid)).state in (RunState.REVOKED, RunState.PERMITTED)
        assert await subject.store.claim("r", "3") is None
    assert await subject.store.live() == []


# Reading


async def test_many_sessions_are_read_at_once_and_unknown_ones_left_out(store: SessionStore) -> None:
    await offered(store, "s1")
    await claimed(store, "s2")
    views = await store.get_many(["s2", "nobody", "s1"])
    assert views == {"s1": await seen(store, "s1"), "s2": await seen(store, "s2")}
    assert await store.get("nobody") is None
    assert await store.get_many([]) == {}


async def test_journal_segments_are_read_only_when_asked_for(store: SessionStore) -> None:
    await claimed(store)
    await store.record("s1", 1, 1, ONE)
    with_records = await store.get("s1", records=True)
    assert with_records is not None
    assert with_records.record_digests == ((1, 1, ONE),)
    assert await store.get("s1") == replace(with_records, record_digests=())
    assert await store.get_many(["s1"], records=True) == {"s1": with_records}
    assert (await store.get_many(["s1"]))["s1"].record_digests == ()


async def test_live_runs_are_read_without_what_they_work_on(store: SessionStore) -> None:
    await claimed(store, "done")
    await store.finish("done", 1, DONE)
    await claimed(store)
    await store.renew("s1", 1, 7)
    assert await store.live() == [
        LiveRun("s1", "team", "session-s1", "t1", "g1", "a1", run=1, counter=7, runner="runner", instance="i1")
    ]


async def test_open_sessions_are_read_with_their_last_run_and_by_task(store: SessionStore) -> None:
    await offered(store, "new")
    await claimed(store, "again")
    await store.lose("again", 1, counter=0, reason="LeaseExpired")
    await permitted(store, "again", run=2)
    assert await store.offer(offer("elsewhere", task="t2"))
    await offered(store, "gone")
    await store.revoke("gone", "TaskDeleted")
    new = OpenSession("new", "team", "session-new", "t1")
    again = OpenSession("again", "team", "session-again", "t1", run=2, state=RunState.PERMITTED)
    elsewhere = OpenSession("elsewhere", "team", "session-elsewhere", "t2")
    assert await store.open_sessions() == [new, again, elsewhere]
    assert await store.open_sessions("t1") == [new, again]
    assert await store.open_sessions("t3") == []


async def test_a_closed_session_leaves_the_queues_and_keeps_its_record(store: SessionStore) -> None:
    await claimed(store, "s1")
    await store.finish("s1", 1, DONE)
    await offered(store, "s2")
    assert await store.permit(permit("s2", seconds=0))
    await store.claim("runner", "i1")
    assert [session.session_uid for session in await store.open_sessions()] == ["s1", "s2"]
    await store.close_session("s1")
    await store.close_session("s2")
    await store.close_session("nobody")
    assert await store.open_sessions() == []
    assert await store.wanted() == []
    assert await store.claim("runner", "i1") is None
    with pytest.raises(PermitRefused, match="closed"):
        await store.claim_run("s2", 1, "runner", "i1")
    view = await seen(store, "s1")
    assert view.closed
    assert view.runs[0].result == DONE


async def test_what_was_read_does_not_change_what_is_stored(store: SessionStore) -> None:
    await offered(store)
    (await seen(store)).offer.work_order["task"]["objective"] = "something else"
    assert (await seen(store)).offer == offer()


async def test_a_cursor_only_moves_forward(store: SessionStore) -> None:
    assert await store.cursor("operator") == -1
    for seq, expected in ((0, 0), (7, 7), (3, 7), (7, 7), (8, 8)):
        await store.set_cursor("operator", seq)
        assert await store.cursor("operator") == expected
    assert await store.cursor("gateway") == -1


# Wake-ups


async def _offer(store: SessionStore) -> None:
    await store.offer(offer("new"))


async def _permit(store: SessionStore) -> None:
    await store.permit(permit("offered"))


async def _claim(store: SessionStore) -> None:
    await store.claim("runner", "i1")


async def _claim_run(store: SessionStore) -> None:
    await store.claim_run("permitted", 1, "runner", "i1")


async def _start(store: SessionStore) -> None:
    await store.start("claimed", 1, {})


async def _finish(store: SessionStore) -> None:
    await store.finish("claimed", 1, DONE)


async def _lose(store: SessionStore) -> None:
    await store.lose("claimed", 1, counter=0, reason="LeaseExpired")


async def _lose_instances(store: SessionStore) -> None:
    await store.lose_instances("runner", "i2")


async def _revoke(store: SessionStore) -> None:
    await store.revoke("claimed", "Stop")


async def _want(store: SessionStore) -> None:
    with pytest.raises(PermitRefused):
        await store.claim_run("expired", 1, "runner", "i1")


@pytest.mark.parametrize(
    "act",
    [_offer, _permit, _claim, _claim_run, _start, _finish, _lose, _lose_instances, _revoke, _want],
    ids=lambda act: act.__name__.strip("_"),
)
async def test_a_change_rings_for_every_subscriber(
    subject: Subject, act: Callable[[SessionStore], Awaitable[None]]
) -> None:
    store = subject.store
    await claimed(store, "claimed")
    await offered(store, "offered")
    await offered(store, "expired")
    assert await store.permit(permit("expired", seconds=0))
    await offered(store, "permitted")
    await permitted(store, "permitted")
    async with store.changes() as here, subject.other.changes() as there:
        for bell in (here, there):
            while await bell.wait(0.5):
                pass  # rung by subscribing, or by what was done before
        await act(store)
        assert await here.wait(5)
        assert await there.wait(5)


async def test_a_bell_is_silent_when_nothing_happens_and_keeps_rings_as_one(store: SessionStore) -> None:
    async with store.changes() as bell:
        while await bell.wait(0.5):
            pass
        await offered(store, "s1")
        await offered(store, "s2")
        await asyncio.sleep(0.3)
        assert await bell.wait(5)
        assert not await bell.wait(0.3)


async def test_a_blob_belongs_to_the_namespaces_it_was_put_in_and_to_no_other(subject: Subject) -> None:
    mine, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    for _ in range(2):
        await subject.other.own_blob("team", mine)
    await subject.other.own_blob("guests", mine)
    await subject.other.own_blob("guests", other)
    assert await subject.store.owns_blob("team", mine)
    assert await subject.store.owns_blob("guests", mine)
    for namespace, digest in (("team", other), ("elsewhere", mine), ("", mine), ("Team", mine), ("tea_", mine)):
        assert not await subject.store.owns_blob(namespace, digest)


async def test_an_erased_blob_belongs_to_nobody_until_it_is_put_again(store: SessionStore) -> None:
    erased, kept = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    for namespace in ("team", "guests"):
        await store.own_blob(namespace, erased)
        await store.own_blob(namespace, kept)
    assert await store.disown_blob(erased) == {"team", "guests"}
    assert await store.disown_blob(erased) == frozenset()
    await store.own_blob("guests", erased)
    assert not await store.owns_blob("team", erased)
    assert await store.owns_blob("guests", erased)
    assert await store.owns_blob("team", kept)


async def test_whether_a_blob_belongs_to_anybody_is_known(store: SessionStore) -> None:
    digest = "sha256:" + "a" * 64
    assert not await store.blob_owned(digest)
    await store.own_blob("team", digest)
    assert await store.blob_owned(digest)
    assert not await store.blob_owned("sha256:" + "b" * 64)
    await store.disown_blob(digest)
    assert not await store.blob_owned(digest)


async def test_what_a_run_stores_counts_as_its_own_once_and_only_what_its_namespace_did_not_have(
    subject: Subject,
) -> None:
    store = subject.store
    new, had, other = ("sha256:" + letter * 64 for letter in "abc")
    await store.offer(offer())
    await store.permit(permit(revision=await store.revocation_revision()))
    await store.own_blob(offer().namespace, had)
    assert await store.own_blob_of_run("s1", 1, new, 100) == 100
    assert await subject.other.own_blob_of_run("s1", 1, new, 100) == 100
    assert await store.own_blob_of_run("s1", 1, had, 7) == 100
    assert await store.own_blob_of_run("s1", 1, other, 2**40) == 100 + 2**40
    assert await subject.other.owns_blob(offer().namespace, other)
    view = await subject.other.get("s1")
    assert view is not None
    assert view.runs[0].blob_octets == 100 + 2**40
    for uid, run in (("s1", 2), ("s2", 1)):
        with pytest.raises(NotFound):
            await store.own_blob_of_run(uid, run, "sha256:" + "d" * 64, 1)
    assert not await store.blob_owned("sha256:" + "d" * 64)


@pytest.mark.parametrize(
    ("namespace", "digest", "error"),
    [
        pytest.param("", "sha256:" + "a" * 64, InvalidInput, id="no namespace"),
        pytest.param("team", "sha256:" + "A" * 64, InvalidDigest, id="another spelling of a digest"),
    ],
)
async def test_a_blob_cannot_be_put_nowhere(
    store: SessionStore, namespace: str, digest: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.own_blob(namespace, digest)
    assert not await store.owns_blob(namespace, digest)


async def test_every_digest_that_anything_here_names_is_a_reference(subject: Subject) -> None:
    def digest(number: int) -> str:
        return f"sha256:{number:064x}"

    store = subject.store
    assert await store.blob_references() == frozenset()
    await store.offer(replace(offer(), snapshot_digest=digest(1), work_order={"a": [{"b": f"see {digest(2)}, ü"}]}))
    revision = await store.revocation_revision()
    inputs = {"x": digest(3), f"{digest(4)}": None}
    await store.permit(replace(permit(revision=revision), snapshot_digest=digest(1), run_inputs=inputs))
    await subject.other.claim_run("s1", 1, "runner", "i1")
    await subject.other.start("s1", 1, {"measured": digest(6)})
    await subject.other.record("s1", 1, 1, digest(7))
    output = RunOutput("report", "report.md", digest(8), "text/markdown", 1)
    await subject.other.finish("s1", 1, RunResult(Outcome.SUCCEEDED, "Completed", "", (output,), digest(9)))
    await subject.other.own_blob("team", digest(10))
    await subject.other.own_blob("team", digest(11))
    await store.disown_blob(digest(11))
    found = await store.blob_references()
    assert {digest(number) for number in (1, 2, 3, 4, 6, 7, 8, 9, 10)} <= found
    assert digest(11) not in found
    assert found == await subject.other.blob_references()
