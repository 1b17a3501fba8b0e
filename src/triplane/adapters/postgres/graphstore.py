"""Graph store on Postgres: JSONB columns, labels under a GIN index, edges indexed from both ends."""
# ruff: noqa: S608  # statements are put together from constants; values are parameters

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from triplane.adapters.postgres import graphsql
from triplane.adapters.postgres.connection import Pool, translated
from triplane.adapters.postgres.graphreader import PostgresGraphReader, record_of
from triplane.adapters.postgres.graphsql import EDGE, NEWEST, RESOURCE
from triplane.audit.plainjson import json_text
from triplane.errors import Conflict
from triplane.ports import Edge, GraphChange, GraphReader, ResourceRecord

_REPLACING: Final = 0x7472_6967
"""Advisory lock: of two that replace the graph, one is refused."""


class PostgresGraphStore(PostgresGraphReader):
    """``triplane.ports.GraphStore`` in schema ``graph``."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is open and stays its opener's to close."""
        super().__init__(pool)

    def as_of(self, seq: int) -> GraphReader:
        """See ``GraphStore.as_of``."""
        return PostgresGraphReader(self._pool, seq)

    async def apply(self, change: GraphChange) -> None:
        """See ``GraphStore.apply``."""
        if change:
            await self._read(graphsql.APPLY, _arrays(GraphChange.merged([change])), "write the graph")

    async def replace(
        self, changes: AsyncIterable[GraphChange], *, upto: int, keep: Collection[str] = ()
    ) -> tuple[int, int]:
        """See ``GraphStore.replace``. Set aside in tables of the server; put in place in one transaction."""
        async with self._replacing() as connection:
            for statement in graphsql.FORGET_NEW:
                await connection.execute(statement)
            async for change in changes:
                if change:
                    await connection.execute(graphsql.SET_ASIDE, _arrays(GraphChange.merged([change])))
            (counts,) = await (await connection.execute(graphsql.COUNT_NEW)).fetchall()
            async with connection.transaction():
                # Of whole tables; the pool's settings are for statements that look up a few rows.
                await connection.execute("SET LOCAL enable_seqscan = on")
                await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
                for statement in graphsql.PUT_IN_PLACE:
                    given = {"upto": upto, "keep": list(keep)} if "%" in statement else None
                    await connection.execute(statement, given)
            for statement in graphsql.FORGET_NEW:
                await connection.execute(statement)
        return int(counts[0]), int(counts[1])

    @asynccontextmanager
    async def _replacing(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A connection of this replacing alone; the lock ends with it."""
        with translated("replace the graph"):
            async with self._pool.connection() as connection:
                found = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_REPLACING,))
                if await found.fetchone() != (True,):
                    raise Conflict("the graph is being replaced already; wait until that `graph rebuild` has ended")
                try:
                    yield connection
                finally:
                    if not connection.closed:
                        await connection.execute("SELECT pg_advisory_unlock(%s)", (_REPLACING,))

    async def create(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.create``."""
        with translated("write the graph"):
            async with self._pool.connection() as connection:
                arrays = _arrays(GraphChange(records=(record,)))
                return (await connection.execute(graphsql.INSERT_RECORDS, arrays)).rowcount == 1

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``."""
        await self.apply(GraphChange(edges=tuple(edges)))

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """See ``GraphStore.present``."""
        rows = await self._read(
            "SELECT r.uid, r.generation FROM unnest(%(uids)s::text[], %(numbers)s::bigint[]) AS asked(uid, generation)"
            " JOIN graph.resources r USING (uid, generation)",
            {"uids": [uid for uid, _ in generations], "numbers": [generation for _, generation in generations]},
        )
        return frozenset((uid, generation) for uid, generation in rows)

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """See ``GraphStore.generations``."""
        rows = await self._read(
            f"SELECT r.uid, r.generation, {graphsql.GONE} FROM graph.resources r WHERE {NEWEST}", {}
        )
        return {uid: (generation, gone) for uid, generation, gone in rows}

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """See ``GraphStore.page_records``."""
        uid, generation = after or ("", -1)
        rows = await self._read(
            f"{RESOURCE} WHERE (r.uid, r.generation) > (%(uid)s, %(generation)s)"
            " ORDER BY r.uid, r.generation LIMIT %(limit)s",
            {"uid": uid, "generation": generation, "limit": limit},
        )
        return [record_of(row) for row in rows]

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """See ``GraphStore.page_edges``."""
        source, kind, target, key = after or ("", "", "", "")
        rows = await self._read(
            f"{EDGE} WHERE (e.source, e.kind, e.target, e.key) > (%(source)s, %(kind)s, %(target)s, %(key)s)"
            " ORDER BY e.source, e.kind, e.target, e.key LIMIT %(limit)s",
            {"source": source, "kind": kind, "target": target, "key": key, "limit": limit},
        )
        return [Edge(*row) for row in rows]

    async def close(self) -> None:
        """Nothing to close: the pool is its opener's."""


def _arrays(change: GraphChange) -> dict[str, list[Any]]:
    """The change as columns, in the order of the keys: two writers of the same rows then never wait in a ring."""
    records = sorted(change.records, key=lambda record: (record.uid, record.generation))
    edges = sorted(change.edges, key=lambda edge: edge.identity)
    gone = sorted(change.gone)
    return {
        "uid": [record.uid for record in records],
        "kind": [record.kind for record in records],
        "namespace": [record.namespace for record in records],
        "name": [record.name for record in records],
        "generation": [record.generation for record in records],
        "labels": [json_text(record.labels) for record in records],
        "spec": [json_text(record.spec) for record in records],
        "requester": [record.requester for record in records],
        "seq": [record.seq for record in records],
        "gone": [record.gone for record in records],
        "e_source": [edge.source for edge in edges],
        "e_kind": [edge.kind for edge in edges],
        "e_target": [edge.target for edge in edges],
        "e_key": [edge.key for edge in edges],
        "e_seq": [edge.seq for edge in edges],
        "e_data": [json_text(edge.data) for edge in edges],
        "g_uid": [uid for uid, _ in gone],
        "g_seq": [seq for _, seq in gone],
    }
