"""The graph around a thing: upwards where it came from, downwards what came of it.

Edges are named for what they say, not for the way time flows: an Artifact is ``derivedFrom`` its inputs, and a session
``produces`` it. Here each kind is given its direction of flow, so that a walk always goes one way in time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from triplane.domain.resourcegraph import Edge, ResourceRecord

DIGEST_PREFIX: Final = "sha256:"
SOURCE_FIRST: Final = frozenset({"owns", "produces"})
"""The source is what the target came from."""
TARGET_FIRST: Final = frozenset({"dependsOn", "consumes", "derivedFrom", "uses", "reviews"})
"""The target is what the source came from."""
_BELONGINGS: Final = frozenset({"Artifact", "Review"})
"""Kinds that are shown under what produced or judged them, not under the Task that owns the objects."""


class Way(StrEnum):
    """Which way to go."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


def is_digest(id_: str) -> bool:
    """Whether a node of the graph is a blob; else it is a resource."""
    return id_.startswith(DIGEST_PREFIX)


def flow(edge: Edge) -> tuple[str, str]:
    """The edge in the direction of time: (what was there before, what came of it)."""
    return (edge.source, edge.target) if edge.kind in SOURCE_FIRST else (edge.target, edge.source)


def outward_kinds(way: Way) -> frozenset[str]:
    """Kinds of edges that a walk follows from source to target; it follows the others against their arrows."""
    return TARGET_FIRST if way is Way.UP else SOURCE_FIRST


def inward_kinds(way: Way) -> frozenset[str]:
    """Kinds of edges that a walk follows from target to source."""
    return SOURCE_FIRST if way is Way.UP else TARGET_FIRST


@dataclass
class Provenance:
    """What a walk has found so far."""

    start: Sequence[str]
    records: dict[str, ResourceRecord] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    """Edges from the start to each node; below zero upwards."""
    edges: dict[tuple[str, str, str, str], Edge] = field(default_factory=dict)
    truncated: bool = False

    def shown(self, edge: Edge) -> bool:
        """Whether both ends are there, and the edge says more than another one does."""
        target = self.records.get(edge.target)
        if edge.kind == "owns" and target is not None and target.kind in _BELONGINGS:
            return False
        return edge.source in self.depths and edge.target in self.depths

    def document(self, way: Way, depth: int) -> dict[str, Any]:
        """As JSON (docs/reference/gateway-api.md, "Provenance"): nodes by (depth, kind, name, id), edges by (from, to,
        kind, key)."""
        edges = sorted((edge for edge in self.edges.values() if self.shown(edge)), key=lambda edge: edge.identity)
        nodes = [_node(id_, at, self.records.get(id_)) for id_, at in self.depths.items()]
        nodes.sort(key=lambda node: (abs(node["depth"]), node["depth"], node["kind"], node["name"] or "", node["id"]))
        return {
            "start": list(self.start),
            "way": way.value,
            "depth": depth,
            "truncated": self.truncated,
            "nodes": nodes,
            "edges": [
                {"source": edge.source, "kind": edge.kind, "target": edge.target, "data": dict(edge.data)}
                for edge in edges
            ],
        }


def _node(id_: str, depth: int, record: ResourceRecord | None) -> dict[str, Any]:
    if record is None:
        return {"id": id_, "kind": "Blob", "namespace": None, "name": None, "depth": depth, "gone": None, "facts": {}}
    return {
        "id": id_,
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "depth": depth,
        "gone": record.gone,
        "facts": _facts(record.kind, record.spec),
    }


def _facts(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth a word of each kind; absent ones are left out."""
    match kind:
        case "Artifact":
            found = {
                "output": spec.get("name"),
                "digest": spec.get("digest"),
                "size": spec.get("size"),
                "round": spec.get("round"),
            }
        case "AgentSession":
            agent = spec.get("agentRef") or {}
            found = {"role": spec.get("role"), "agent": agent.get("name"), "round": spec.get("round")}
        case "Review":
            found = {"verdict": spec.get("verdict"), "round": spec.get("round")}
        case "Task":
            found = {"step": spec.get("step")}
        case _:
            found = {}
    return {key: value for key, value in found.items() if value is not None}


def part_text(data: Mapping[str, Any]) -> str:
    """Where a part of a composed input came from: ``score.report /total → input parts /a``."""
    source = ".".join(str(data[key]) for key in ("step", "output") if data.get(key))
    place = f" {data['path']}" if data.get("path") else ""
    to = f" {data['to']}" if data.get("to") else ""
    return f"{source}{place} → input {data.get('input')}{to}"


def edge_text(kind: str, data: Mapping[str, Any]) -> str:
    """An edge in words."""
    if kind == "derivedFrom" and data.get("input"):
        return f"derivedFrom ({data.get('merge')}: {part_text(data)})"
    named = data.get("name") or data.get("output") or data.get("verdict")
    if kind == "produces" and data.get("run"):
        named = f"run {data['run']}, round {data.get('round')}"
    return f"{kind} ({named})" if named else kind


def wanted_tasks(edges: Iterable[Edge]) -> set[str]:
    """Tasks for which inputs were composed: an edge is shown to whoever may see its Task."""
    return {str(edge.data["task"]) for edge in edges if edge.kind == "derivedFrom" and edge.data.get("task")}
