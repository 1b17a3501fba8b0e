"""Attack: a run is claimed by a permit that was written just before leave to launch was demanded."""

import pytest
from tests.unit.controllers.people import entries, status, world

from triplane.controllers.task import TaskReconciler
from triplane.domain.session import Claim

pytestmark = pytest.mark.attacks


async def attacked() -> Claim | None:
    made = world()
    await made.settle()
    assert await entries(made, "run.permitted")
    made.server.edit("Task", "t", approval={"people": ["carol"]})
    made.look()
    await made.settle()
    assert status(made)["approval"]["gate"] == "Launch"
    return await made.sessions.claim("r", "i")


async def test_a_permit_that_is_left_lying_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave_lying(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(TaskReconciler, "_pass_over", leave_lying)
    assert await attacked() is not None


async def test_nobody_takes_it_any_more() -> None:
    assert await attacked() is None
