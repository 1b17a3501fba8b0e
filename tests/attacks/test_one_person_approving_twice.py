"""Attack: a quorum of two is filled by one person who approves twice."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import message, say, status, world

from triplane.domain import quorum

pytestmark = pytest.mark.attacks


async def attacked() -> MemoryWorld:
    made = world(review={"reviewers": 2, "people": ["bob", "carol"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    for name in ("first", "second"):
        say(made, "bob", name=name)
        await made.settle()
    return made


async def test_two_reviews_of_one_person_are_enough_where_reviews_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "members", lambda facts, given, round_: ())
    monkeypatch.setattr(quorum.Quorum, "by_people", property(lambda self: len(self.given)))
    assert status(await attacked())["state"] == "completed"


async def test_only_different_people_make_a_quorum() -> None:
    made = await attacked()
    assert status(made)["state"] == "reviewing"
    assert "Review second is by bob, who has approved already; another user must approve too" in message(made)
    say(made, "carol")
    await made.settle()
    assert status(made)["state"] == "completed"


async def test_an_agent_of_the_person_who_has_approved_is_no_second_reviewer() -> None:
    made = world(review={"reviewers": 2, "capability": "review", "people": ["bob"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    say(made, "bob")
    await made.settle()
    await made.run_next()
    await made.settle()
    assert status(made)["state"] == "blocked"
    assert "controlled by a user who has approved already" in message(made, "Stalled")
