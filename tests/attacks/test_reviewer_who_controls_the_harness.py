"""Attack: another user's Agent reviews, but that user's Harness is the program the producer ran, or the other way
round: one hand wrote both the work and its approval."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import AGENTS, WORKER, message, status, to_end, world

from triplane.domain import eligibility

pytestmark = pytest.mark.attacks


def takeover(name: str, user: str) -> MemoryWorld:
    """The Harness of that Agent is another user's."""
    made = world(AGENTS)
    made.server.put("Harness", name, WORKER, user)
    made.look()
    return made


@pytest.mark.parametrize(
    ("harness", "user"),
    [
        pytest.param("writer", "bob", id="the reviewer's user runs the producer"),
        pytest.param("judge", "alice", id="the producer's user runs the reviewer"),
    ],
)
async def test_it_approves_where_only_the_agents_users_are_compared(
    harness: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eligibility, "dependent", _agents_only)
    made = takeover(harness, user)
    await to_end(made)
    assert status(made)["state"] == "completed"


def _agents_only(agent: eligibility.Candidate, producer: eligibility.Producer) -> str | None:
    return "same user" if agent.principal == producer.principal else None


@pytest.mark.parametrize(
    ("harness", "user", "says"),
    [
        pytest.param("writer", "bob", "by the user whose Harness the producing Agent ran", id="of the producer"),
        pytest.param("judge", "alice", "runs a Harness controlled by the user of the producing", id="of the reviewer"),
    ],
)
async def test_whoever_controls_either_program_is_not_independent(harness: str, user: str, says: str) -> None:
    made = takeover(harness, user)
    await to_end(made)
    assert status(made)["state"] == "blocked"
    assert says in message(made, "Stalled")


async def test_a_person_who_controls_the_producer_s_harness_is_not_heard() -> None:
    made = world((("alice", "writer", "write"),), review={"people": ["bob", "carol"]})
    made.server.put("Harness", "writer", WORKER, "bob")
    made.look()
    await to_end(made, "bob")
    assert status(made)["state"] == "reviewing"
    assert "by bob, who controls the producing Agent or its Harness" in message(made)
