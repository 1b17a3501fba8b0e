"""Idea: the Graph is narrow, so make a second one beside it, give that everything, and put the work there.

Whoever may make Graphs may hand on what the installation hands on, and no more: its ceiling is in no object of the
cluster. And a Task is beneath every object it names: naming another Graph leaves no Node behind.
"""

from typing import Any

import pytest
from tests.unit.admission.authority_world import refused
from tests.unit.controllers.test_task_authority import running, world

from triplane.api.authority import Grant
from triplane.domain.authority import BUILT_IN, Resolved, meet, whole
from triplane.domain.warrant import Ceiling

pytestmark = pytest.mark.attacks

EVERYTHING: dict[str, Any] = {
    "mayUse": {"egress": ["0.0.0.0/0", "*"], "secrets": ["**"]},
    "mayDelegate": {"egress": ["0.0.0.0/0", "*"], "secrets": ["**"]},
}
STRICT = whole(Grant(egress=["a.example"], secrets=[]), BUILT_IN.may_delegate)
CEILING = Ceiling(Resolved(meet(BUILT_IN.may_use, STRICT), STRICT))
UNLIMITED = whole(Grant(egress=["0.0.0.0/0", "*"]), BUILT_IN.may_delegate)
NO_CEILING = Ceiling(Resolved(UNLIMITED, UNLIMITED))


async def test_a_second_graph_is_under_the_same_ceiling() -> None:
    assert await refused("Graph", {"authority": EVERYTHING}, ceiling=NO_CEILING) == [], "without a ceiling"
    said = await refused("Graph", {"authority": EVERYTHING}, ceiling=CEILING)
    assert any("axis egress: 0.0.0.0/0 is beyond a.example, the limit of mayDelegate of the install" in x for x in said)
    assert any("axis secrets: ** is beyond nothing" in line for line in said)


@pytest.mark.parametrize("ceiling", [pytest.param(NO_CEILING, id="weak"), pytest.param(CEILING, id="real")])
async def test_at_launch_too(ceiling: Ceiling) -> None:
    made = world({"authority": EVERYTHING}, authority=EVERYTHING)
    made.ceiling = ceiling
    made.start()
    granted = (await running(made)).work_order["authority"]
    if ceiling is NO_CEILING:
        assert granted["secrets"] == ["**"], "the attack"
    else:
        assert (granted["egress"], granted["secrets"]) == (["a.example"], [])
