"""Idea: have the child admitted under the parent as it was, while the parent is being narrowed.

Admission reads the parent a moment before the child is stored, so the race is won now and then. It gains nothing: what
a session may use is settled from the objects as they are, and re-read at the permit.
"""

from contextlib import suppress

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import running, world

from triplane.api.authority import Grant
from triplane.controllers import launch
from triplane.controllers.key import Key
from triplane.domain import authority as lattice
from triplane.domain.authority import Resolved
from triplane.errors import TriplaneError

pytestmark = pytest.mark.attacks

WIDE = {"mayUse": {"egress": ["*"]}, "mayDelegate": {"egress": ["*"]}}
NARROW = {"mayUse": {"egress": []}, "mayDelegate": {"egress": ["a.example"]}}


def won() -> MemoryWorld:
    """The race was won: a wide child stands under a narrow parent."""
    return world({"authority": NARROW}, {"authority": WIDE}, authority=WIDE)


async def test_a_child_that_won_the_race_is_not_wider_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(parent: Resolved, declared: object) -> Resolved:
        """What a child declares is taken at its word."""
        found: Grant = getattr(declared, "may_use", None) or parent.may_use
        use = lattice.whole(found, parent.may_use)
        return Resolved(use, use)

    with monkeypatch.context() as weak:
        weak.setattr("triplane.controllers.warrants.resolve", naive)
        assert (await running(won())).work_order["authority"]["egress"] == ["*"], "the attack"
    assert (await running(won())).work_order["authority"]["egress"] == ["a.example"]


async def test_a_parent_that_is_narrowed_between_decision_and_permit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index still has the wide Graph; the API server has the narrow one."""

    async def launched() -> MemoryWorld:
        made = world({"authority": WIDE}, {"authority": WIDE}, authority=WIDE)
        made.server.edit("Graph", "g", authority=NARROW)  # and nothing tells the index
        for _ in range(8):
            with suppress(TriplaneError):
                await made.reconcile(Key("Task", NAMESPACE, "t"))
        return made

    async def trusting(*_: object) -> None:
        """Nothing is read again."""

    with monkeypatch.context() as weak:
        weak.setattr(launch, "confirm", trusting)
        claim = await (await launched()).sessions.claim("r", "i")
        assert claim is not None
        assert claim.work_order["authority"]["egress"] == ["*"], "the attack"
    claim = await (await launched()).sessions.claim("r", "i")
    assert claim is not None
    assert claim.work_order["authority"]["egress"] == ["a.example"]
