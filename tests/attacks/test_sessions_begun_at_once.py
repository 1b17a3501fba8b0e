"""Attack: many Tasks are made at once, so that each finds a place left in the budget of sessions above them."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_authority import world
from tests.unit.controllers.test_task_crashes import TASK

from triplane.controllers.beginning import AllTaken, Beginnings
from triplane.errors import TriplaneError

pytestmark = pytest.mark.attacks
MOST = 2
TASKS = 5


async def settle(made: MemoryWorld) -> None:
    """As an operator whose queue tries what is refused again, later."""
    if not made._begun:
        await made._reconcilers.catch_up()
        made._begun = True
    while made.pending:
        key = made.pending.popleft()
        try:
            await made.reconcile(key)
        except AllTaken:
            continue
        except TriplaneError:
            made.pending.append(key)


async def attacked(*, operators: int = 1) -> MemoryWorld:
    made = world({"authority": {"mayUse": {"budget": {"sessions": MOST}}}})
    await made.settle()
    for number in range(1, TASKS):
        made.server.put("Task", f"t-{number}", TASK, "alice")
    for number in range(operators):
        if number:
            made.start()
        made.look()
        await settle(made)
    return made


async def claimed(made: MemoryWorld) -> int:
    """How many sessions runners get at once."""
    found = 0
    while (claim := await made.sessions.claim("r", "i")) is not None:
        await made.sessions.start(claim.session_uid, claim.run, {})
        found += 1
    return found


async def test_if_only_what_has_begun_counted_more_would_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(*_: object) -> None: ...

    monkeypatch.setattr(Beginnings, "take", take)
    assert await claimed(await attacked()) > MOST


@pytest.mark.parametrize("operators", [1, 2], ids=["one operator", "an operator that begins anew"])
async def test_no_more_begin_than_may(operators: int) -> None:
    made = await attacked(operators=operators)
    first = await claimed(made)
    assert first <= MOST
    for _ in range(3):
        made.clock.advance(11.0)
        made.look()
        await settle(made)
        first += await claimed(made)
    assert first == MOST


async def test_a_place_that_nobody_took_is_another_s() -> None:
    made = await attacked()
    made.clock.advance(11.0)  # nobody claimed
    made.server.put("Task", "later", TASK, "alice")
    made.look()
    await settle(made)
    assert await claimed(made) == MOST
