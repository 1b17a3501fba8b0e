"""The values of the resource graph, and how it is walked.

Nodes are UIDs of resources and digests of blobs; what is known of a resource is its ``ResourceRecord``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from triplane.audit.model import JsonObject


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """One generation of one resource, kept after the resource is gone."""

    uid: str
    kind: str
    namespace: str
    name: str
    generation: int
    labels: Mapping[str, str]
    spec: JsonObject
    requester: str | None
    """Principal id, never a username."""
    seq: int
    """Log sequence of the event that brought it."""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed relation between two resources (or a resource and a digest)."""

    source: str
    kind: str
    """owns, dependsOn, consumes, produces, derivedFrom, reviews or uses."""
    target: str
    seq: int
    data: JsonObject = field(default_factory=dict)
    key: str = ""
    """Tells parallel edges apart: one blob may be two inputs of a session, or several parts of one input."""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it this edge."""
        return self.source, self.kind, self.target, self.key


@dataclass(frozen=True, slots=True)
class GraphChange:
    """What one log entry, or several, add to the graph. In whatever order changes are applied, and however often,
    the graph is the same in the end."""

    records: tuple[ResourceRecord, ...] = ()
    edges: tuple[Edge, ...] = ()
    gone: tuple[tuple[str, int], ...] = ()
    """(uid, sequence of the entry that says so)."""

    def __bool__(self) -> bool:
        return bool(self.records or self.edges or self.gone)

    @staticmethod
    def merged(changes: Iterable["GraphChange"]) -> "GraphChange":
        """All of them in one, each record and edge once: of the same edge the earliest."""
        records: dict[tuple[str, int], ResourceRecord] = {}
        edges: dict[tuple[str, str, str, str], Edge] = {}
        gone: dict[str, int] = {}
        for change in changes:
            for record in change.records:
                records.setdefault((record.uid, record.generation), record)
            for edge in change.edges:
                kept = edges.setdefault(edge.identity, edge)
                if edge.seq < kept.seq:
                    edges[edge.identity] = edge
            for uid, seq in change.gone:
                gone[uid] = min(seq, gone.get(uid, seq))
        return GraphChange(tuple(records.values()), tuple(edges.values()), tuple(gone.items()))


class Direction(StrEnum):
    """Which way edges are followed."""

    OUT = "out"
    IN = "in"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Hop:
    """One end reached by a traversal, once, by a shortest way."""

    id: str
    """UID of a resource, or the digest of a blob."""
    depth: int
    """Edges from the start, from 1."""
    via: Edge


class Traversal:
    """Breadth first, level by level, over edges that the caller supplies: ``advance`` wants those of ``frontier``.

    Each end is reached once, so cycles end it; within a depth ends come by (seq, kind, id) of the edge and the end,
    which makes the result the same on every backend.
    """

    def __init__(self, start: str, *, max_depth: int, limit: int) -> None:
        self._reached = {start}
        self._max_depth = max_depth
        self._limit = limit
        self.hops: list[Hop] = []
        self.frontier: Sequence[str] = (start,)
        self._depth = 0

    @property
    def over(self) -> bool:
        """Nothing further can be reached, or need be."""
        return not self.frontier or self._depth >= self._max_depth or len(self.hops) >= self._limit

    def advance(self, edges: Iterable[tuple[str, Edge]]) -> None:
        """One level deeper: ``edges`` are (end, edge) pairs leading away from the frontier."""
        found: dict[str, Edge] = {}
        for end, edge in edges:
            if end in self._reached:
                continue
            best = found.get(end)
            if best is None or _order(edge) < _order(best):
                found[end] = edge
        self._depth += 1
        level = sorted(found.items(), key=lambda item: (item[1].seq, item[1].kind, item[0]))
        level = level[: self._limit - len(self.hops)]
        self.hops += [Hop(end, self._depth, edge) for end, edge in level]
        self._reached.update(end for end, _ in level)
        self.frontier = [end for end, _ in level]


def _order(edge: Edge) -> tuple[int, str, str, str, str]:
    return edge.seq, edge.kind, edge.source, edge.target, edge.key
