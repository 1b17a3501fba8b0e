"""Attack: who controls the producing Agent applies a second Agent, which approves the work."""

import pytest
from tests.unit.controllers.people import message, status, to_end, world

from triplane.domain import eligibility

pytestmark = pytest.mark.attacks

AGENTS = (("mallory", "writer", "write"), ("mallory", "puppet", "review"))


async def test_a_second_agent_of_the_same_user_reviews_where_independence_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eligibility, "dependent", lambda agent, producer: None)
    made = world(AGENTS)
    await to_end(made)
    assert status(made)["state"] == "completed"


async def test_it_is_nobody_s_independent_reviewer() -> None:
    made = world(AGENTS)
    await to_end(made)
    assert status(made)["state"] == "blocked"
    assert "puppet is controlled by the same user as the producing Agent" in message(made, "Stalled")
