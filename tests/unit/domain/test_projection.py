"""What each entry says about the graph, and that what says nothing changes nothing."""

from typing import Any

import pytest

from triplane.audit.model import EventSubject
from triplane.audit.types import TYPES
from triplane.domain.projection import PROJECTED, LogEntry, documents_of, project
from triplane.domain.resourcegraph import Edge, GraphChange, ResourceRecord

SPEC, LABELS, ONE, TWO = ("sha256:" + digit * 64 for digit in "1234")


def entry(type_: str, kind: str = "Task", *, stream: str = "graph/g-1", actor: str = "system", **data: Any) -> LogEntry:
    subject = EventSubject(kind, "team", "thing", "u-1", 2, labels=(("triplane.dev/graph", "g"),))
    return LogEntry(f"{type_}/u-1/2", type_, stream, actor, subject, data, 7)


def edges(found: GraphChange) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.kind, edge.target) for edge in found.edges]


def test_an_observed_generation_becomes_a_record_with_all_its_labels() -> None:
    seen = entry("resource.observed", actor="p-1", specDigest=SPEC, labelsDigest=LABELS)
    assert documents_of(seen) == (SPEC, LABELS)
    (record,) = project(seen, {SPEC: {"a": 1}, LABELS: {"team": "red"}}).records
    assert record == ResourceRecord(
        "u-1", "Task", "team", "thing", 2, {"triplane.dev/graph": "g", "team": "red"}, {"a": 1}, "p-1", 7
    )
    with pytest.raises(KeyError):
        project(seen, {SPEC: {}})


@pytest.mark.parametrize(
    ("actor", "data", "expected"),
    [
        pytest.param("p-1", {}, "p-1", id="the actor is the requester"),
        pytest.param("system", {"requester": "p-2"}, "p-2", id="a later edit is the system's, the requester stays"),
        pytest.param("system", {}, None, id="nobody was stamped"),
    ],
)
def test_the_requester_is_a_principal_or_nobody(actor: str, data: dict[str, Any], expected: str | None) -> None:
    (record,) = project(entry("resource.observed", actor=actor, specDigest=SPEC, **data), {SPEC: {}}).records
    assert record.requester == expected


@pytest.mark.parametrize(
    ("kind", "stream", "data", "expected"),
    [
        pytest.param("Task", "graph/g-1", {}, [("g-1", "owns", "u-1")], id="a Task in the stream of its Graph"),
        pytest.param("Task", "graph/g-1", {"ownerUid": "n-1"}, [("n-1", "owns", "u-1")], id="an owner goes first"),
        pytest.param("Node", "graph/g-1", {}, [("g-1", "owns", "u-1")], id="a Node"),
        pytest.param("Task", "system", {}, [], id="a Task whose Graph is not there yet"),
        pytest.param("Review", "graph/g-1", {}, [], id="a person's Review belongs to nobody"),
        pytest.param("Graph", "graph/u-1", {}, [], id="a Graph does not own itself"),
    ],
)
def test_who_owns_an_object_is_in_its_entry(
    kind: str, stream: str, data: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    seen = entry("resource.observed", kind, stream=stream, specDigest=SPEC, **data)
    assert edges(project(seen, {SPEC: {}})) == expected


def test_a_session_uses_what_is_frozen_and_consumes_its_inputs_each_under_its_name() -> None:
    spec = {
        "snapshot": [
            {"role": "agent", "name": "a", "uid": "a-1", "generation": 3, "digest": ONE, "basis": "content"},
            {"role": "model", "name": "m", "basis": "declared"},
            {"role": "input", "name": "left", "digest": ONE, "basis": "content"},
            {"role": "input", "name": "right", "digest": ONE, "basis": "content"},
            {"role": "task", "name": "work-order", "digest": TWO, "basis": "content"},
        ]
    }
    found = project(entry("resource.observed", "AgentSession", specDigest=SPEC, ownerUid="t-1"), {SPEC: spec})
    assert found.edges == (
        Edge("t-1", "owns", "u-1", 7),
        Edge("u-1", "uses", "a-1", 7, {"role": "agent", "generation": 3}, "agent"),
        Edge("u-1", "consumes", ONE, 7, {"name": "left"}, "left"),
        Edge("u-1", "consumes", ONE, 7, {"name": "right"}, "right"),
    )


def test_an_artifact_is_produced_and_derived() -> None:
    spec = {
        "name": "report", "digest": ONE, "run": 2, "round": 1,
        "sessionRef": {"name": "s", "uid": "s-1"}, "materials": [{"name": "in", "digest": TWO}],
    }  # fmt: skip
    found = project(entry("resource.observed", "Artifact", stream="system", specDigest=SPEC), {SPEC: spec})
    assert found.edges == (
        Edge("s-1", "produces", "u-1", 7, {"run": 2, "round": 1}),
        Edge("u-1", "produces", ONE, 7, {"output": "report"}),
        Edge("u-1", "derivedFrom", TWO, 7, {"name": "in"}, "in"),
    )


def test_a_composed_input_says_field_by_field_where_it_came_from() -> None:
    parts = [
        {"taskUid": "t-8", "step": "score", "output": "report", "digest": TWO, "path": "/total", "to": "/a"},
        {"taskUid": "t-8", "step": "score", "output": "report", "digest": TWO, "path": "/name", "to": "/b"},
    ]
    found = project(entry("input.composed", input="parts", merge="JsonObject", digest=ONE, edges=parts), {})
    assert [edge.identity for edge in found.edges] == [
        (ONE, "derivedFrom", TWO, "u-1/2/1"),
        (ONE, "derivedFrom", TWO, "u-1/2/2"),
    ]
    assert found.edges[0].data == {
        "task": "u-1", "input": "parts", "merge": "JsonObject", "taskUid": "t-8", "step": "score", "output": "report",
        "path": "/total", "to": "/a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(
            entry("task.placed", role="producer", ownerUid="n-1", dependsOn=["t-8", "t-9"]),
            [("n-1", "owns", "u-1"), ("u-1", "dependsOn", "t-8"), ("u-1", "dependsOn", "t-9")],
            id="a placement",
        ),
        pytest.param(entry("task.placed", role="reviewer"), [], id="a reviewer's placement"),
        pytest.param(
            entry("node.planned", "Node", planDigest=ONE, steps=2, workflowUid="w-1", workflowGeneration=4),
            [("g-1", "owns", "u-1"), ("u-1", "uses", "w-1")],
            id="a plan",
        ),
        pytest.param(
            entry("review.recorded", "Review", reviewUid="v-1", verdict="Approve", artifactUids=["r-1", "r-2"]),
            [("v-1", "reviews", "r-1"), ("v-1", "reviews", "r-2")],
            id="a review",
        ),
    ],
)
def test_decisions_become_edges(seen: LogEntry, expected: list[tuple[str, str, str]]) -> None:
    assert edges(project(seen, {})) == expected


def test_an_end_is_an_end() -> None:
    assert project(entry("resource.gone"), {}) == GraphChange(gone=(("u-1", 7),))


@pytest.mark.parametrize("type_", sorted(TYPES.keys() - PROJECTED))
def test_types_that_say_nothing_about_the_graph_change_nothing(type_: str) -> None:
    assert not project(entry(type_), {})


def test_merging_keeps_the_first_record_and_the_earliest_edge() -> None:
    late, early = Edge("a", "owns", "b", 9, {"n": 1}), Edge("a", "owns", "b", 2)
    merged = GraphChange.merged([GraphChange(edges=(late,), gone=(("u", 5),)), GraphChange(edges=(early,)),
                                 GraphChange(gone=(("u", 3),))])  # fmt: skip
    assert (merged.edges, merged.gone) == ((early,), (("u", 3),))
    assert not GraphChange.merged([])
