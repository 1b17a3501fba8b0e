"""Graph store in memory: the twin of Postgres', for tests, and what a rebuilt graph is made in."""

from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from itertools import islice

from triplane.adapters.memory.graphreader import Kept, MemoryGraphReader, own, own_edge
from triplane.errors import Conflict
from triplane.ports import Edge, GraphChange, GraphReader, ResourceRecord


class MemoryGraphStore(MemoryGraphReader):
    """``triplane.ports.GraphStore`` in this process; gone with it."""

    def __init__(self) -> None:
        super().__init__(Kept())
        self._replacing = False

    def as_of(self, seq: int) -> GraphReader:
        """See ``GraphStore.as_of``."""
        return MemoryGraphReader(self._kept, seq)

    async def apply(self, change: GraphChange) -> None:
        """See ``GraphStore.apply``."""
        self._apply(
            GraphChange(
                tuple(own(record) for record in change.records),
                tuple(own_edge(edge) for edge in change.edges),
                change.gone,
            )
        )

    async def replace(
        self, changes: AsyncIterable[GraphChange], *, upto: int, keep: Collection[str] = ()
    ) -> tuple[int, int]:
        """See ``GraphStore.replace``."""
        if self._replacing:
            raise Conflict("the graph is being replaced already; wait until that has ended")
        self._replacing = True
        try:
            aside = MemoryGraphStore()
            async for change in changes:
                await aside.apply(change)
        finally:
            self._replacing = False
        kept, new = self._kept, aside._kept
        for uid, generations in list(kept.generations.items()):
            left = {n: record for n, record in generations.items() if record.seq > upto or uid in keep}
            kept.generations[uid] = left
            if not left:
                del kept.generations[uid]
        for edge in list(kept.edges.values()):
            if edge.seq <= upto and edge.source not in keep:
                self._unlink(edge)
        for uid, seq in list(kept.gone.items()):
            if seq <= upto and uid not in keep:
                del kept.gone[uid]
        records = tuple(record for found in new.generations.values() for record in found.values())
        self._apply(GraphChange(records, tuple(new.edges.values()), tuple(new.gone.items())))
        return len(records), len(new.edges)

    async def create(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.create``."""
        kept = own(record)
        generations = self._kept.generations.setdefault(record.uid, {})
        return generations.setdefault(record.generation, kept) is kept

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``."""
        await self.apply(GraphChange(edges=tuple(edges)))

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """See ``GraphStore.present``."""
        return frozenset(pair for pair in generations if pair[1] in self._kept.generations.get(pair[0], ()))

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """See ``GraphStore.generations``."""
        return {record.uid: (record.generation, record.gone) for record in self._newest(lambda record: True)}

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """See ``GraphStore.page_records``."""
        rest = (
            record
            for uid in sorted(self._kept.generations)
            for generation, record in sorted(self._kept.generations[uid].items())
            if after is None or (uid, generation) > after
        )
        return [self._given(record) for record in islice(rest, limit)]

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """See ``GraphStore.page_edges``."""
        rest = sorted(identity for identity in self._kept.edges if after is None or identity > after)
        return [own_edge(self._kept.edges[identity]) for identity in rest[:limit]]

    async def close(self) -> None:
        """Nothing to close."""

    def _apply(self, change: GraphChange) -> None:
        kept = self._kept
        for record in change.records:
            kept.generations.setdefault(record.uid, {}).setdefault(record.generation, record)
        for edge in change.edges:
            there = kept.edges.setdefault(edge.identity, edge)
            if edge.seq < there.seq:
                kept.edges[edge.identity] = edge
            kept.at[True][edge.source].add(edge.identity)
            kept.at[False][edge.target].add(edge.identity)
        for uid, seq in change.gone:
            kept.gone[uid] = min(seq, kept.gone.get(uid, seq))

    def _unlink(self, edge: Edge) -> None:
        del self._kept.edges[edge.identity]
        self._kept.at[True][edge.source].discard(edge.identity)
        self._kept.at[False][edge.target].discard(edge.identity)
