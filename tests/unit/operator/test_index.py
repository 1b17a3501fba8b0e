"""The mirror: newest wins, the dead stay dead, and every reference finds its referrers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.objects import make

from triplane.operator import index as index_module
from triplane.operator.index import Change, Index


def names(objects: Any) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


def test_an_older_version_never_replaces_a_newer_one() -> None:
    index = Index()
    assert index.put(make("Task", "t", rv=5, spec={"v": "new"}))
    assert not index.put(make("Task", "t", rv=4, spec={"v": "old"}))
    assert not index.put(make("Task", "t", rv=5, spec={"v": "same"}))
    stored = index.get("Task", "team", "t")
    assert stored is not None
    assert stored["spec"] == {"v": "new"}


def test_versions_compare_as_numbers_not_as_text() -> None:
    index = Index()
    index.put(make("Task", "t", rv=99))
    assert index.put(make("Task", "t", rv=100))


def test_our_own_write_is_not_undone_by_the_watch_event_before_it() -> None:
    index = Index()
    index.observe(make("Task", "t", rv=1))
    index.put(make("Task", "t", rv=3, status={"phase": "Running"}))
    assert index.observe(make("Task", "t", rv=2, status={"phase": "Pending"})) is None
    stored = index.get("Task", "team", "t")
    assert stored is not None
    assert stored["status"]["phase"] == "Running"


def test_a_stale_event_does_not_resurrect_a_deleted_object() -> None:
    index = Index()
    index.observe(make("Task", "t", rv=1))
    index.remove(make("Task", "t", rv=3))
    assert index.observe(make("Task", "t", rv=9)) is None
    assert index.get("Task", "team", "t") is None
    assert index.by_uid("uid-Task-t") is None


def test_a_stale_deletion_leaves_the_successor_of_the_same_name() -> None:
    index = Index()
    index.observe(make("Task", "t", uid="first", rv=1))
    index.observe(make("Task", "t", uid="second", rv=5))
    assert index.remove(make("Task", "t", uid="first", rv=4)) is None, "the successor implied it"
    stored = index.get("Task", "team", "t")
    assert stored is not None
    assert stored["metadata"]["uid"] == "second"


def test_a_successor_reports_the_end_of_its_predecessor_first() -> None:
    changes: list[Change] = []
    index = Index(changes.append)
    index.observe(make("Task", "t", uid="first", rv=1))
    index.observe(make("Task", "t", uid="second", rv=5))
    assert [(c.before is None, c.after is None) for c in changes] == [(True, False), (False, True), (True, False)]
    assert changes[1].object["metadata"]["uid"] == "first"


def test_a_deletion_is_reported_once_also_for_an_object_never_seen() -> None:
    changes: list[Change] = []
    index = Index(changes.append)
    assert index.remove(make("Task", "t", rv=3)) is not None
    assert index.remove(make("Task", "t", rv=3)) is None
    assert len(changes) == 1


def test_managed_fields_are_not_kept() -> None:
    index = Index()
    index.put(make("Task", "t", managedFields=[{"manager": "kubectl"}]))
    stored = index.get("Task", "team", "t")
    assert stored is not None
    assert "managedFields" not in stored["metadata"]


def test_memory_of_the_dead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "TOMBSTONES", 3)
    index = Index()
    for number in range(10):
        index.remove(make("Task", f"t{number}", rv=number + 1))
    assert len(index._tombstones) == 3


WORK = {
    "agentRef": {"name": "writer"},
    "requiredCapabilities": ["report"],
    "dependsOn": ["before"],
    "inputs": [
        {"name": "a", "from": {"task": "earlier", "output": "o"}},
        {"name": "b", "digest": "sha256:0"},
        {"name": "c", "sources": [{"task": "one", "output": "o"}, {"task": "other", "output": "o"}]},
    ],
}


STEPS = {"steps": [{"name": "s", "inputs": [{"name": "a", "from": {"task": "outside", "output": "o"}}]}]}


@pytest.mark.parametrize(
    ("obj", "field", "value"),
    [
        (make("Node", "x", spec={"graphRef": {"name": "g"}, "steps": []}), "graph", "team/g"),
        (make("Node", "x", spec={"graphRef": {"name": "g"}, "steps": [WORK]}), "agent", "team/writer"),
        (make("Node", "x", spec={"graphRef": {"name": "g"}, "steps": [WORK]}), "capability", "team/report"),
        (make("Task", "x", spec={"graphRef": {"name": "g"}}), "graph", "team/g"),
        (make("Task", "x", spec={"nodeRef": {"name": "n"}}), "node", "team/n"),
        (
            make(
                "Task",
                "x",
                spec={},
                ownerReferences=[
                    {"apiVersion": "v1", "kind": "Node", "name": "machine", "uid": "m"},
                    {"apiVersion": "triplane.dev/v1alpha1", "kind": "Node", "name": "n", "uid": "u"},
                ],
            ),
            "node",
            "team/n",
        ),
        (make("Task", "x", spec=WORK), "agent", "team/writer"),
        (make("Task", "x", spec={"review": {"agentRef": {"name": "critic"}}}), "agent", "team/critic"),
        (make("Task", "x", spec=WORK), "capability", "team/report"),
        (make("Task", "x", spec=WORK), "capability", "team/review"),
        (make("Task", "x", spec={"review": {"capability": "audit"}}), "capability", "team/audit"),
        (make("Task", "x", spec=WORK), "dependency", "team/earlier"),
        (make("Task", "x", spec=WORK), "dependency", "team/before"),
        (make("Task", "x", spec=WORK), "dependency", "team/one"),
        (make("Task", "x", spec=WORK), "dependency", "team/other"),
        (make("Node", "x", spec=STEPS), "dependency", "team/outside"),
        (make("Workflow", "x", spec=STEPS), "dependency", "team/outside"),
        (make("Node", "x", spec={"workflowRef": {"name": "w"}}), "workflow", "team/w"),
        (make("Node", "x", spec={"graphRef": {"name": "g"}, "queue": {"name": "q"}}), "queue", "team/g/q"),
        (make("Node", "x", spec={"steps": [{"name": "s"}]}), "step", "team/x-s"),
        (make("Node", "x", spec={}, status={"steps": [{"name": "s", "task": "as-made"}]}), "step", "team/as-made"),
        (make("Agent", "x", spec={"harnessRef": {"name": "h"}}), "harness", "team/h"),
        (make("Agent", "x", spec={"capabilities": ["review", "report"]}), "capability", "team/report"),
        (make("AgentSession", "x", spec={"taskRef": {"name": "t", "uid": "u1"}}), "task", "u1"),
        (make("AgentSession", "x", spec={"agentRef": {"name": "a", "uid": "u2"}}), "agent", "u2"),
        (make("Artifact", "x", spec={"taskRef": {"name": "t", "uid": "u1"}}), "task", "u1"),
        (make("Artifact", "x", spec={"sessionRef": {"name": "s", "uid": "u3"}}), "session", "u3"),
        (make("Review", "x", spec={"taskRef": {"name": "t", "uid": "u1"}}), "task", "u1"),
        (make("Graph", "x", ownerReferences=[{"kind": "X", "name": "o", "uid": "u4"}]), "owner", "u4"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else value,
)
def test_a_reference_finds_its_referrers_until_it_is_gone(obj: Any, field: str, value: str) -> None:
    index = Index()
    index.put(obj)
    assert names(index.children(obj["kind"], field, value)) == ["x"]
    index.remove(obj)
    assert index.children(obj["kind"], field, value) == []


def test_a_task_reviewed_by_people_waits_for_no_capability() -> None:
    index = Index()
    index.put(make("Task", "x", spec={"review": {"people": ["alice"]}}))
    assert index.children("Task", "capability", "team/review") == []


def test_an_edited_reference_moves() -> None:
    index = Index()
    index.put(make("Agent", "a", rv=1, spec={"harnessRef": {"name": "old"}}))
    index.put(make("Agent", "a", rv=2, spec={"harnessRef": {"name": "new"}}))
    assert index.children("Agent", "harness", "team/old") == []
    assert names(index.children("Agent", "harness", "team/new")) == ["a"]


def test_a_misspelt_field_is_an_error_not_an_empty_answer() -> None:
    with pytest.raises(KeyError):
        Index().children("Task", "grahp", "team/g")


def test_lists_are_sorted_and_by_namespace() -> None:
    index = Index()
    for namespace, name in [("b", "y"), ("a", "z"), ("a", "x")]:
        index.put(make("Task", name, namespace=namespace, uid=namespace + name))
    assert names(index.list("Task")) == ["x", "z", "y"]
    assert names(index.list("Task", "a")) == ["x", "z"]


LIVES = 4


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any] | None, list[int]]:
    """A true history of incarnations of one name, the final object (None: deleted), and an order of delivery
    with repeats in which every event arrives."""
    events: list[tuple[str, dict[str, Any]]] = []
    version = 0
    final: dict[str, Any] | None = None
    for life in range(draw(st.integers(1, LIVES))):
        for step in range(draw(st.integers(1, 4))):
            version += draw(st.integers(1, 1000))
            graph = draw(st.sampled_from(["g1", "g2"]))
            final = make("Task", "t", uid=f"life-{life}", rv=version, spec={"graphRef": {"name": graph}, "n": step})
            events.append(("put", final))
        last = life == LIVES - 1
        if not last or draw(st.booleans()):
            version += draw(st.integers(1, 1000))
            events.append(("remove", make("Task", "t", uid=f"life-{life}", rv=version)))
            final = None
    order = draw(st.permutations(range(len(events))))
    repeats = draw(st.lists(st.sampled_from(range(len(events))), max_size=6))
    return events, final, [*order, *repeats]


@given(histories())
def test_whatever_the_order_of_delivery_the_mirror_ends_at_the_truth(
    history: tuple[list[tuple[str, dict[str, Any]]], dict[str, Any] | None, list[int]],
) -> None:
    events, final, order = history
    removed: set[str] = set()
    gone: list[str] = []
    index = Index(lambda change: gone.append(change.object["metadata"]["uid"]) if change.after is None else None)
    for number in order:
        action, obj = events[number]
        (index.put if action == "put" else index.remove)(obj)
        if action == "remove":
            removed.add(obj["metadata"]["uid"])
        for uid in removed:
            assert index.by_uid(uid) is None, "a deleted UID came back"
        stored = index.get("Task", "team", "t")
        for graph in ("g1", "g2"):
            expected = [stored] if stored and stored["spec"]["graphRef"]["name"] == graph else []
            assert index.children("Task", "graph", f"team/{graph}") == expected
    assert index.get("Task", "team", "t") == final
    assert len(gone) == len(set(gone)), "an end was reported twice"
