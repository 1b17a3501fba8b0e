"""Graph store in memory: the twin of Postgres', for tests, and what a rebuilt graph is made in."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from triplane.audit.plainjson import json_copy
from triplane.domain.resourcegraph import Traversal
from triplane.domain.selector import LabelSelector
from triplane.ports import Direction, Edge, GraphChange, Hop, ResourceRecord

_Identity = tuple[str, str, str, str]


class MemoryGraphStore:
    """``triplane.ports.GraphStore`` in this process; gone with it."""

    def __init__(self) -> None:
        self._generations: dict[str, dict[int, ResourceRecord]] = {}
        self._gone: dict[str, int] = {}
        self._edges: dict[_Identity, Edge] = {}
        self._at: dict[bool, dict[str, set[_Identity]]] = {True: defaultdict(set), False: defaultdict(set)}
        """Edges leaving (True) and entering (False) an end."""

    async def apply(self, change: GraphChange) -> None:
        """See ``GraphStore.apply``."""
        records = [_own(record) for record in change.records]
        edges = [_own_edge(edge) for edge in change.edges]
        for record in records:
            self._generations.setdefault(record.uid, {}).setdefault(record.generation, record)
        self._link(edges)
        for uid, seq in change.gone:
            self._gone[uid] = min(seq, self._gone.get(uid, seq))

    async def replace(self, change: GraphChange, *, upto: int, keep: Collection[str] = ()) -> None:
        """See ``GraphStore.replace``."""
        kept = frozenset(keep)
        for uid, generations in list(self._generations.items()):
            left = {n: record for n, record in generations.items() if record.seq > upto or uid in kept}
            self._generations[uid] = left
            if not left:
                del self._generations[uid]
        for edge in list(self._edges.values()):
            if edge.seq <= upto and edge.source not in kept:
                self._unlink(edge)
        self._gone = {uid: seq for uid, seq in self._gone.items() if seq > upto or uid in kept}
        await self.apply(change)

    async def create(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.create``."""
        kept = _own(record)
        generations = self._generations.setdefault(record.uid, {})
        return generations.setdefault(record.generation, kept) is kept

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """See ``GraphStore.get``."""
        generations = self._generations.get(uid)
        if not generations:
            return None
        found = generations.get(max(generations) if generation is None else generation)
        return None if found is None else self._given(found)

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """See ``GraphStore.get_many``."""
        found = {uid: self._generations[uid] for uid in uids if uid in self._generations}
        return {uid: self._given(generations[max(generations)]) for uid, generations in found.items()}

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """See ``GraphStore.present``."""
        return frozenset(pair for pair in generations if pair[1] in self._generations.get(pair[0], ()))

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphStore.find``."""
        wanted = (kind, namespace, name)
        found = self._newest(lambda record: (record.kind, record.namespace, record.name) == wanted)
        return sorted(found, key=lambda record: (-record.seq, record.uid))

    async def update(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.update``."""
        kept = _own(record)
        stored = self._generations.get(record.uid, {}).get(record.generation)
        if stored is None or stored.seq > record.seq:
            return False
        self._generations[record.uid][record.generation] = replace(
            stored,
            labels=kept.labels,
            spec=kept.spec,
            requester=kept.requester,
            gone=kept.gone,
            seq=kept.seq,
        )
        return True

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """See ``GraphStore.list``."""
        return await self.query_by_labels(LabelSelector(), kind=kind, namespace=namespace)

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """See ``GraphStore.generations``."""
        newest = ((uid, found[max(found)]) for uid, found in self._generations.items())
        return {uid: (record.generation, record.gone or uid in self._gone) for uid, record in newest}

    async def query_by_labels(
        self,
        selector: LabelSelector,
        *,
        kind: str | None = None,
        namespace: str | None = None,
        after: tuple[str, str, str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[ResourceRecord]:
        """See ``GraphStore.query_by_labels``."""
        found = self._newest(
            lambda record: (
                kind in (None, record.kind)
                and namespace in (None, record.namespace)
                and (after is None or _place(record) > after)
                and selector.matches(record.labels)
            )
        )
        return sorted(found, key=_place)[:limit]

    async def traverse(
        self,
        start: str,
        *,
        direction: Direction = Direction.OUT,
        kinds: frozenset[str] = frozenset(),
        max_depth: int = 64,
        limit: int = 10_000,
    ) -> Sequence[Hop]:
        """See ``GraphStore.traverse``."""
        walk = Traversal(start, max_depth=max_depth, limit=limit)
        while not walk.over:
            pairs = []
            if direction is not Direction.IN:
                pairs += [(edge.target, edge) for edge in self._touching(walk.frontier, True, kinds)]
            if direction is not Direction.OUT:
                pairs += [(edge.source, edge) for edge in self._touching(walk.frontier, False, kinds)]
            walk.advance(pairs)
        return [replace(hop, via=_own_edge(hop.via)) for hop in walk.hops]

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``."""
        self._link([_own_edge(edge) for edge in edges])

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphStore.edges``."""
        return await self.edges_of([uid], outgoing=outgoing, kinds=kinds)

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """See ``GraphStore.edges_of``."""
        found = [_own_edge(edge) for edge in self._touching(dict.fromkeys(ids), outgoing, kinds)]
        return sorted(found, key=lambda edge: (edge.seq, edge.kind, *_ends(edge, outgoing), edge.key))

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """See ``GraphStore.page_records``."""
        rest = (
            record
            for uid in sorted(self._generations)
            for generation, record in sorted(self._generations[uid].items())
            if after is None or (uid, generation) > after
        )
        return [self._given(record) for record in islice(rest, limit)]

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """See ``GraphStore.page_edges``."""
        rest = sorted(identity for identity in self._edges if after is None or identity > after)
        return [_own_edge(self._edges[identity]) for identity in rest[:limit]]

    async def close(self) -> None:
        """Nothing to close."""

    def _newest(self, wanted: Callable[[ResourceRecord], bool]) -> Iterable[ResourceRecord]:
        newest = (found[max(found)] for found in self._generations.values())
        return (self._given(record) for record in newest if wanted(record))

    def _given(self, record: ResourceRecord) -> ResourceRecord:
        own = _own(record)
        return replace(own, gone=True) if record.uid in self._gone else own

    def _link(self, edges: Sequence[Edge]) -> None:
        for edge in edges:
            kept = self._edges.setdefault(edge.identity, edge)
            if edge.seq < kept.seq:
                self._edges[edge.identity] = edge
            self._at[True][edge.source].add(edge.identity)
            self._at[False][edge.target].add(edge.identity)

    def _unlink(self, edge: Edge) -> None:
        del self._edges[edge.identity]
        self._at[True][edge.source].discard(edge.identity)
        self._at[False][edge.target].discard(edge.identity)

    def _touching(self, ids: Iterable[str], outgoing: bool, kinds: frozenset[str]) -> Iterable[Edge]:
        sides = self._at[outgoing]
        edges = (self._edges[identity] for end in ids for identity in sides.get(end, ()))
        return (edge for edge in edges if not kinds or edge.kind in kinds)


def _place(record: ResourceRecord) -> tuple[str, str, str, str]:
    return record.kind, record.namespace, record.name, record.uid


def _ends(edge: Edge, outgoing: bool) -> tuple[str, str]:
    """The far end, then the near one."""
    return (edge.target, edge.source) if outgoing else (edge.source, edge.target)


def _own(record: ResourceRecord) -> ResourceRecord:
    """A copy no caller can change behind our back, or through which one could change ours."""
    return replace(record, labels=json_copy(record.labels), spec=json_copy(record.spec))


def _own_edge(edge: Edge) -> Edge:
    return replace(edge, data=json_copy(edge.data))
