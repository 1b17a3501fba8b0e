"""Warrants that are kept are those that would be made anew, and equal ones take the memory of one."""

from typing import Any

import pytest

from triplane.controllers import warrants as module
from triplane.controllers.warrants import Warrants, holder_of
from triplane.domain.warrant import Ceiling, Warrant, warrant

NARROW = {"mayUse": {"tools": ["search/*"]}}
NARROWER = {"mayUse": {"tools": ["search/web"], "budget": {"tokens": 5}}}


def obj(kind: str, name: str, authority: dict[str, Any] | None = None, generation: int = 1) -> dict[str, Any]:
    spec = {} if authority is None else {"authority": authority}
    metadata = {"name": name, "uid": f"{kind}-{name}", "generation": generation}
    return {"kind": kind, "metadata": metadata, "spec": spec}


def anew(*chain: dict[str, Any], agent: dict[str, Any] | None) -> Warrant:
    return warrant(Ceiling(), [holder_of(each) for each in chain], holder_of(agent) if agent is not None else None)


@pytest.mark.parametrize("graph", [None, NARROW], ids=["of a Graph that sets nothing", "of one that narrows"])
@pytest.mark.parametrize("task", [None, NARROWER], ids=["of a Task that sets nothing", "of one that narrows"])
@pytest.mark.parametrize("agent", [None, {}, NARROWER], ids=["by nobody yet", "by any Agent", "by a narrow Agent"])
def test_it_is_what_would_be_made_anew(
    graph: dict[str, Any] | None, task: dict[str, Any] | None, agent: dict[str, Any] | None
) -> None:
    above, beneath = obj("Graph", "g", graph), obj("Task", "t", task)
    by = None if agent is None else obj("Agent", "a", agent or None)
    kept = Warrants(Ceiling())
    kept.of(obj("Graph", "wide"), None, obj("Task", "other"), obj("Agent", "other"))
    assert kept.of(above, None, beneath, by) == anew(above, beneath, agent=by)


def test_tasks_of_one_graph_share_what_they_have() -> None:
    kept, graph, agent = Warrants(Ceiling()), obj("Graph", "g", NARROW), obj("Agent", "a")
    one, other = (kept.of(graph, None, obj("Task", name), agent) for name in ("one", "other"))
    assert one.work[-1].holder.name != other.work[-1].holder.name
    assert one.work[-1].resolved is other.work[-1].resolved
    assert one.effective is other.effective


def test_an_edited_graph_gives_its_tasks_what_it_hands_on_now() -> None:
    kept, task, agent = Warrants(Ceiling()), obj("Task", "t"), obj("Agent", "a")
    kept.of(obj("Graph", "g", NARROW), None, task, agent)
    edited = obj("Graph", "g", NARROWER, generation=2)
    assert kept.of(edited, None, task, agent) == anew(edited, task, agent=agent)


def test_what_was_forgotten_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    kept, agent = Warrants(Ceiling()), obj("Agent", "a")
    for number in range(7):
        graph, task = obj("Graph", f"g{number}", NARROW if number % 2 else NARROWER), obj("Task", f"t{number}")
        assert kept.of(graph, None, task, agent) == anew(graph, task, agent=agent)
