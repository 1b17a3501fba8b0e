"""Attack: leave to call a tool, given in one session, is used for the same call of the session after it.

Sessions count their calls alike, so name and digest are the same.
"""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import say, world
from tests.unit.controllers.test_task_people import CALL, answers, calling

from triplane.domain import task_gates
from triplane.domain.session import Question
from triplane.domain.task_facts import TaskFacts

pytestmark = pytest.mark.attacks


async def attacked() -> tuple[MemoryWorld, str]:
    """bob lets the first session call; its permission to work is taken away, and the next one asks for the same."""
    made = world(tools=["clock"])
    first = await calling(made)
    say(made, "bob")
    await made.settle()
    assert await answers(made, first) == [(True, "p-bob")]
    await made.sessions.revoke(first, "AuthorityNarrowed: for a test")
    await made.settle_task()
    claim = await made.sessions.claim("r", "i")
    if claim is None:
        await made.settle_task()
        claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.session_uid != first
    await made.sessions.start(claim.session_uid, claim.run, {})
    now = made.clock.now()
    await made.sessions.ask(
        Question(claim.session_uid, claim.run, "call-1", CALL, "clock/now", ("bob",), now, now + timedelta(minutes=1))
    )
    await made.settle_task()
    return made, claim.session_uid


async def test_leave_that_is_not_used_up_carries_over(monkeypatch: pytest.MonkeyPatch) -> None:
    void = task_gates._void_on_calls

    def forgetful(facts: TaskFacts, *rest: object) -> str | None:
        return void(replace(facts, decisions=replace(facts.decisions, counted=frozenset())), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(task_gates, "_void_on_calls", forgetful)
    made, session = await attacked()
    assert await answers(made, session) == [(True, "p-bob")]


async def test_the_next_session_needs_a_word_of_its_own() -> None:
    made, session = await attacked()
    assert await answers(made, session) == [(None, None)]
    say(made, "bob", name="again")
    await made.settle()
    assert await answers(made, session) == [(True, "p-bob")]
