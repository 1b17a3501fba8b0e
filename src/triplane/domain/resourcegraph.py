"""The values of the resource graph, and how it is walked.

Nodes are UIDs of resources and digests of blobs; what is known of a resource is its ``ResourceRecord``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

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


Kinds = frozenset[str] | None
"""Kinds of edges; None is any."""
NO_KIND: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """Which edges a traversal follows, whom it may meet, and how far it goes."""

    outward: Kinds = None
    """Followed from source to target."""
    inward: Kinds = NO_KIND
    """Followed from target to source."""
    leaves: frozenset[str] = NO_KIND
    """Followed from target to source too, but what is reached only by them is not followed further."""
    namespaces: frozenset[str] | None = None
    """Unless None, only digests and kept resources of these are met, and of edges that were made for a Task
    (``data.task``) only those whose Task is one of them."""
    max_depth: int = 64
    limit: int = 100_000
    """Ends; when exactly as many were reached there may be more."""
    every: bool = False
    """After the ends also every other edge that was followed between what was reached: lineage is no tree."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One end reached by a traversal, once, by a shortest way; or, ``again``, another edge that leads to it."""

    id: str
    """UID of a resource, or the digest of a blob."""
    depth: int
    """Edges from the start, from 1; of the start itself 0."""
    via: Edge
    again: bool = False


@dataclass(frozen=True, slots=True)
class Met:
    """An edge at an end of the frontier, and the end it leads to."""

    far: str
    edge: Edge
    leaf: bool = False


@dataclass(frozen=True, slots=True)
class _Reached:
    depth: int
    via: Edge | None
    leaf: bool


class Traversal:
    """What ``GraphStore.traverse`` promises, over edges that the caller supplies: ``advance`` wants those that the
    route follows from ``frontier``.

    Breadth first, level by level. Each end is reached once, so cycles end it; within a depth ends come by (seq, kind,
    id) of the edge and the end, which makes the result the same on every backend.
    """

    def __init__(self, start: str, route: Route) -> None:
        self._reached = {start: _Reached(0, None, False)}
        self._route = route
        self._depth = 0
        self.frontier: Sequence[str] = (start,)

    @property
    def over(self) -> bool:
        """Nothing further can be reached, or need be."""
        full = len(self._reached) > self._route.limit
        return not self.frontier or self._depth >= self._route.max_depth or full

    def advance(self, met: Iterable[Met]) -> list[Hop]:
        """One level deeper; returns it."""
        found: dict[str, Met] = {}
        for item in met:
            if item.far in self._reached:
                continue
            best = found.get(item.far)
            if best is None or _order(item) < _order(best):
                found[item.far] = item
        self._depth += 1
        level = sorted(found.values(), key=lambda item: (item.edge.seq, item.edge.kind, item.far))
        level = level[: self._route.limit + 1 - len(self._reached)]
        self._reached.update((item.far, _Reached(self._depth, item.edge, item.leaf)) for item in level)
        self.frontier = [item.far for item in level if not item.leaf]
        return [Hop(item.far, self._depth, item.edge) for item in level]

    def rest(self, met_at: Callable[[str], Iterable[Met]]) -> Iterator[Hop]:
        """Every other edge that was followed: by the place of the end it was followed from, then (seq, kind, id, key).
        One that was met from both its ends comes once, from its source."""
        for near, here in self._reached.items():
            if not self._followed(here):
                continue
            known = {item.edge.identity: item for item in met_at(near) if item.far in self._reached}
            for item in sorted(
                known.values(), key=lambda item: (item.edge.seq, item.edge.kind, item.far, item.edge.key)
            ):
                there = self._reached[item.far]
                if item.edge not in (here.via, there.via) and not self._from_source(item, near, there):
                    yield Hop(item.far, there.depth, item.edge, again=True)

    def _from_source(self, item: Met, near: str, there: _Reached) -> bool:
        """Whether this edge, met at its target, was also met at its source."""
        kinds = self._route.outward
        if item.edge.source in (near, item.edge.target):
            return False
        return (kinds is None or item.edge.kind in kinds) and self._followed(there)

    def _followed(self, end: _Reached) -> bool:
        return end.depth < self._route.max_depth and not end.leaf


def _order(met: Met) -> tuple[bool, int, str, str, str, str]:
    edge = met.edge
    return met.leaf, edge.seq, edge.kind, edge.source, edge.target, edge.key
