"""Attack: the producing Agent is deleted before the review begins, so that a Policy about it finds nobody.

``producer == null`` is how a Policy knows that a session is not a reviewer's.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.attacks.test_agent_deleted_mid_run import deleted
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_authority import policy, stalled, world

from triplane.controllers import task_limits

pytestmark = pytest.mark.attacks
RULE = "producer == null || producer.spec.model != 'm'"


async def attacked() -> MemoryWorld:
    """One family of models would review itself."""
    made = world(model="m")
    made.server.put("Policy", "p", policy(RULE), "root")
    made.look()
    await made.settle()
    done = await made.run_next()
    if done is None:  # the Policy came after the permit; now it is asked for
        await made.settle_task()
        done = await made.run_next()
    assert done is not None
    await deleted(made, "Agent", "writer")
    await made.settle_task()
    return made


async def test_if_who_is_gone_never_was_the_policy_would_be_evaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_was(context: Any, placement: Any, task: Mapping[str, Any]) -> Any:
        return context.index.by_uid(placement.agent_uid)

    monkeypatch.setattr(task_limits, "_stored_or_gone", never_was)
    made = await attacked()
    assert stalled(made) is None
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.role == "reviewer"


async def test_a_policy_that_asks_about_who_is_gone_denies() -> None:
    made = await attacked()
    reason, message = stalled(made) or ("", "")
    assert reason == "PolicyDenied"
    assert "validations[0]" in message
    assert await made.sessions.claim("r", "i") is None
