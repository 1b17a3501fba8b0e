"""Attack: a step's owner reference is taken away, its Node deleted, and one of the same name made that grants more."""

import pytest
from tests.attacks.test_agent_deleted_mid_run import deleted
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import entries, world

from triplane.controllers import task_gather

pytestmark = pytest.mark.attacks
NARROW = {"mayUse": {"egress": []}, "mayDelegate": {"egress": []}}
WIDE = {"mayUse": {"egress": ["*"]}}
STEP = {"nodeRef": {"name": "n"}, "onBehalfOf": "alice", "step": "s"}


async def attacked() -> MemoryWorld:
    """The step has no owner reference any more; its Agent was chosen under alice's Node, and mallory's has come."""
    made = world({"authority": {"mayDelegate": {"egress": ["*"]}}}, STEP, authority=WIDE)
    made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": [], "authority": NARROW}, "alice")
    made.look()
    await made.settle()
    made.clock.advance(11.0)
    assert not made.server.objects["Task", NAMESPACE, "t"]["metadata"].get("ownerReferences")
    await deleted(made, "Node", "n")
    made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": [], "authority": WIDE}, "mallory")
    await made.settle_task()
    return made


async def test_a_node_that_is_known_by_its_name_alone_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_gather, "_placed_under", lambda _: None)
    made = await attacked()
    claim = await made.sessions.claim("r", "i")
    if claim is None:
        await made.settle_task()
        claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.work_order["authority"]["egress"] == ["*"]


async def test_what_began_under_one_node_does_not_go_on_under_another() -> None:
    made = await attacked()
    assert [entry["reason"] for entry in await entries(made, "task.failed")] == ["NodeDeleted"]
    assert await made.sessions.claim("r", "i") is None
