"""Walks the resource graph around a thing, level by level, as far as the reader may see."""

from collections.abc import Collection
from typing import Final

from triplane.domain.provenance import Provenance, Way, inward_kinds, is_digest, outward_kinds, wanted_tasks
from triplane.domain.resourcegraph import Edge, ResourceRecord
from triplane.ports import GraphStore

MAX_NODES: Final = 2000
"""Things in one answer; a walk that meets more is cut off, and says so."""
_REVIEWS: Final = frozenset({"reviews"})


async def walk(
    graph: GraphStore, start: Collection[str], way: Way, depth: int, namespaces: frozenset[str] | None
) -> Provenance:
    """Everything within ``depth`` edges up, down or both ways; two reads for the edges and one for the resources of
    each level. Resources of other namespaces than these (None: of all) are as if they were not there."""
    found = Provenance(tuple(start), dict(await graph.get_many([id_ for id_ in start if not is_digest(id_)])))
    found.depths = dict.fromkeys(start, 0)
    for one_way in (Way.UP, Way.DOWN):
        if way in (one_way, Way.BOTH):
            await _one_way(graph, found, one_way, depth, namespaces)
    return found


async def _one_way(
    graph: GraphStore, found: Provenance, way: Way, depth: int, namespaces: frozenset[str] | None
) -> None:
    frontier = list(found.start)
    sign = -1 if way is Way.UP else 1
    for level in range(1, depth + 1):
        outward = await graph.edges_of(frontier, outgoing=True, kinds=outward_kinds(way))
        inward = await graph.edges_of(frontier, outgoing=False, kinds=inward_kinds(way))
        edges = await _visible(graph, [*outward, *inward], found, namespaces)
        leaves: list[Edge] = []
        if way is Way.UP:  # who judged a thing belongs to where it came from, though it came later
            judged = [id_ for id_ in frontier if not is_digest(id_)]
            reviews = await graph.edges_of(judged, outgoing=False, kinds=_REVIEWS)
            leaves = await _visible(graph, reviews, found, namespaces)
        fresh = _take(found, edges, sign * level)
        _take(found, leaves, sign * level)
        if not fresh or found.truncated:
            return
        frontier = fresh


def _take(found: Provenance, edges: Collection[Edge], depth: int) -> list[str]:
    """Note the edges and their new ends; returns these."""
    fresh: list[str] = []
    for edge in edges:
        for end in (edge.source, edge.target):
            if end in found.depths:
                continue
            if len(found.depths) >= MAX_NODES:
                found.truncated = True
                continue
            found.depths[end] = depth
            fresh.append(end)
        found.edges[edge.identity] = edge
    return fresh


async def _visible(
    graph: GraphStore, edges: Collection[Edge], found: Provenance, namespaces: frozenset[str] | None
) -> list[Edge]:
    """Those edges whose ends, and the Task they were made for, the reader may see."""
    ends = {end for edge in edges for end in (edge.source, edge.target)} | wanted_tasks(edges)
    unknown = [end for end in ends if not is_digest(end) and end not in found.records]
    records = {**found.records, **(await graph.get_many(unknown) if unknown else {})}
    found.records = {uid: record for uid, record in records.items() if _may_see(record, namespaces)}

    def seen(id_: str) -> bool:
        return is_digest(id_) or id_ in found.records

    return [edge for edge in edges if seen(edge.source) and seen(edge.target) and all(map(seen, wanted_tasks([edge])))]


def _may_see(record: ResourceRecord, namespaces: frozenset[str] | None) -> bool:
    return namespaces is None or record.namespace in namespaces
