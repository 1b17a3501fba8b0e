"""The graph store."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from triplane.domain.resourcegraph import Direction, Edge, GraphChange, Hop, ResourceRecord
from triplane.domain.selector import LabelSelector


class GraphStore(Protocol):
    """Every resource generation seen and the edges between them: a projection of the log
    (``triplane.domain.projection``), which can be thrown away and made anew."""

    async def apply(self, change: GraphChange) -> None:
        """Add all of it, or nothing. A generation that is there stays as it is; of an edge the one with the lowest
        ``seq`` stays; what is gone stays gone. So changes may be applied in any order, and again."""
        ...

    async def replace(self, change: GraphChange, *, upto: int, keep: Collection[str] = ()) -> None:
        """At once make everything of log sequences up to ``upto`` exactly what ``change`` says; what later entries
        brought stays, and so do the records and outgoing edges of the UIDs in ``keep``."""
        ...

    async def create(self, record: ResourceRecord) -> bool:
        """Insert this generation; False if it is there already (the stored one stays)."""
        ...

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """That generation, or the newest."""
        ...

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """The newest generation of those of the UIDs that are kept; one round trip."""
        ...

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Those (uid, generation) pairs that are kept; one round trip."""
        ...

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """The newest generation of every incarnation of that name, newest ``seq`` first."""
        ...

    async def update(self, record: ResourceRecord) -> bool:
        """Replace labels, spec, requester and ``gone`` of this generation; False, and no change, when the
        stored row carries a higher ``seq`` or does not exist: older never overwrites newer."""
        ...

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """The newest generation of every resource, by (kind, namespace, name, uid)."""
        ...

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """UID to newest generation kept and whether it is gone: what a starting operator must know of each."""
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

    async def traverse(
        self,
        start: str,
        *,
        direction: Direction = Direction.OUT,
        kinds: frozenset[str] = frozenset(),
        max_depth: int = 64,
        limit: int = 10_000,
    ) -> Sequence[Hop]:
        """Everything reached from this uid or digest over edges of these kinds (all, when empty): breadth first,
        each end once, so that cycles end; within a depth by (seq, kind, id). At most ``limit`` hops: exactly
        ``limit`` means that there may be more."""
        ...

    async def link(self, edges: Sequence[Edge]) -> None:
        """Insert edges, all or none; of an edge (source, kind, target, key) the one with the lowest ``seq`` stays."""
        ...

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """Edges from (or to) this uid or digest, by (seq, kind, other end, key)."""
        ...

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """As ``edges``, of all of these in one round trip and one order."""
        ...

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """Every generation kept, by (uid, generation), in pages."""
        ...

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """Every edge, by (source, kind, target, key), in pages."""
        ...

    async def close(self) -> None: ...
