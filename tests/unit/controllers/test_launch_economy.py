"""Permits under load: few are given ahead, none is given again for nothing, and everything gets its turn."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_crashes import TASK, world

from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.domain.launch import EAGER_PERMITS

TASKS = EAGER_PERMITS + 4


async def permits(made: MemoryWorld) -> Counter[str]:
    """Permits logged so far, by session."""
    entries = await made.log.query(EventFilter(types=frozenset({"run.permitted"})), limit=10_000)
    return Counter(item.entry["subject"]["name"] for item in entries)


async def crowd(tasks: int = TASKS) -> MemoryWorld:
    made = world()
    for number in range(tasks):
        made.server.put("Task", f"t-{number:03}", TASK, "alice")
    made.look()
    await made.settle()
    return made


async def answer_wanted(made: MemoryWorld) -> None:
    """As the consumer does."""
    for uid in await made.sessions.wanted():
        session = made.index.by_uid(uid)
        assert session is not None
        made.pending.append(Key("Task", NAMESPACE, session["spec"]["taskRef"]["name"]))
    await made.settle()


async def until_done(made: MemoryWorld, seconds: float) -> None:
    """One runner that asks every so many seconds, until it has been told three times that there is nothing."""
    idle = 0
    while idle < 3:
        claim = await made.run_next()
        idle = idle + 1 if claim is None and not await made.sessions.wanted() else 0
        await answer_wanted(made)
        made.clock.advance(seconds)


class Counted:
    """Counts the calls of what it passes them on to."""

    def __init__(self, call: Callable[[str], Awaitable[None]]) -> None:
        self.calls = 0
        self._call = call

    async def __call__(self, session_uid: str) -> None:
        self.calls += 1
        await self._call(session_uid)


def states(made: MemoryWorld) -> Counter[str]:
    return Counter(task["status"]["state"] for task in made.server.of("Task"))


async def test_without_a_runner_a_crowd_of_tasks_gets_few_permits_and_no_more_later() -> None:
    made = await crowd()
    assert sum((await permits(made)).values()) == EAGER_PERMITS
    made.clock.advance(timedelta(minutes=5).total_seconds())
    made.look()
    await made.settle()
    given = await permits(made)
    assert sum(given.values()) <= 2 * EAGER_PERMITS, "the first have expired: as many others may be given"
    assert set(given.values()) == {1}


async def test_a_crowd_gets_done_with_about_one_permit_for_each_run() -> None:
    made = await crowd()
    await until_done(made, 0.1)
    assert states(made) == Counter(completed=TASKS + 1)
    given = await permits(made)
    assert len(given) == 2 * (TASKS + 1), "a producer and a reviewer each"
    assert sum(given.values()) <= 1.2 * len(given)


async def test_an_operator_that_begins_anew_answers_what_was_wanted_before() -> None:
    made = await crowd()
    for _ in range(EAGER_PERMITS):
        await made.sessions.claim("r", "i")
    made.clock.advance(1.5)
    assert await made.sessions.claim("r", "i") is None
    wanted = await made.sessions.wanted()
    assert wanted
    made.start()
    await answer_wanted(made)
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.session_uid in wanted


async def test_a_suspended_graph_does_not_stand_in_the_way_and_goes_on_later() -> None:
    made = await crowd()
    made.server.edit("Graph", "g", suspend=True)
    made.server.put("Graph", "free", {}, "alice")
    made.server.put("Task", "free", {**TASK, "graphRef": {"name": "free"}}, "alice")
    made.look()
    made.clock.advance(60)
    await made.settle()
    await until_done(made, 1.5)
    assert states(made) == Counter(completed=1, blocked=TASKS + 1)
    assert await made.sessions.wanted() == []
    made.server.edit("Graph", "g", suspend=False)
    made.look()
    await made.settle()
    await until_done(made, 0.5)
    assert states(made) == Counter(completed=TASKS + 2)


@pytest.mark.parametrize("where", ["Graph", "Task"])
async def test_a_permit_given_before_it_was_suspended_is_taken_by_nobody(where: str) -> None:
    made = world()
    name = "g" if where == "Graph" else "t"
    await made.settle()
    before = await permits(made)
    assert sum(before.values()) == 1
    made.server.edit(where, name, suspend=True)
    made.look()
    await made.settle()
    assert await made.sessions.claim("r", "i") is None
    assert await made.sessions.wanted() == []
    assert states(made) == Counter(blocked=1)
    passed_over = Counted(made.sessions.pass_over)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.sessions, "pass_over", passed_over)
        made.look()
        await made.settle()
    assert passed_over.calls == 0, "once is enough"
    made.server.edit(where, name, suspend=False)
    made.look()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert (claim.run, claim.permit_counter) == (1, 2), "a fresh permit"


async def test_a_crowd_that_runners_asked_for_while_suspended_is_not_launched_all_at_once() -> None:
    made = await crowd(5 * EAGER_PERMITS)
    made.server.edit("Graph", "g", suspend=True)
    made.look()
    await made.settle()
    await until_done(made, 1.5)
    assert await made.sessions.wanted() == []
    before = sum((await permits(made)).values())
    made.server.edit("Graph", "g", suspend=False)
    made.look()
    await made.settle()
    assert sum((await permits(made)).values()) - before <= 2 * EAGER_PERMITS
    await until_done(made, 0.5)
    assert states(made) == Counter(completed=5 * EAGER_PERMITS + 1)


@pytest.mark.parametrize("limit", [1, 3])
async def test_an_agents_limit_holds_from_spec_to_claim_and_says_so(limit: int) -> None:
    made = world()
    made.server.edit("Agent", "writer", maxConcurrentSessions=limit)
    for number in range(5):
        made.server.put("Task", f"t-{number}", TASK, "alice")
    made.look()
    await made.settle()
    got = [await made.sessions.claim("r", "i") for _ in range(6)]
    assert len([claim for claim in got if claim is not None]) == limit
    for _ in range(2):  # a passing state is written when it has lasted a while
        made.look()
        await made.settle()
        made.clock.advance(5)
    held = [task for task in made.server.of("Task") if task["status"].get("waitingReason") == "rate_limit"]
    assert len(held) == 6 - limit
