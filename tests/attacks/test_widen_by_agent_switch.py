"""Idea: keep the work modest and switch its agentRef to an Agent whose controller gave it everything.

An Agent's authority is a limit of its own beside the work's; what a session may use is what both sides may.
"""

import pytest
from tests.unit.controllers.test_task_authority import running, world

from triplane.api.authority import Grant
from triplane.domain.authority import meet

pytestmark = pytest.mark.attacks

WIDE = {"mayUse": {"egress": ["*"], "secrets": ["**"], "paths": ["**:rw"]}}


async def test_a_mighty_agent_gains_nothing_from_modest_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def agents_word(_: Grant, agent: Grant) -> Grant:
        """The one who runs decides."""
        return agent

    with monkeypatch.context() as weak:
        weak.setattr("triplane.domain.warrant.meet", agents_word)
        assert (await running(world(authority=WIDE))).work_order["authority"]["secrets"] == ["**"], "the attack"
    granted = (await running(world(authority=WIDE))).work_order["authority"]
    assert (granted["egress"], granted["secrets"], granted["paths"]) == ([], [], [])


async def test_mighty_work_gains_nothing_for_a_modest_agent() -> None:
    granted = (await running(world({"authority": WIDE}))).work_order["authority"]
    assert (granted["egress"], granted["secrets"], granted["paths"]) == ([], [], [])
    assert meet(Grant(egress=[]), Grant(egress=["*"])).egress == []
