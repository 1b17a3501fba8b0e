"""The graph around a thing: upwards where it came from, downwards what came of it.

Edges are named for what they say, not for the way time flows: an Artifact is ``derivedFrom`` its inputs, and a session
``produces`` it. Here each kind is given its direction of flow, so that a walk always goes one way in time.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from triplane.domain.resourcegraph import Edge, ResourceRecord
from triplane.errors import Unavailable

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


def outward_kinds(way: Way) -> frozenset[str]:
    """Kinds of edges that a walk follows from source to target; it follows the others against their arrows."""
    return TARGET_FIRST if way is Way.UP else SOURCE_FIRST


def inward_kinds(way: Way) -> frozenset[str]:
    """Kinds of edges that a walk follows from target to source."""
    return SOURCE_FIRST if way is Way.UP else TARGET_FIRST


def shows(edge: Edge, target: ResourceRecord | None) -> bool:
    """Whether the edge says more than another one does."""
    return not (edge.kind == "owns" and target is not None and target.kind in _BELONGINGS)


def node_document(id_: str, depth: int, record: ResourceRecord | None) -> dict[str, Any]:
    """A node as JSON (docs/reference/gateway-api.md, "Provenance"); ``depth`` is below zero upwards."""
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


def edge_document(edge: Edge) -> dict[str, Any]:
    """An edge as JSON."""
    return {"source": edge.source, "kind": edge.kind, "target": edge.target, "key": edge.key, "data": dict(edge.data)}


class Gathered:
    """The lines of a streamed walk, put together for those who draw it. What was met both upwards and downwards counts
    where it was met first."""

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._edges: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._ended = False

    def add(self, line: Mapping[str, Any]) -> None:
        """One line; of a kind that is not known, nothing."""
        if "walk" in line:
            self._said = dict(line["walk"])
        elif "node" in line:
            self._nodes.setdefault(line["node"]["id"], dict(line["node"]))
        elif "edge" in line:
            edge = dict(line["edge"])
            key = edge.pop("key", "")
            self._edges.setdefault((edge["source"], edge["kind"], edge["target"], key), edge)
        elif "end" in line:
            self._ended = True
            self._said["truncated"] = line["end"]["truncated"]

    def document(self) -> dict[str, Any]:
        """Nodes by (depth, kind, name, id), edges by (from, kind, to, key). Raises ``Unavailable`` when the last line
        did not come."""
        if not self._ended:
            raise Unavailable(f"the answer broke off after {len(self._nodes)} things; ask again, with a lower --limit")
        nodes = sorted(
            self._nodes.values(),
            key=lambda node: (abs(node["depth"]), node["depth"], node["kind"], node["name"] or "", node["id"]),
        )
        edges = [edge for _, edge in sorted(self._edges.items())]
        return {**self._said, "nodes": nodes, "edges": edges}


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
