"""Attack: an approval is made before there is anything to judge, with a digest that somebody can foresee."""

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import message, say, status, world

from triplane.audit.digest import digest_of_bytes
from triplane.domain.verdict import Moment

pytestmark = pytest.mark.attacks


async def attacked() -> MemoryWorld:
    """bob signs a blank sheet, and then the work is done."""
    made = world(review={"people": ["bob"]})
    await made.settle()
    say(made, "bob", name="blank", subjects=[{"name": "report", "digest": digest_of_bytes(b"report")}], round=1)
    await made.settle()
    await made.run_next(b"report")
    await made.settle()
    return made


async def test_it_counts_where_nobody_asks_which_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Moment, "before", lambda self, other: False)
    assert status(await attacked())["state"] == "completed"


async def test_it_is_void_and_says_so_and_another_may_be_made() -> None:
    made = await attacked()
    assert status(made)["state"] == "reviewing"
    assert "Review blank was made before there was anything to judge; make another" in message(made)
    say(made, "bob", name="seen")
    await made.settle()
    assert status(made)["state"] == "completed"
