"""Attack: a verdict on a round that is decided is brought into the next one, whose outputs happen to be the same."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import entries, message, say, status, world

from triplane.domain import task_review
from triplane.domain.quorum import outputs_matter
from triplane.domain.task_facts import Placement, TaskFacts
from triplane.domain.verdict import PersonReview, void_for

pytestmark = pytest.mark.attacks


async def attacked() -> MemoryWorld:
    """Round 1 is rejected by bob; the producer leaves the same again; carol's approval is of round 1."""
    made = world(review={"people": ["bob", "carol"]})
    await made.settle()
    await made.run_next(b"the same")
    await made.settle()
    say(made, "bob", "Reject", name="no")
    await made.settle()
    await made.run_next(b"the same")
    await made.settle()
    say(made, "carol", name="late", round=1)
    await made.settle()
    return made


def _any_round(facts: TaskFacts, producer: Placement, produced: object, item: PersonReview) -> str | None:
    counted = "counted" if item.uid in facts.decisions.counted else None
    return counted or void_for(item, outputs_matter(facts, producer, produced))  # type: ignore[arg-type]


async def test_it_counts_where_the_round_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_review, "void_on_outputs", _any_round)
    assert status(await attacked())["state"] == "completed"


async def test_a_verdict_on_a_decided_round_is_late() -> None:
    made = await attacked()
    assert (status(made)["state"], status(made)["round"]) == ("reviewing", 2)
    assert "Review late is for round 1; round 2 is open, and round 1 is decided" in message(made)


async def test_a_rejection_after_the_end_changes_nothing_but_is_in_the_log() -> None:
    made = await attacked()
    say(made, "carol", name="good")
    await made.settle()
    assert status(made)["state"] == "completed"
    say(made, "bob", "Reject", name="too-late", gate="Outputs", round=2)
    await made.settle()
    assert status(made)["state"] == "completed"
    assert "Review too-late decides nothing: the Task is over" in message(made)
    observed = [item.entry["subject"]["name"] for item in await entries(made, "resource.observed")]
    assert {"late", "too-late"} <= set(observed)
    assert len(await entries(made, "task.accepted")) == 1
