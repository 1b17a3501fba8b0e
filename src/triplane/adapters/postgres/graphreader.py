"""Reads of the graph on Postgres, as it is or as it was at an entry of the log: every row has its sequence number."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from triplane.adapters.postgres import graphsql
from triplane.adapters.postgres.connection import Pool, translated
from triplane.adapters.postgres.graphpages import Page
from triplane.adapters.postgres.graphsql import EDGE, LATEST, NEWEST, RESOURCE
from triplane.domain.selector import LabelSelector
from triplane.ports import Edge, Hop, ResourceRecord, Route

_BATCH: Final = 1000
"""Ends that a traversal reaches and hands over at a time; a wider level is reached as a whole, by the server."""


class PostgresGraphReader:
    """``triplane.ports.GraphReader`` of what entries up to ``upto`` brought."""

    def __init__(self, pool: Pool, upto: int = LATEST) -> None:
        """``pool`` is open and stays its opener's to close."""
        self._pool = pool
        self._upto = upto

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """See ``GraphReader.get``."""
        rows = await self._read(
            f"{RESOURCE} WHERE r.uid = %(uid)s AND r.seq <= %(upto)s"
            " AND (%(generation)s::bigint IS NULL OR r.generation = %(generation)s)"
            " ORDER BY r.generation DESC LIMIT 1",
            {"uid": uid, "generation": generation},
        )
        return record_of(rows[0]) if rows else None

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """See ``GraphReader.get_many``."""
        rows = await self._read(f"{RESOURCE} WHERE r.uid = ANY (%(uids)s) AND {NEWEST}", {"uids": list(uids)})
        return {record.uid: record for record in map(record_of, rows)}

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphReader.find``."""
        rows = await self._read(
            f"{RESOURCE} WHERE r.kind = %(kind)s AND r.namespace = %(namespace)s AND r.name = %(name)s AND {NEWEST}"
            " ORDER BY r.seq DESC, r.uid",
            {"kind": kind, "namespace": namespace, "name": name},
        )
        return [record_of(row) for row in rows]

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
        page = Page(selector, kind, namespace, after, limit, self._upto)
        return [record_of(row) for row in await self._read(page.statement(), None)]

    async def traverse(self, start: str, route: Route = Route()) -> AsyncIterator[Hop]:  # frozen
        """See ``GraphReader.traverse``. What was reached is remembered by the server, in a table of this connection."""
        with translated("traverse the graph"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                await connection.execute("SELECT graph.walk_begin(%s)", (start,))
                asked = self._asked(route)
                first, last, depth, given = 0, 0, 0, 0
                while first <= last:
                    state = {"first": first, "last": last, "depth": depth}
                    first, last, depth = await _one(connection, graphsql.WALK_ON, {**asked, **state})
                    while given < last:
                        page = await _all(connection, "SELECT * FROM graph.walk_page(%s, %s)", (given, _BATCH))
                        for _, id_, at, *edge in page:
                            yield Hop(id_, at, Edge(*edge))
                        given = page[-1][0]
                if route.every:
                    async with connection.cursor(name="graph_walk") as cursor:
                        cursor.itersize = _BATCH
                        await cursor.execute(graphsql.WALK_REST, asked)
                        async for id_, at, *edge in cursor:
                            yield Hop(id_, at, Edge(*edge), again=True)

    def _asked(self, route: Route) -> dict[str, Any]:
        return {
            "outward": None if route.outward is None else sorted(route.outward),
            "inward": None if route.inward is None else sorted(route.inward),
            "leaves": sorted(route.leaves),
            "namespaces": None if route.namespaces is None else sorted(route.namespaces),
            "upto": self._upto,
            "max_depth": route.max_depth,
            "limit": route.limit,
            "batch": _BATCH,
        }

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphReader.edges``."""
        return await self.edges_of([uid], outgoing=outgoing, kinds=kinds)

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """See ``GraphReader.edges_of``."""
        near, far = ("e.source", "e.target") if outgoing else ("e.target", "e.source")
        rows = await self._read(
            f"{EDGE} WHERE {near} = ANY (%(ids)s) AND (%(any)s OR e.kind = ANY (%(kinds)s)) AND e.seq <= %(upto)s"
            f" ORDER BY e.seq, e.kind, {far}, {near}, e.key",
            {"ids": list(dict.fromkeys(ids)), "any": not kinds, "kinds": sorted(kinds)},
        )
        return [Edge(*row) for row in rows]

    async def _read(
        self, query: LiteralString | sql.Composed, parameters: dict[str, Any] | None, action: str = "read the graph"
    ) -> Sequence[TupleRow]:
        given = None if parameters is None else {**parameters, "upto": self._upto}
        with translated(action):
            async with self._pool.connection() as connection:
                # What has its values in its text is hardly ever asked again: not worth preparing.
                cursor = await connection.execute(query, given, prepare=None if given is not None else False)
                return await cursor.fetchall()


async def _one(connection: AsyncConnection[TupleRow], query: LiteralString, parameters: Any) -> TupleRow:
    (row,) = await _all(connection, query, parameters)
    return row


async def _all(connection: AsyncConnection[TupleRow], query: LiteralString, parameters: Any) -> Sequence[TupleRow]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


def record_of(row: TupleRow) -> ResourceRecord:
    """A row of ``graphsql.RESOURCE``."""
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
