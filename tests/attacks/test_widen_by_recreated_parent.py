"""Idea: delete the narrow Graph and make one of the same name that grants everything, while work is under way.

References are by name; what was decided is bound to the UID and generation it was decided on.
"""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_authority import entries, world

from triplane.controllers import launch
from triplane.controllers.key import Key

pytestmark = pytest.mark.attacks

NARROW = {"authority": {"mayUse": {"egress": []}, "mayDelegate": {"egress": []}}}
WIDE = {"authority": {"mayUse": {"egress": ["*"]}}}


async def begun() -> MemoryWorld:
    """Offered and permitted under the narrow Graph; then that is another one, and nothing has told the index."""
    made = world(NARROW, authority=WIDE["authority"])
    await made.settle()
    made.clock.advance(11.0)
    old = made.server.objects["Graph", "team", "g"]
    assert await made.server.delete(old)
    made.server.put("Graph", "g", WIDE, "mallory")
    assert await made.sessions.claim("r", "i") is None  # the permit is over; it is asked for again
    return made


async def asked_again(made: MemoryWorld) -> int:
    """How many permits there are after the Task alone was looked at again."""
    before = len(await entries(made, "run.permitted"))
    made.pending.append(Key("Task", "team", "t"))
    await made.settle()
    return len(await entries(made, "run.permitted")) - before


async def test_a_new_graph_of_the_old_name_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_name(*_: object) -> None:
        """The name is there: good enough."""

    with monkeypatch.context() as weak:
        weak.setattr(launch, "confirm", by_name)
        assert await asked_again(await begun()) == 1, "the attack"
    made = await begun()
    assert await asked_again(made) == 0
    assert [entry["reason"] for entry in await entries(made, "task.failed")] == ["GraphDeleted"]
