"""Idea: write into a status what one would like to be true: more authority, a healthier Agent, an open gate.

Status is the operator's to write and nobody else's (``operator-only-status``); and even where somebody can write it, no
decision is made from it: authority comes from specs, what was decided from the log, and Policies at Launch do not see
status at all.
"""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import entries, policy, running, stalled, world

from triplane.controllers import launch_policies

pytestmark = pytest.mark.attacks

FORGED: dict[str, Any] = {
    "authority": {"mayUse": {"egress": ["*"]}}, "state": "completed", "phase": "Succeeded", "approved": True,
}  # fmt: skip


def forge(made: MemoryWorld) -> None:
    for (_, _, _), obj in list(made.server.objects.items()):
        made.server._write({**obj, "status": {**(obj.get("status") or {}), **FORGED}})
    made.look()


async def test_a_forged_status_widens_nothing() -> None:
    made = world()
    forge(made)
    claim = await running(made)
    assert claim.work_order["authority"]["egress"] == []
    forge(made)
    await made.settle()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert view.revoked is None
    assert await entries(made, "task.accepted") == []


async def test_a_policy_is_not_talked_out_of_it_by_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = policy("has(object.status) && has(object.status.approved) && object.status.approved")

    def forged() -> MemoryWorld:
        made = world()
        made.server.put("Policy", "p", rule, "root")
        forge(made)
        return made

    with monkeypatch.context() as weak:
        weak.setattr(launch_policies, "_declared", dict)
        made = forged()
        await made.settle()
        assert await entries(made, "run.permitted") != [], "the attack: the rule reads what anybody wrote"
    made = forged()
    await made.settle()
    assert await entries(made, "run.permitted") == []
    assert (stalled(made) or ("",))[0] == "PolicyDenied"
    assert made.server.objects["Task", NAMESPACE, "t"]
