"""Idea: stop the operator (or cut it off) just after a permit, and have the work begin under authority that has been
taken back since.

The bound is the life of a permit: ten seconds by the store's clock, counted from before the reads it rests on. It holds
without anybody being awake. What is at work already goes on until an operator is back: that is documented.
"""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_authority import running, world

from triplane.adapters.memory import sessionstore
from triplane.controllers import launch
from triplane.domain.session import PERMIT_SECONDS

pytestmark = pytest.mark.attacks

WIDE = {"mayUse": {"egress": ["*"]}}


async def paused() -> MemoryWorld:
    """A permit was given; then the operator stands still and the Graph is narrowed."""
    made = world({"authority": WIDE}, authority=WIDE)
    await made.settle()
    made.server.edit("Graph", "g", authority={"mayDelegate": {"egress": []}})
    return made


async def claimable_for(made: MemoryWorld) -> float:
    """Seconds for which a runner would still be given the run, in steps of half a second."""
    waited = 0.0
    while waited < 3600.0:
        view = await made.sessions.get(made.server.of("AgentSession")[0]["metadata"]["uid"])
        assert view is not None
        assert view.last_run is not None
        if view.last_run.permit_expired:
            return waited
        made.clock.advance(0.5)
        waited += 0.5
    return waited


async def test_a_permit_outlives_what_it_rests_on_by_ten_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(launch, "_seconds", lambda *_: 1800.0)
        weak.setattr(sessionstore, "check_permit", lambda _: None)  # the store refuses a longer one too
        assert await claimable_for(await paused()) >= 1800.0, "the attack: half an hour to begin in"
    assert await claimable_for(await paused()) <= PERMIT_SECONDS + 0.5
    made = await paused()
    made.clock.advance(PERMIT_SECONDS + 0.1)
    assert await made.sessions.claim("r", "i") is None


async def test_a_permit_never_outlives_the_time_of_its_authority() -> None:
    made = world({"authority": {"mayUse": {"expiresAt": "2026-01-01T00:00:04Z"}}})
    assert made.clock.now().isoformat() == "2026-01-01T00:00:00+00:00"
    await made.settle()
    assert await claimable_for(made) <= 4.5


async def test_the_operator_that_comes_back_ends_what_went_on_meanwhile() -> None:
    made = world({"authority": WIDE}, authority=WIDE)
    claim = await running(made)
    made.server.edit("Graph", "g", authority={"mayDelegate": {"egress": []}})
    made.clock.advance(600.0)
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert view.revoked is None, "nobody was there to end it"
    made.start()
    await made.settle()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert (view.revoked or "").startswith("AuthorityNarrowed: ")
