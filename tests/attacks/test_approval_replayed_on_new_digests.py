"""Attack: an honest approval of one thing is used for another: other outputs, or another snapshot to launch."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import message, say, status, world

from triplane.domain import verdict

pytestmark = pytest.mark.attacks

OTHER = "sha256:" + "e" * 64


async def of_other_outputs() -> MemoryWorld:
    made = world(review={"people": ["bob"]})
    await made.settle()
    await made.run_next(b"what bob never saw")
    await made.settle()
    say(made, "bob", name="for-another", subjects=[{"name": "report", "digest": OTHER}])
    await made.settle()
    return made


async def of_another_snapshot() -> MemoryWorld:
    """bob's leave is for what was frozen; then the Agent is edited, and other things would run."""
    made = world(approval={"people": ["bob"]})
    await made.settle()
    say(made, "bob", name="for-another")
    made.server.edit("Agent", "writer", model="another")
    made.look()
    await made.settle()
    return made


def allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "subjects_differ", lambda subjects, produced: None)
    monkeypatch.setattr(verdict.Moment, "before", lambda self, other: False)


async def test_outputs_pass_where_digests_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch)
    assert status(await of_other_outputs())["state"] == "completed"


async def test_a_launch_passes_where_digests_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch)
    made = await of_another_snapshot()
    assert await made.run_next() is not None


async def test_an_approval_of_other_outputs_is_void() -> None:
    made = await of_other_outputs()
    assert status(made)["state"] == "reviewing"
    assert f"Review for-another: the verdict is on report {OTHER}" in message(made)


async def test_leave_for_another_snapshot_is_void() -> None:
    made = await of_another_snapshot()
    assert status(made)["state"] == "blocked"
    assert "Review for-another: the verdict is on snapshot" in message(made)
    assert not await made.run_next()
