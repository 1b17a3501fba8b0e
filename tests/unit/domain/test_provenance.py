"""Provenance as tree, DOT and SVG: the same every time, and no name breaks out of it."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from triplane.domain.lineage_formats import dot, tree
from triplane.domain.lineage_svg import svg
from triplane.domain.provenance import Gathered, edge_document, node_document, shows
from triplane.domain.resourcegraph import Edge, ResourceRecord
from triplane.errors import Unavailable

GOLDEN = Path(__file__).parent / "golden"
REPORT, PARTS, SCORE = ("sha256:" + digit * 64 for digit in "123")
SVG = "{http://www.w3.org/2000/svg}"


def record(uid: str, kind: str, called: str, *, gone: bool = False, **spec: Any) -> ResourceRecord:
    return ResourceRecord(uid, kind, "team", called, 1, {}, spec, None, 1, gone)


def gathered(
    start: str, records: Iterable[ResourceRecord], depths: Mapping[str, int], edges: Iterable[Edge], way: str = "up"
) -> dict[str, Any]:
    """As the gateway streams it."""
    kept = {item.uid: item for item in records}
    made = Gathered()
    made.add({"walk": {"start": [start], "way": way, "depth": 64, "truncated": False}})
    for id_, depth in depths.items():
        made.add({"node": node_document(id_, depth, kept.get(id_))})
    for edge in edges:
        if shows(edge, kept.get(edge.target)):
            made.add({"edge": edge_document(edge)})
    made.add({"end": {"truncated": False}})
    return made.document()


def found(*, way: str = "up") -> dict[str, Any]:
    """A report made of two fields of a score, reviewed, all of it deleted but the Graph."""
    part = {"task": "t-1", "input": "parts", "merge": "JsonObject", "step": "score", "output": "report"}
    edges = [
        Edge("s-1", "produces", "r-1", 8, {"run": 2, "round": 2}),
        Edge("r-1", "derivedFrom", PARTS, 8, {"name": "parts"}, "parts"),
        Edge("s-1", "consumes", PARTS, 7, {"name": "parts"}, "parts"),
        Edge(PARTS, "derivedFrom", SCORE, 6, {**part, "path": "/total", "to": "/a"}, "t-1/1/parts/1"),
        Edge(PARTS, "derivedFrom", SCORE, 6, {**part, "path": "/name", "to": "/b"}, "t-1/1/parts/2"),
        Edge("r-0", "produces", SCORE, 5, {"output": "report"}),
        Edge("s-1", "uses", "a-1", 7, {"role": "agent"}, "agent"),
        Edge("t-1", "owns", "s-1", 7),
        Edge("t-1", "owns", "r-1", 7),
        Edge("g-1", "owns", "t-1", 3),
        Edge("v-1", "reviews", "r-1", 9, {"verdict": "Approve"}),
    ]
    records = [
        record("r-1", "Artifact", "report", gone=True, name="report", digest=REPORT, size=1234, round=2),
        record("r-0", "Artifact", "score", gone=True, name="report", digest=SCORE, size=12, round=1),
        record("s-1", "AgentSession", "write-work-1", gone=True, role="Producer", agentRef={"name": "writer"}, round=1),
        record("t-1", "Task", "write", gone=True, step="write"),
        record("g-1", "Graph", "demo"),
        record("a-1", "Agent", "writer", gone=True),
        record("v-1", "Review", "write-review-2", gone=True, verdict="Approve", round=2),
    ]
    depths = {"r-1": 0, "s-1": -1, PARTS: -1, "v-1": -1, "t-1": -2, "a-1": -2, SCORE: -2, "g-1": -3, "r-0": -3}
    return gathered("r-1", records, depths, edges, way)


@pytest.mark.parametrize("form", ["txt", "dot", "svg"])
def test_the_whole_of_a_lineage_looks_like_this(form: str) -> None:
    shown = {"txt": "\n".join(tree(found())) + "\n", "dot": dot(found()), "svg": svg(found())}[form]
    path = GOLDEN / f"lineage.{form}"
    assert shown == path.read_text(encoding="utf-8"), f"if this is meant, write it to {path.name}"


def test_the_owner_of_an_artifact_is_shown_through_the_session_that_made_it() -> None:
    assert ("t-1", "r-1") not in {(edge["source"], edge["target"]) for edge in found()["edges"]}


def test_downwards_the_same_edges_lead_the_other_way() -> None:
    edges = [Edge(PARTS, "derivedFrom", SCORE, 1), Edge("r-1", "derivedFrom", PARTS, 2)]
    report = record("r-1", "Artifact", "report", name="report")
    assert tree(gathered(SCORE, [report], {SCORE: 0, PARTS: 1, "r-1": 2}, edges, "down")) == [
        SCORE,
        "came of it:",
        f"└─ led to: {PARTS}",
        "   └─ led to: Artifact team/report (output report)",
    ]


def hostile() -> dict[str, Any]:
    name = 'x"]; evil [label="\\n</text><script>alert(1)</script>\u202e\x1b[31m\n'
    records = [record("t-1", "Task", name), record("t-2", "Task", "y", step=name)]
    return gathered("t-1", records, {"t-1": 0, "t-2": -1}, [Edge("t-1", "dependsOn", "t-2", 1, {"name": name})])


def test_names_cannot_break_out_of_a_tree_or_a_graph() -> None:
    lines = tree(hostile())
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    drawn = dot(hostile())
    assert drawn.count("\n") == 7
    assert '"]; evil' not in drawn.replace('\\"', "")
    assert "\u202e" not in drawn


def test_names_cannot_break_out_of_a_picture() -> None:
    picture = ET.fromstring(svg(hostile()))
    assert {item.tag.removeprefix(SVG) for item in picture.iter()} == {
        "svg", "style", "defs", "marker", "path", "g", "title", "rect", "text",
    }  # fmt: skip
    assert "\u202e" not in "".join(picture.itertext())


def chain(length: int, *extra: Edge) -> dict[str, Any]:
    records = [record(f"t-{n}", "Task", f"t{n}") for n in range(length)]
    edges = (*(Edge(f"t-{n}", "dependsOn", f"t-{n + 1}", n) for n in range(length - 1)), *extra)
    return gathered("t-0", records, {f"t-{n}": -n for n in range(length)}, edges)


def test_an_answer_that_broke_off_is_not_taken_for_a_whole_one() -> None:
    made = Gathered()
    made.add({"walk": {"start": ["t-0"], "way": "up", "depth": 64}})
    made.add({"node": node_document("t-0", 0, record("t-0", "Task", "t"))})
    made.add({"of a later release": {}})
    with pytest.raises(Unavailable, match="broke off after 1 things"):
        made.document()
    made.add({"end": {"truncated": True}})
    assert made.document()["truncated"] is True


def test_a_long_chain_and_a_cycle_are_drawn_to_the_end() -> None:
    for document in (chain(1500), chain(30, Edge("t-29", "dependsOn", "t-0", 99), Edge("t-3", "dependsOn", "t-3", 99))):
        assert len([line for line in tree(document) if "(above)" not in line]) == len(document["nodes"]) + 1
        boxes = list(ET.fromstring(svg(document)).iter(f"{SVG}rect"))
        assert len(boxes) == len(document["nodes"])
        assert len({(box.get("x"), box.get("y")) for box in boxes}) == len(boxes)


def test_in_a_picture_what_came_before_stands_further_left() -> None:
    picture = ET.fromstring(svg(found()))
    left: dict[str, int] = {}
    for group in picture.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert box is not None
        left[str(title.text).rsplit(" ", 1)[-1]] = int(str(box.get("x")))
    assert left["g-1"] < left["t-1"] < left["s-1"] < left["r-1"] < left["v-1"]
    assert left["r-0"] < left[SCORE] < left[PARTS] < left["s-1"]


def test_a_walk_that_was_cut_off_says_so() -> None:
    document = {**found(), "truncated": True}
    assert "cut off" in tree(document)[-1]
