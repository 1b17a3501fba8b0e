"""Attack: the Agent that did the work reviews it in another session of its own."""

from typing import Any

import pytest
from tests.unit.controllers.people import message, status, to_end, world

from triplane.domain import eligibility

pytestmark = pytest.mark.attacks

AGENTS = (("mallory", "both", "review"),)
TASK: dict[str, Any] = {"agentRef": {"name": "both"}}


async def test_a_second_session_approves_where_only_sessions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eligibility, "dependent", lambda agent, producer: None)
    made = world(AGENTS, **TASK)
    await to_end(made)
    assert status(made)["state"] == "completed"
    sessions = {(item["spec"]["role"], item["spec"]["agentRef"]["name"]) for item in made.server.of("AgentSession")}
    assert sessions == {("Producer", "both"), ("Reviewer", "both")}


async def test_the_agent_that_produced_is_excluded_in_whatever_session() -> None:
    made = world(AGENTS, **TASK)
    await to_end(made)
    assert status(made)["state"] == "blocked"
    assert "both produced the outputs" in message(made, "Stalled")
