"""Idea: apply a modest object, then give it more by UPDATE, one axis after the other.

Admission judges an update of any field by which more could be had as it judges a new object; what gets by it (a webhook
that is away fails closed) is still resolved against everything above at launch.
"""

from typing import Any

import pytest
from tests.unit.admission.authority_world import TASK, WORK, graph, refused

from triplane.admission import authority
from triplane.api.authority import Authority
from triplane.domain.authority import holds
from triplane.domain.warrant import Ceiling, Holder, links

pytestmark = pytest.mark.attacks

LIMIT: dict[str, Any] = {
    "tools": ["files/read"], "capabilities": ["write"], "harnesses": ["h"], "models": ["small"],
    "egress": ["a.example"], "secrets": ["key"], "paths": ["data"],
    "budget": {"tokens": 10, "costMinorUnits": 10, "wallClockSeconds": 10, "sessions": 1},
    "delegationDepth": 2, "expiresAt": "2030-01-01T00:00:00Z",
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "tools": {"tools": ["files/*"]},
    "capabilities": {"capabilities": ["*"]},
    "harnesses": {"harnesses": ["**"]},
    "models": {"models": ["small", "big"]},
    "egress": {"egress": ["a.example", "b.example"]},
    "secrets": {"secrets": ["key", "other"]},
    "paths": {"paths": ["data:rw"]},
    "budget.tokens": {"budget": {"tokens": 11}},
    "budget.costMinorUnits": {"budget": {"costMinorUnits": 11}},
    "budget.wallClockSeconds": {"budget": {"wallClockSeconds": 11}},
    "budget.sessions": {"budget": {"sessions": 2}},
    "delegationDepth": {"delegationDepth": 3},
    "expiresAt": {"expiresAt": "2031-01-01T00:00:00Z"},
}
SPECS = {"Task": TASK, "Node": {"graphRef": {"name": "g"}, "steps": [{"name": "s", **WORK}]}}


@pytest.mark.parametrize("axis", list(MORE))
@pytest.mark.parametrize("kind", list(SPECS))
@pytest.mark.parametrize("which", ["mayUse", "mayDelegate"])
async def test_no_axis_is_widened_by_an_update(
    kind: str, which: str, axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SPECS[kind]
    new = {**old, "authority": {which: MORE[axis]}}
    limit = graph(may_use=LIMIT, may_delegate=LIMIT)
    with monkeypatch.context() as weak:
        weak.setattr(authority, "_WIDENING", {kind: ("graphRef",)})
        assert await refused(kind, new, limit, old=old) == [], "a check that forgets the field lets it through"
    said = await refused(kind, new, limit, old=old)
    assert said, "the real one does not"
    assert all(f"axis {axis}: " in line and "Graph g; ask alice" in line for line in said)


@pytest.mark.parametrize("axis", list(MORE))
@pytest.mark.parametrize("which", ["mayUse", "mayDelegate"])
def test_what_slipped_by_admission_is_worth_nothing_at_launch(which: str, axis: str) -> None:
    parent = Holder("Graph", "g", Authority.model_validate({"mayUse": LIMIT, "mayDelegate": LIMIT}))
    child = Holder("Task", "t", Authority.model_validate({which: MORE[axis]}))
    *_, above, below = links(Ceiling(), [parent, child])
    assert holds(above.resolved.may_delegate, below.resolved.may_delegate) == ()
    assert holds(above.resolved.may_delegate, below.resolved.may_use) == ()
