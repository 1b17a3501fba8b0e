"""Permits that were given before something above them changed are taken back, and no others."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_authority import world


async def ready() -> MemoryWorld:
    """A run is permitted and nobody has claimed it."""
    made = world()
    await made.settle()
    return made


async def old_is_claimed(made: MemoryWorld) -> bool:
    """Whether a runner is given the run that was permitted first; an edited Agent makes another session."""
    (first, *_) = made.server.of("AgentSession")
    claim = await made.sessions.claim("r", "i")
    return claim is not None and claim.session_uid == first["metadata"]["uid"]


@pytest.mark.parametrize(("kind", "name"), [("Graph", "g"), ("Agent", "writer")])
async def test_a_change_above_voids_the_permit(kind: str, name: str) -> None:
    made = await ready()
    made.server.edit(kind, name, authority={})
    revision = await made.sessions.revocation_revision()
    made.look()
    await made.settle()
    assert await made.sessions.revocation_revision() > revision
    assert not await old_is_claimed(made)


@pytest.mark.parametrize(("kind", "name"), [("Graph", "g"), ("Agent", "writer")])
async def test_one_that_came_while_no_operator_ran_does_too(kind: str, name: str) -> None:
    made = await ready()
    made.server.edit(kind, name, authority={})
    made.start()
    await made.settle()
    assert not await old_is_claimed(made)


async def test_an_operator_that_begins_takes_back_nothing_else() -> None:
    made = await ready()
    made.start()
    await made.settle()
    assert await old_is_claimed(made)


async def test_what_is_new_voids_nothing() -> None:
    made = await ready()
    made.server.put("Graph", "another", {}, "alice")
    made.look()
    await made.settle()
    assert await old_is_claimed(made)
