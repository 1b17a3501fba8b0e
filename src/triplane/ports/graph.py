"""The graph store."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

from triplane.domain.resourcegraph import Edge, GraphChange, Hop, ResourceRecord, Route
from triplane.domain.selector import LabelSelector


class GraphReader(Protocol):
    """The resource graph, as it is now or as it was at an entry of the log (``GraphStore.as_of``)."""

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """That generation, or the newest."""
        ...

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """The newest generation of those of the UIDs that are kept; one round trip."""
        ...

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """The newest generation of every incarnation of that name, newest ``seq`` first."""
        ...

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """The newest generation of every resource, by (kind, namespace, name, uid)."""
        ...

    async def query_by_labels(
        self,
        selector: LabelSelector,
        *,
        kind: str | None = None,
        namespace: str | None = None,
        after: tuple[str, str, str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[ResourceRecord]:
        """Newest generations whose labels the selector matches, by (kind, namespace, name, uid); at most ``limit``
        of those that come after ``after`` in this order."""
        ...

    def traverse(self, start: str, route: Route = Route()) -> AsyncIterator[Hop]:
        """Everything reached from this uid or digest over the edges of the route: breadth first, each end once, so
        that cycles end; within a depth by (seq, kind, id). With ``route.every``, the other edges follow.

        All of it is of one moment. Streamed: the caller's memory does not grow with the graph. While it runs a
        connection of the store is taken, so close it (``contextlib.aclosing``) when the rest is not wanted."""
        ...

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """Edges from (or to) this uid or digest, of these kinds (all, when empty), by (seq, kind, other end, key)."""
        ...

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """As ``edges``, of all of these in one round trip and one order."""
        ...


class GraphStore(GraphReader, Protocol):
    """Every resource generation seen and the edges between them: a projection of the log
    (``triplane.domain.projection``), which can be thrown away and made anew."""

    def as_of(self, seq: int) -> GraphReader:
        """The graph as the entries of the log up to and with ``seq`` describe it: the same as if only these had been
        applied. What was brought later is not there, what ended later is not gone. A ``seq`` that is not yet applied
        reads as what is."""
        ...

    async def apply(self, change: GraphChange) -> None:
        """Add all of it, or nothing. A generation that is there stays as it is; of an edge the one with the lowest
        ``seq`` stays; what is gone stays gone. So changes may be applied in any order, and again."""
        ...

    async def replace(
        self, changes: AsyncIterable[GraphChange], *, upto: int, keep: Collection[str] = ()
    ) -> tuple[int, int]:
        """At once make everything of log sequences up to ``upto`` exactly what ``changes`` say; what later entries
        brought stays, and so do the records and outgoing edges of the UIDs in ``keep``, which is read when the changes
        have ended. Returns how many generations and edges they say there are.

        Readers see the old graph until the new one is whole. Changes are set aside as they come, in the memory of the
        store, and writers wait only while what differs is put in place. Of later entries only those that were applied
        are there: one that found its place taken by what the log does not say must be applied again.

        Raises ``Conflict`` while another process replaces."""
        ...

    async def create(self, record: ResourceRecord) -> bool:
        """Insert this generation; False if it is there already (the stored one stays)."""
        ...

    async def link(self, edges: Sequence[Edge]) -> None:
        """Insert edges, all or none; of an edge (source, kind, target, key) the one with the lowest ``seq`` stays."""
        ...

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Those (uid, generation) pairs that are kept; one round trip."""
        ...

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """UID to newest generation kept and whether it is gone: what a starting operator must know of each."""
        ...

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """Every generation kept, by (uid, generation), in pages."""
        ...

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """Every edge, by (source, kind, target, key), in pages."""
        ...

    async def close(self) -> None: ...
