"""Reads of the graph in memory, as it is or as it was at an entry of the log."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from triplane.audit.plainjson import json_copy
from triplane.domain.provenance import is_digest
from triplane.domain.resourcegraph import Kinds, Met, Traversal
from triplane.domain.selector import LabelSelector
from triplane.ports import Edge, Hop, ResourceRecord, Route

_Identity = tuple[str, str, str, str]
LATEST: Final = 2**63 - 1


@dataclass(frozen=True)
class Kept:
    """What a store and its views share."""

    generations: dict[str, dict[int, ResourceRecord]] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    edges: dict[_Identity, Edge] = field(default_factory=dict)
    at: Mapping[bool, dict[str, set[_Identity]]] = field(
        default_factory=lambda: {True: defaultdict(set), False: defaultdict(set)}
    )
    """Edges leaving (True) and entering (False) an end."""


class MemoryGraphReader:
    """``triplane.ports.GraphReader`` of what entries up to ``upto`` brought."""

    def __init__(self, kept: Kept, upto: int = LATEST) -> None:
        self._kept = kept
        self._upto = upto

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """See ``GraphReader.get``."""
        generations = self._known(uid)
        if not generations:
            return None
        found = generations.get(max(generations) if generation is None else generation)
        return None if found is None else self._given(found)

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """See ``GraphReader.get_many``."""
        found = {uid: await self.get(uid) for uid in uids}
        return {uid: record for uid, record in found.items() if record is not None}

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphReader.find``."""
        wanted = (kind, namespace, name)
        found = self._newest(lambda record: (record.kind, record.namespace, record.name) == wanted)
        return sorted(found, key=lambda record: (-record.seq, record.uid))

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """See ``GraphReader.list``."""
        return await self.query_by_labels(LabelSelector(), kind=kind, namespace=namespace)

    async def query_by_labels(
        self,
        selector: LabelSelector,
        *,
        kind: str | None = None,
        namespace: str | None = None,
        after: tuple[str, str, str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[ResourceRecord]:
        """See ``GraphReader.query_by_labels``."""
        found = self._newest(
            lambda record: (
                kind in (None, record.kind)
                and namespace in (None, record.namespace)
                and (after is None or _place(record) > after)
                and selector.matches(record.labels)
            )
        )
        return sorted(found, key=_place)[:limit]

    async def traverse(self, start: str, route: Route = Route()) -> AsyncIterator[Hop]:  # frozen
        """See ``GraphReader.traverse``."""
        walk = Traversal(start, route)
        found: list[Hop] = []
        while not walk.over:
            found += walk.advance(item for near in walk.frontier for item in self._met(near, route))
        if route.every:
            found += walk.rest(lambda near: self._met(near, route))
        for hop in found:
            yield replace(hop, via=own_edge(hop.via))

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphReader.edges``."""
        return await self.edges_of([uid], outgoing=outgoing, kinds=kinds)

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """See ``GraphReader.edges_of``."""
        touching = (edge for end in dict.fromkeys(ids) for edge in self._touching(end, outgoing, kinds or None))
        found = [own_edge(edge) for edge in touching]
        return sorted(found, key=lambda edge: (edge.seq, edge.kind, *_ends(edge, outgoing), edge.key))

    def _known(self, uid: str) -> dict[int, ResourceRecord]:
        kept = self._kept.generations.get(uid, {})
        return {generation: record for generation, record in kept.items() if record.seq <= self._upto}

    def _newest(self, wanted: Callable[[ResourceRecord], bool]) -> Iterator[ResourceRecord]:
        for uid in self._kept.generations:
            known = self._known(uid)
            if known and wanted(newest := known[max(known)]):
                yield self._given(newest)

    def _given(self, record: ResourceRecord) -> ResourceRecord:
        mine = own(record)
        gone = self._kept.gone.get(record.uid)
        return replace(mine, gone=True) if gone is not None and gone <= self._upto else mine

    def _touching(self, end: str, outgoing: bool, kinds: Kinds) -> Iterator[Edge]:
        for identity in self._kept.at[outgoing].get(end, ()):
            edge = self._kept.edges[identity]
            if edge.seq <= self._upto and (kinds is None or edge.kind in kinds):
                yield edge

    def _met(self, near: str, route: Route) -> Iterable[Met]:
        met = [
            *(Met(edge.target, edge) for edge in self._touching(near, True, route.outward)),
            *(Met(edge.source, edge) for edge in self._touching(near, False, route.inward)),
            *(Met(edge.source, edge, leaf=True) for edge in self._touching(near, False, route.leaves)),
        ]
        return met if route.namespaces is None else [item for item in met if self._may_meet(item, route.namespaces)]

    def _may_meet(self, item: Met, namespaces: frozenset[str]) -> bool:
        task = item.edge.data.get("task")
        return (is_digest(item.far) or self._within(item.far, namespaces)) and (
            not task or self._within(str(task), namespaces)
        )

    def _within(self, uid: str, namespaces: frozenset[str]) -> bool:
        return any(record.namespace in namespaces for record in self._known(uid).values())


def own(record: ResourceRecord) -> ResourceRecord:
    """A copy no caller can change behind our back, or through which one could change ours."""
    return replace(record, labels=json_copy(record.labels), spec=json_copy(record.spec))


def own_edge(edge: Edge) -> Edge:
    """As ``own``."""
    return replace(edge, data=json_copy(edge.data))


def _place(record: ResourceRecord) -> tuple[str, str, str, str]:
    return record.kind, record.namespace, record.name, record.uid


def _ends(edge: Edge, outgoing: bool) -> tuple[str, str]:
    """The far end, then the near one."""
    return (edge.target, edge.source) if outgoing else (edge.source, edge.target)
