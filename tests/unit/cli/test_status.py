"""The tree of ``triplane status``."""

from typing import Any

import pytest

from triplane.cli.output import one_line
from triplane.cli.status import broken_log, is_unwell, show, tree
from triplane.errors import Forbidden, TriplaneError, Unavailable


def make(kind: str, name: str, spec: dict[str, Any], phase: str = "Succeeded", **conditions: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
        "status": {
            "phase": phase,
            "conditions": [
                {"type": type_, "status": status, "reason": "Because", "message": "of\x1b[31m that"}
                for type_, status in conditions.items()
            ],
        },
    }


def world(task_phase: str = "Succeeded", **conditions: str) -> dict[str, list[dict[str, Any]]]:
    ref = {"graphRef": {"name": "g"}}
    task_ref = {"name": "n-step", "uid": "uid-n-step"}
    session = {"taskRef": task_ref, "agentRef": {"name": "a", "uid": "x"}, "role": "Producer", "round": 1}
    artifact = {
        "name": "report", "digest": "sha256:" + "ab" * 32, "size": 3, "round": 1,
        "taskRef": task_ref, "sessionRef": {"name": "s", "uid": "uid-s"},
    }  # fmt: skip
    return {
        "Graph": [make("Graph", "g", {"title": "T"}), make("Graph", "other", {})],
        "Node": [make("Node", "n", ref), make("Node", "lost", {"graphRef": {"name": "gone"}}, "Pending")],
        "Task": [make("Task", "n-step", {**ref, "nodeRef": {"name": "n"}}, task_phase, **conditions)],
        "AgentSession": [make("AgentSession", "s", session)],
        "Artifact": [make("Artifact", "s-report", artifact, Reviewed="True")],
        "Review": [make("Review", "r", {"taskRef": task_ref, "verdict": "Approve", "round": 1})],
    }


def test_everything_hangs_where_it_belongs() -> None:
    (graph,) = tree(world(), "g")
    (node,) = graph.children
    (task,) = node.children
    session, review = task.children
    (artifact,) = session.children
    assert [row.kind for row in (node, task, session, review, artifact)] == [
        "Node", "Task", "AgentSession", "Review", "Artifact",
    ]  # fmt: skip
    assert (artifact.state, artifact.facts["digest"]) == ("Accepted", "abababababab")


def test_work_of_a_graph_that_does_not_exist_is_shown_too() -> None:
    assert [row.name for row in tree(world())] == ["g", "other", "lost"]


@pytest.mark.parametrize(
    ("phase", "conditions", "unwell"),
    [
        pytest.param("Succeeded", {"Succeeded": "True"}, False, id="accepted work is well"),
        pytest.param("Running", {"Succeeded": "Unknown"}, False, id="running work is well"),
        pytest.param("Failed", {"Succeeded": "False"}, True, id="failed work is not"),
        pytest.param("Waiting", {"Stalled": "True"}, True, id="stalled work is not"),
        pytest.param("Cancelled", {}, True, id="cancelled work is not"),
    ],
)
def test_a_graph_is_as_well_as_its_work(phase: str, conditions: dict[str, str], unwell: bool) -> None:
    (graph,) = tree(world(phase, **conditions), "g")
    assert is_unwell(graph) is unwell


def test_text_from_outside_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    show(tree(world("Failed", Succeeded="False"), "g"), "ns")
    assert "\x1b" not in capsys.readouterr().out
    assert one_line("a\x1b[2J\nb\u202ec") == "a\\x1b[2J\\nb\\u202ec"


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        pytest.param({}, False, id="nothing was ever said"),
        pytest.param({"data": {"verified": "True"}}, False, id="it was mended"),
        pytest.param(
            {"data": {"verified": "False", "sequence": "17", "reason": "PrevMismatch", "message": "a\x1b[2Jb"}},
            True,
            id="it is broken",
        ),
        pytest.param(Forbidden("not for you"), False, id="the caller may not ask"),
        pytest.param(Unavailable("not now"), False, id="the API server does not answer that"),
    ],
)
def test_a_broken_log_is_told_to_whoever_may_know(held: dict[str, Any] | TriplaneError, shown: bool) -> None:
    class Server:
        def raw(self, path: str) -> dict[str, Any]:
            assert path == "/api/v1/namespaces/triplane-system/configmaps/triplane-log"
            if isinstance(held, TriplaneError):
                raise held
            return held

    said = broken_log(Server())  # type: ignore[arg-type]
    assert (said is not None) is shown
    if said is not None:
        assert said.startswith("at entry 17: PrevMismatch: a")
        assert "\x1b" not in said
