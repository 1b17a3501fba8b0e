"""Idea: a Policy selects by label. Label the Task so that it does not bind, or take the label off just before launch.

A label changes without a new generation, so an operator that only compared generations would ask about the old labels.
The objects Policies see at the permit are the ones that were read for it.
"""

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import entries, policy, world

from triplane.controllers.key import Key
from triplane.controllers.launch_policies import LaunchQuestion
from triplane.errors import TriplaneError

pytestmark = pytest.mark.attacks


async def launched() -> MemoryWorld:
    """The index has the Task without the label; the API server has it with the label that a Policy forbids."""
    made = world()
    selector = {"matchLabels": {"tier": "production"}}
    rule = policy("false", match={"kinds": ["Task"], "selector": selector})
    made.server.put("Policy", "p", rule, "root")
    made.look()
    task = made.server.objects["Task", NAMESPACE, "t"]
    made.server._write({**task, "metadata": {**task["metadata"], "labels": {"tier": "production"}}})
    for _ in range(6):
        try:
            await made.reconcile(Key("Task", NAMESPACE, "t"))
        except TriplaneError:
            continue
    return made


async def test_labels_are_read_again_before_the_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(LaunchQuestion, "on", lambda question, _: question)
        assert len(await entries(await launched(), "run.permitted")) == 1, "the attack"
    assert await entries(await launched(), "run.permitted") == []


async def test_no_label_carries_authority() -> None:
    made = world()
    for obj in list(made.server.objects.values()):
        labels = {"triplane.dev/authority": "everything", "triplane.dev/egress": "all"}
        made.server._write({**obj, "metadata": {**obj["metadata"], "labels": labels}})
    made.look()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.work_order["authority"]["egress"] == []
