"""Attack: the producing user's Review names an independent Agent as its owner, to pass for that Agent's word."""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.people import message, say, status, world

from triplane.controllers import observe

pytestmark = pytest.mark.attacks


async def attacked() -> MemoryWorld:
    """Produced, waiting for bob; alice's Review is owned by bob's Agent."""
    made = world(review={"people": ["bob"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    judge = made.server.objects["Agent", NAMESPACE, "judge"]["metadata"]
    name = say(made, "alice")
    review = made.server.objects["Review", NAMESPACE, name]
    owner = {"apiVersion": "triplane.dev/v1alpha1", "kind": "Agent", "name": judge["name"], "uid": judge["uid"]}
    made.server.objects["Review", NAMESPACE, name] = {
        **review, "metadata": {**review["metadata"], "ownerReferences": [owner]},
    }  # fmt: skip
    made.start()
    await made.settle()
    return made


async def test_it_counts_where_the_owner_says_whose_word_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    real = observe.requester_of

    def by_owner(obj: dict[str, Any]) -> str | None:
        return "bob" if obj["metadata"].get("ownerReferences") else real(obj)

    monkeypatch.setattr("triplane.controllers.task_people.requester_of", by_owner)
    monkeypatch.setattr(observe, "requester_of", by_owner)
    made = await attacked()
    assert status(made)["state"] == "completed"


async def test_whose_word_it_is_says_the_stamp_alone() -> None:
    made = await attacked()
    assert status(made)["state"] == "reviewing"
    assert "is by alice, who is not in spec.review.people" in message(made)
