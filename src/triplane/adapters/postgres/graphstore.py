"""Graph store on Postgres: JSONB columns, labels under a GIN index, edges indexed from both ends."""
# ruff: noqa: S608  # statements are put together from constants; values are parameters

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg.rows import TupleRow

from triplane.adapters.postgres import graphsql
from triplane.adapters.postgres.connection import Pool, translated
from triplane.adapters.postgres.graphsql import EDGE, NEWEST, RESOURCE
from triplane.audit.plainjson import json_text
from triplane.domain.resourcegraph import Traversal
from triplane.domain.selector import LabelSelector
from triplane.ports import Direction, Edge, GraphChange, Hop, ResourceRecord

_AHEAD: Final = 4096
"""Ends whose edges a traversal fetches at once, beyond its frontier: a long chain is not one query an edge."""
_CHUNK: Final = 2000
_Adjacent = dict[str, list[Edge]]


class PostgresGraphStore:
    """``triplane.ports.GraphStore`` in schema ``graph``."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is open and stays its opener's to close."""
        self._pool = pool

    async def apply(self, change: GraphChange) -> None:
        """See ``GraphStore.apply``."""
        if change:
            await self._read(graphsql.APPLY, _arrays(GraphChange.merged([change])), "write the graph")

    async def replace(self, change: GraphChange, *, upto: int, keep: Collection[str] = ()) -> None:
        """See ``GraphStore.replace``. Readers see the old graph until the new one is whole; writers wait."""
        whole = GraphChange.merged([change])
        with translated("replace the graph"):
            async with self._pool.connection() as connection, connection.transaction():
                for statement in graphsql.FORGET:
                    await connection.execute(statement, {"upto": upto, "keep": list(keep)} if "%" in statement else ())
                for at in range(0, max(len(whole.records), len(whole.edges), len(whole.gone)), _CHUNK):
                    upper = at + _CHUNK
                    part = GraphChange(whole.records[at:upper], whole.edges[at:upper], whole.gone[at:upper])
                    for statement in (graphsql.INSERT_RECORDS, graphsql.INSERT_EDGES, graphsql.INSERT_GONE):
                        await connection.execute(statement, _arrays(part))

    async def create(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.create``."""
        return await self._write(graphsql.INSERT_RECORDS, _arrays(GraphChange(records=(record,))))

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """See ``GraphStore.get``."""
        rows = await self._read(
            f"{RESOURCE} WHERE r.uid = %s AND (%s::bigint IS NULL OR r.generation = %s)"
            " ORDER BY r.generation DESC LIMIT 1",
            (uid, generation, generation),
        )
        return _record(rows[0]) if rows else None

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """See ``GraphStore.get_many``."""
        rows = await self._read(f"{RESOURCE} WHERE r.uid = ANY (%s) AND {NEWEST}", (list(uids),))
        return {record.uid: record for record in map(_record, rows)}

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """See ``GraphStore.present``."""
        rows = await self._read(
            "SELECT r.uid, r.generation FROM unnest(%s::text[], %s::bigint[]) AS asked(uid, generation)"
            " JOIN graph.resources r USING (uid, generation)",
            ([uid for uid, _ in generations], [generation for _, generation in generations]),
        )
        return frozenset((uid, generation) for uid, generation in rows)

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """See ``GraphStore.find``."""
        rows = await self._read(
            f"{RESOURCE} WHERE r.kind = %s AND r.namespace = %s AND r.name = %s AND {NEWEST}"
            " ORDER BY r.seq DESC, r.uid",
            (kind, namespace, name),
        )
        return [_record(row) for row in rows]

    async def update(self, record: ResourceRecord) -> bool:
        """See ``GraphStore.update``."""
        kept = (json_text(record.labels), json_text(record.spec), record.requester, record.gone, record.seq)
        return await self._write(graphsql.UPDATE, (*kept, record.uid, record.generation, record.seq))

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """See ``GraphStore.list``."""
        return await self.query_by_labels(LabelSelector(), kind=kind, namespace=namespace)

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """See ``GraphStore.generations``."""
        rows = await self._read(
            f"SELECT r.uid, r.generation, {graphsql.GONE} FROM graph.resources r WHERE {NEWEST}", ()
        )
        return {uid: (generation, gone) for uid, generation, gone in rows}

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
        conditions, values = graphsql.matching(selector)
        if kind is not None:
            conditions.append("r.kind = %s")
            values.append(kind)
        if namespace is not None:
            conditions.append("r.namespace = %s")
            values.append(namespace)
        if after is not None:
            conditions.append("(r.kind, r.namespace, r.name, r.uid) > (%s, %s, %s, %s)")
            values += after
        where = " AND ".join((*conditions, NEWEST))
        order = " ORDER BY r.kind, r.namespace, r.name, r.uid LIMIT %s"
        return [_record(row) for row in await self._read(f"{RESOURCE} WHERE {where}{order}", (*values, limit))]

    async def traverse(
        self,
        start: str,
        *,
        direction: Direction = Direction.OUT,
        kinds: frozenset[str] = frozenset(),
        max_depth: int = 64,
        limit: int = 10_000,
    ) -> Sequence[Hop]:
        """See ``GraphStore.traverse``. A query fetches the edges of the frontier and of some thousand ends behind it,
        so that there are few, however deep the graph is; the order of the levels is then made here."""
        walk = Traversal(start, max_depth=max_depth, limit=limit)
        sides = [side for side in (Direction.OUT, Direction.IN) if direction in (side, Direction.BOTH)]
        known: dict[Direction, _Adjacent] = {side: {} for side in sides}
        while not walk.over:
            pairs: list[tuple[str, Edge]] = []
            for side in sides:
                adjacent = known[side]
                wanted = [end for end in walk.frontier if end not in adjacent]
                if wanted:
                    await self._fetch_ahead(side, wanted, kinds, adjacent)
                ends = [edge for end in walk.frontier for edge in adjacent.get(end, ())]
                pairs += [(edge.target if side is Direction.OUT else edge.source, edge) for edge in ends]
            walk.advance(pairs)
        return walk.hops

    async def _fetch_ahead(
        self, side: Direction, ids: Sequence[str], kinds: frozenset[str], adjacent: _Adjacent
    ) -> None:
        """All edges of each of ``ids``, and of ends after them as far as ``_AHEAD`` goes."""
        rows = await self._read(
            graphsql.AHEAD_OUT if side is Direction.OUT else graphsql.AHEAD_IN,
            {"ids": list(ids), "any": not kinds, "kinds": sorted(kinds), "ahead": max(_AHEAD, len(ids))},
        )
        fresh: _Adjacent = {}
        for end, *row in rows:
            edges = fresh.setdefault(end, [])
            if row[0] is not None:
                edges.append(Edge(*row))
        adjacent.update(fresh)

    async def link(self, edges: Sequence[Edge]) -> None:
        """See ``GraphStore.link``."""
        await self.apply(GraphChange(edges=tuple(edges)))

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """See ``GraphStore.edges``."""
        return await self.edges_of([uid], outgoing=outgoing, kinds=kinds)

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """See ``GraphStore.edges_of``."""
        near, far = ("e.source", "e.target") if outgoing else ("e.target", "e.source")
        rows = await self._read(
            f"{EDGE} WHERE {near} = ANY (%s) AND (%s OR e.kind = ANY (%s))"
            f" ORDER BY e.seq, e.kind, {far}, {near}, e.key",
            (list(dict.fromkeys(ids)), not kinds, sorted(kinds)),
        )
        return [Edge(*row) for row in rows]

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """See ``GraphStore.page_records``."""
        uid, generation = after or ("", -1)
        rows = await self._read(
            f"{RESOURCE} WHERE (r.uid, r.generation) > (%s, %s) ORDER BY r.uid, r.generation LIMIT %s",
            (uid, generation, limit),
        )
        return [_record(row) for row in rows]

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """See ``GraphStore.page_edges``."""
        rows = await self._read(
            f"{EDGE} WHERE (e.source, e.kind, e.target, e.key) > (%s, %s, %s, %s)"
            " ORDER BY e.source, e.kind, e.target, e.key LIMIT %s",
            (*(after or ("", "", "", "")), limit),
        )
        return [Edge(*row) for row in rows]

    async def close(self) -> None:
        """Nothing to close: the pool is its opener's."""

    async def _read(self, query: LiteralString, parameters: Any, action: str = "read the graph") -> Sequence[TupleRow]:
        with translated(action):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall()

    async def _write(self, query: LiteralString, parameters: Any) -> bool:
        with translated("write the graph"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, parameters)
                return cursor.rowcount == 1


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
