"""Graph store in memory: the twin of Postgres', for tests and for trying things out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from triplane.audit.plainjson import json_copy
from triplane.ports import Edge, ResourceRecord


class MemoryGraphStore:
    """``triplane.ports.GraphStore`` in this process; gone with it."""

    def __init__(self) -> None:
        self._generations: dict[str, dict[int, ResourceRecord]] = {}
        self._edges: dict[tuple[str, str, str], Edge] = {}

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
        return None if found is None else _own(found)

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphStore.find``."""
        found = (
            record
            for record in self._newest()
            if (record.kind, record.namespace, record.name) == (kind, namespace, name)
        )
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
        return self._matching(kind, namespace, {})

    async def query_by_labels(
        self, labels: Mapping[str, str], *, kind: str | None = None, namespace: str | None = None
    ) -> Sequence[ResourceRecord]:
        """See ``GraphStore.query_by_labels``."""
        return self._matching(kind, namespace, labels)

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``."""
        kept = [replace(edge, data=json_copy(edge.data)) for edge in edges]
        for edge in kept:
            self._edges.setdefault((edge.source, edge.kind, edge.target), edge)

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphStore.edges``."""
        found = [
            replace(edge, data=json_copy(edge.data))
            for edge in self._edges.values()
            if (edge.source if outgoing else edge.target) == uid and (not kinds or edge.kind in kinds)
        ]
        return sorted(found, key=lambda edge: (edge.seq, edge.kind, edge.target if outgoing else edge.source))

    async def close(self) -> None:
        """Nothing to close."""

    def _newest(self) -> Iterable[ResourceRecord]:
        return (_own(found[max(found)]) for found in self._generations.values())

    def _matching(self, kind: str | None, namespace: str | None, labels: Mapping[str, str]) -> Sequence[ResourceRecord]:
        found = [
            record
            for record in self._newest()
            if kind in (None, record.kind)
            and namespace in (None, record.namespace)
            and labels.items() <= record.labels.items()
        ]
        return sorted(found, key=lambda record: (record.kind, record.namespace, record.name, record.uid))


def _own(record: ResourceRecord) -> ResourceRecord:
    """A copy no caller can change behind our back, or through which one could change ours."""
    return replace(record, labels=json_copy(record.labels), spec=json_copy(record.spec))
