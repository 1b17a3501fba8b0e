"""Leave to launch and quorums over the stores: what is logged, what survives a crash, what is told."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, KilledError, MemoryWorld
from tests.unit.controllers.people import TASK, entries, message, say, status, to_end, world

from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.domain.session import Question

GATED: dict[str, Any] = {"approval": {"people": ["bob"]}}
MIXED: dict[str, Any] = {"review": {"reviewers": 2, "capability": "review", "people": ["carol"]}}


async def types_in(made: MemoryWorld) -> list[str]:
    found = await made.log.query(EventFilter(), limit=1000)
    return sorted(item.entry["type"] for item in found if item.entry["type"] != "run.permitted")


async def test_leave_and_both_reviews_are_logged_and_the_acceptance_names_both() -> None:
    made = world(**GATED, **MIXED)
    await to_end(made, "bob", "carol")
    assert status(made)["state"] == "completed"
    (asked,) = await entries(made, "approval.asked")
    leave, first = (await entries(made, "approval.given"))[:2]
    assert leave.entry["actor"] == "p-bob"
    assert leave.entry["data"]["gate"] == "Launch"
    permitted = await entries(made, "run.permitted")
    assert asked.seq < leave.seq < permitted[0].seq
    assert first.entry["data"]["gate"] == "Outputs"
    (accepted,) = await entries(made, "task.accepted")
    reviews = accepted.entry["data"]["reviews"]
    assert [item["reviewerPrincipal"] for item in reviews] == ["p-bob", "p-carol"]
    assert [bool(item.get("reviewSessionUid")) for item in reviews] == [True, False]
    recorded = await entries(made, "review.recorded")
    assert {item.entry["data"]["reviewUid"] for item in recorded} >= {item["reviewUid"] for item in reviews}
    assert status(made).get("approval") is None


async def test_killed_at_any_write_with_a_gate_and_a_quorum_it_records_the_same_in_the_end() -> None:
    sound = world(**GATED, **MIXED)
    await to_end(sound, "bob", "carol")
    expected, total = await types_in(sound), sound.fuse.writes
    assert expected.count("approval.given") == 3
    for at in range(1, total + 1):
        made = world(**GATED, **MIXED)
        made.fuse.at, made.fuse.after = at, at % 2 == 0
        assert await to_end(made, "bob", "carol") == 1, at
        assert await types_in(made) == expected, at
        assert status(made)["state"] == "completed", at


async def test_the_operator_may_begin_again_while_leave_is_waited_for_and_the_time_goes_on() -> None:
    made = world(approval={"people": ["bob"], "timeoutSeconds": 60})
    await made.settle()
    shown = status(made)
    assert (shown["state"], shown["waitingReason"]) == ("blocked", "human_input")
    assert shown["approval"]["people"] == ["bob"]
    until = shown["approval"]["until"]
    made.clock.advance(30)
    made.start()
    await made.settle()
    assert status(made)["approval"]["until"] == until
    assert await made.reconcile(Key("Task", NAMESPACE, "t")) == pytest.approx(30, abs=1)
    made.clock.advance(31)
    made.start()
    await made.settle()
    assert status(made)["state"] == "failed"
    assert len(await entries(made, "approval.asked")) == 1
    assert not await entries(made, "run.permitted")


async def test_the_default_that_approves_is_the_system_s_word() -> None:
    made = world(approval={"people": ["bob"], "timeoutSeconds": 60, "onTimeout": "Approve"})
    await made.settle()
    made.clock.advance(61)
    made.look()
    await made.settle()
    (given,) = await entries(made, "approval.given")
    assert (given.entry["actor"], given.entry["data"]["byDefault"]) == ("system", True)
    await to_end(made)
    assert status(made)["state"] == "completed"


async def test_an_edit_that_changes_the_snapshot_asks_for_leave_anew() -> None:
    made = world(**GATED)
    await made.settle()
    before = status(made)["approval"]["subjects"]
    say(made, "bob", name="for-the-old")
    made.server.edit("Agent", "writer", model="another")
    made.look()
    await made.settle()
    shown = status(made)
    assert shown["approval"]["subjects"] != before
    assert "for-the-old" in message(made)
    assert not await made.run_next()
    await to_end(made, "bob")
    assert status(made)["state"] == "completed"


async def test_a_task_that_waits_for_leave_holds_no_runner_up() -> None:
    made = world(**GATED)
    made.server.put("Task", "free", TASK, "alice")
    made.look()
    await made.settle()
    for _ in range(6):
        await made.run_next()
        made.look()
        await made.settle()
    assert made.server.objects["Task", NAMESPACE, "free"]["status"]["state"] == "completed"
    assert status(made)["state"] == "blocked"


async def test_who_has_approved_is_shown_while_others_must() -> None:
    made = world(agents=(("alice", "writer", "write"),), review={"reviewers": 2, "people": ["bob", "carol"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    say(made, "bob")
    await made.settle()
    assert status(made)["approvals"] == ["bob"]
    assert "by carol" in message(made)
    say(made, "carol")
    await made.settle()
    assert status(made)["state"] == "completed"
    (accepted,) = await entries(made, "task.accepted")
    assert len(accepted.entry["data"]["reviews"]) == 2


async def test_a_rejection_ends_the_reviews_of_that_round_that_are_under_way() -> None:
    agents = (("alice", "writer", "write"), ("bob", "judge", "review"), ("carol", "other", "review"))
    made = world(agents=agents, review={"reviewers": 3, "capability": "review", "people": ["dave"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    claims = [await made.sessions.claim("r", "i") for _ in range(2)]
    assert claims[0] is not None
    await made.sessions.start(claims[0].session_uid, 1, {})
    say(made, "dave", "Reject")
    await made.settle()
    view = await made.sessions.get(claims[0].session_uid)
    assert view is not None
    assert (view.revoked or "").startswith("Rejected")
    await to_end(made, "dave")
    assert status(made)["state"] == "completed"
    assert status(made)["round"] == 2


CALL = "sha256:" + "d" * 64
TOOL = {"builtin": "clock", "requiresApproval": ["**"], "approvers": ["bob"]}


async def calling(made: MemoryWorld) -> str:
    """The producing session is at work and asks to call a tool; returns its UID."""
    made.server.put("Tool", "clock", TOOL, "carol")
    made.look()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    await made.sessions.start(claim.session_uid, claim.run, {})
    now = made.clock.now()
    await made.sessions.ask(
        Question(claim.session_uid, claim.run, "call-1", CALL, "clock/now", ("bob",), now, now + timedelta(minutes=1))
    )
    made.look()
    await made.settle()
    return claim.session_uid


async def answers(made: MemoryWorld, session_uid: str) -> list[tuple[bool | None, str | None]]:
    return [(item.answer, item.principal) for item in await made.sessions.questions([session_uid])]


@pytest.mark.parametrize(
    ("verdict", "type_", "answer"),
    [
        pytest.param("Approve", "approval.given", True, id="given"),
        pytest.param("Reject", "approval.refused", False, id="refused"),
    ],
)
async def test_a_call_of_a_tool_is_shown_answered_and_logged(verdict: str, type_: str, answer: bool) -> None:
    made = world(tools=["clock"])
    session_uid = await calling(made)
    shown = status(made)
    assert shown["state"] == "running"
    assert shown["approval"]["gate"] == "Tool"
    assert shown["approval"]["subjects"] == [{"name": "call-1", "digest": CALL}]
    assert "clock/now" in message(made, "WaitingForApproval")
    say(made, "bob", verdict)
    await made.settle()
    assert await answers(made, session_uid) == [(answer, "p-bob")]
    (entry,) = await entries(made, type_)
    assert entry.entry["data"]["tool"] == "clock/now"
    assert status(made).get("approval") is None


async def test_an_answer_that_was_logged_before_a_crash_is_given_after_it() -> None:
    for at in range(1, 30):
        made = world(tools=["clock"])
        session_uid = await calling(made)
        say(made, "bob")
        made.fuse.writes, made.fuse.at, made.fuse.after = 0, at, True
        try:
            await made.settle()
        except KilledError:
            made.start()
            await made.settle()
        else:
            assert at > 5
            return
        assert await answers(made, session_uid) == [(True, "p-bob")], at
        assert len(await entries(made, "approval.given")) == 1, at
    raise AssertionError("it never came to an end")
