"""Who is to blame for what is not granted, and who can change it."""

import pytest

from triplane.api.authority import Authority, Axis, Budget, Grant
from triplane.api.task import TaskSpec
from triplane.domain.warrant import Ceiling, Holder, demanded, lacking, too_wide, warrant

CEILING = Ceiling()


def holder(kind: str, name: str, use: Grant | None = None, delegate: Grant | None = None) -> Holder:
    return Holder(kind, name, Authority(may_use=use, may_delegate=delegate), requester=f"{name}-user")


def needs(**axes: list[str]) -> Grant:
    return Grant().model_copy(update=axes)


@pytest.mark.parametrize(
    ("graph", "task", "agent", "limit_of", "who"),
    [
        pytest.param(
            holder("Graph", "g", delegate=Grant(secrets=[])), holder("Task", "t", Grant(secrets=["key"])),
            holder("Agent", "a", Grant(secrets=["key"])), "mayDelegate of Graph g", "g-user",
            id="the topmost that does not hand it on",
        ),
        pytest.param(
            holder("Graph", "g", Grant(secrets=["other"])), holder("Task", "t"),
            holder("Agent", "a", Grant(secrets=["key"])), "mayUse of Graph g", "g-user",
            id="the lowest that chose to use less",
        ),
        pytest.param(
            holder("Graph", "g", Grant(secrets=["key"])), holder("Task", "t"), holder("Agent", "a", Grant(secrets=[])),
            "mayUse of Agent a", "a-user", id="the agent's own side",
        ),
        pytest.param(
            holder("Graph", "g"), holder("Task", "t"), holder("Agent", "a", Grant(secrets=["key"])),
            "mayUse of Task t, to which nothing grants it", "t-user, by spec.authority.mayUse.secrets of Task t,",
            id="nobody has granted it yet",
        ),
    ],
)  # fmt: skip
def test_blame(graph: Holder, task: Holder, agent: Holder, limit_of: str, who: str) -> None:
    (refused,) = lacking(warrant(CEILING, [graph, task], agent), needs(secrets=["key"]))
    assert (refused.excess.axis, refused.excess.value) == (Axis.SECRETS, "key")
    assert (refused.limit_of, refused.who) == (limit_of, who)


def test_the_installation_is_to_blame_for_its_ceiling() -> None:
    held = warrant(CEILING, [holder("Graph", "g"), holder("Task", "t")], None)
    (refused,) = lacking(held, needs(egress=["10.0.0.1"]))
    assert refused.limit_of == "mayDelegate of the installation"
    assert "TRIPLANE_AUTHORITY" in str(refused)


def test_a_tool_is_granted_as_soon_as_one_of_its_operations_is() -> None:
    held = warrant(CEILING, [holder("Graph", "g", Grant(tools=["files/read"])), holder("Task", "t")], None)
    assert lacking(held, needs(tools=["files/*"])) == ()
    assert [each.excess.value for each in lacking(held, needs(tools=["shell/*"]))] == ["shell/*"]


def test_what_a_task_demands() -> None:
    spec = TaskSpec.model_validate(
        {
            "graphRef": {"name": "g"},
            "objective": "x",
            "requiredCapabilities": ["write@2"],
            "tools": ["files"],
            "secrets": [{"name": "s", "key": "k", "env": "S"}, {"name": "s", "key": "l", "env": "T"}],
            "paths": [{"path": "data"}, {"path": "out", "writable": True}],
            "authority": {"mayUse": {"budget": {"tokens": 5}}},
        }
    )
    found = demanded(spec, role="producer", model="m", harness="h", review_capability="review")
    assert (found.tools, found.secrets, found.paths) == (["files/*"], ["s"], ["data", "out:rw"])
    assert (found.capabilities, found.harnesses, found.models) == (["write"], ["h"], ["m"])
    assert found.budget == Budget(tokens=5)
    review = demanded(spec, role="reviewer", model=None, harness="h", review_capability="review")
    assert (review.tools, review.secrets, review.paths, review.capabilities) == ([], [], [], ["review"])


def test_axes_that_somebody_set_on_purpose() -> None:
    held = warrant(CEILING, [holder("Graph", "g", Grant(egress=[])), Holder("Task", "t", None)], holder("Agent", "a"))
    assert held.axes == {Axis.EGRESS}
    assert warrant(Ceiling(axes=frozenset({Axis.PATHS})), [], None).axes == {Axis.PATHS}


@pytest.mark.parametrize(
    ("grant", "axis", "limit_of"),
    [
        pytest.param(Grant(egress=["*"]), Axis.EGRESS, "mayDelegate of Graph g", id="egress"),
        pytest.param(Grant(tools=["**"]), Axis.TOOLS, "mayDelegate of Graph g", id="tools"),
        pytest.param(Grant(paths=["data:rw"]), Axis.PATHS, "mayDelegate of Graph g", id="paths"),
        pytest.param(Grant(budget=Budget(tokens=11)), Axis.TOKENS, "mayDelegate of Graph g", id="a budget"),
        pytest.param(Grant(expires_at="2031-01-01T00:00:00Z"), Axis.EXPIRY, "mayDelegate of Graph g", id="a time"),
        pytest.param(Grant(delegation_depth=7), Axis.DEPTH, "mayDelegate of Graph g", id="depth"),
    ],
)
def test_a_child_that_is_too_wide_is_told_whose_limit_it_is(grant: Grant, axis: Axis, limit_of: str) -> None:
    limit = Grant(
        egress=["a.example"], tools=["a/*"], paths=["data"], budget=Budget(tokens=10), delegation_depth=2,
        expires_at="2030-01-01T00:00:00Z",
    )  # fmt: skip
    graph = holder("Graph", "g", delegate=limit)
    for declared in (holder("Task", "t", delegate=grant), holder("Task", "t", use=grant)):
        assert [(each.excess.axis, each.limit_of) for each in too_wide(CEILING, [graph], declared)] == [
            (axis, limit_of)
        ]


def test_what_is_used_must_be_within_what_is_handed_on() -> None:
    (found,) = too_wide(CEILING, [], holder("Graph", "g", Grant(secrets=["a", "b"]), Grant(secrets=["a"])))
    assert (found.excess.value, found.limit_of, found.who) == ("b", "mayDelegate of Graph g", "g-user")
