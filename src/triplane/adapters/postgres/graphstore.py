"""Graph store on Postgres: JSONB columns, labels under a GIN index."""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg.rows import TupleRow

from triplane.adapters.postgres.connection import Pool, translated
from triplane.audit.plainjson import json_text
from triplane.ports import Edge, ResourceRecord

_COLUMNS: Final = "uid, kind, namespace, name, generation, labels, spec, requester, seq, gone"
_RESOURCE: Final = f"SELECT {_COLUMNS} FROM graph.resources r"
_NEWEST: Final = "NOT EXISTS (SELECT 1 FROM graph.resources n WHERE n.uid = r.uid AND n.generation > r.generation)"
_INSERT: Final = f"""
INSERT INTO graph.resources ({_COLUMNS})
VALUES (%s, %s, %s, %s, %s, %s::jsonb, %s::jsonb, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_UPDATE: Final = """
UPDATE graph.resources SET labels = %s::jsonb, spec = %s::jsonb, requester = %s, gone = %s, seq = %s
WHERE uid = %s AND generation = %s AND seq <= %s
"""
_LINK: Final = """
INSERT INTO graph.edges (source, kind, target, seq, data) VALUES (%s, %s, %s, %s, %s::jsonb) ON CONFLICT DO
NOTHING
"""


class PostgresGraphStore:
    """``triplane.ports.GraphStore`` in schema ``graph``."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is open and stays its opener's to close."""
        self._pool = pool

    async def create(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.create``."""
        labels, spec = json_text(record.labels), json_text(record.spec)
        return await self._write(
            _INSERT,
            record.uid,
            record.kind,
            record.namespace,
            record.name,
            record.generation,
            labels,
            spec,
            record.requester,
            record.seq,
            record.gone,
        )

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """See ``GraphStore.get``."""
        rows = await self._read(
            f"{_RESOURCE} WHERE uid = %s AND (%s::bigint IS NULL OR generation = %s) ORDER BY generation DESC LIMIT 1",
            uid,
            generation,
            generation,
        )
        return _record(rows[0]) if rows else None

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphStore.find``."""
        rows = await self._read(
            f"{_RESOURCE} WHERE kind = %s AND namespace = %s AND name = %s AND {_NEWEST} ORDER BY seq DESC, uid",
            kind,
            namespace,
            name,
        )
        return [_record(row) for row in rows]

    async def update(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.update``."""
        return await self._write(
            _UPDATE,
            json_text(record.labels),
            json_text(record.spec),
            record.requester,
            record.gone,
            record.seq,
            record.uid,
            record.generation,
            record.seq,
        )

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """See ``GraphStore.list``."""
        return await self.query_by_labels({}, kind=kind, namespace=namespace)

    async def query_by_labels(
        self, labels: Mapping[str, str], *, kind: str | None = None, namespace: str | None = None
    ) -> Sequence[ResourceRecord]:
        """See ``GraphStore.query_by_labels``."""
        rows = await self._read(
            f"{_RESOURCE} WHERE labels @> %s::jsonb AND (%s::text IS NULL OR kind = %s)"
            f" AND (%s::text IS NULL OR namespace = %s) AND {_NEWEST} ORDER BY kind, namespace, name, uid",
            json_text(labels),
            kind,
            kind,
            namespace,
            namespace,
        )
        return [_record(row) for row in rows]

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``. All or none of them."""
        rows = [(edge.source, edge.kind, edge.target, edge.seq, json_text(edge.data)) for edge in edges]
        rows.sort(key=lambda row: row[:3])  # two writers of the same edges then never wait in a ring
        if not rows:
            return
        with translated("link resources"):
            async with (
                self._pool.connection() as connection,
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                await cursor.executemany(_LINK, rows)

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphStore.edges``."""
        near, far = ("source", "target") if outgoing else ("target", "source")
        rows = await self._read(
            f"SELECT source, kind, target, seq, data FROM graph.edges WHERE {near} = %s"
            f" AND (%s OR kind = ANY (%s)) ORDER BY seq, kind, {far}",
            uid,
            not kinds,
            sorted(kinds),
        )
        return [Edge(*row) for row in rows]

    async def close(self) -> None:
        """Nothing to close: the pool is its opener's."""

    async def _read(self, query: LiteralString, *parameters: Any) -> Sequence[TupleRow]:
        with translated("read the graph"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall()

    async def _write(self, query: LiteralString, *parameters: Any) -> bool:
        with translated("write the graph"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, parameters)
                return cursor.rowcount == 1


def _record(row: TupleRow) -> ResourceRecord:
    uid, kind, namespace, name, generation, labels, spec, requester, seq, gone = row
    return ResourceRecord(
        uid=uid,
        kind=kind,
        namespace=namespace,
        name=name,
        generation=generation,
        labels=labels,
        spec=spec,
        requester=requester,
        seq=seq,
        gone=gone,
    )
