"""The database at one instant, read beside everybody who works on it.

One REPEATABLE READ transaction reads all (PostgreSQL, "Transaction Isolation"): log, graph and sessions fit together
to the commit, whatever is appended meanwhile, and nobody waits for it. COPY and not pg_dump: the program that dumps
must not be older than the server, and there is none beside a server that is not ours. The migrator reads, as the owners
of the schemas: no further role can see everything, and no superuser is needed.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from triplane.adapters.postgres import archivedreferences
from triplane.adapters.postgres.connection import CONNECT_SECONDS, check_revision, expected_revision, translated
from triplane.adapters.postgres.roles import LOG_OWNER, STORES_OWNER
from triplane.domain.backup import SCHEMAS, Counter
from triplane.errors import Unavailable
from triplane.ports.backup import Head, TableShape

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
OWNER = {"log": LOG_OWNER, "graph": STORES_OWNER, "sessions": STORES_OWNER}
PAGE = 2000

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Partitions are read through their parents; an unlogged table holds what may be lost.
TABLES = """
    SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relpersistence = 'p' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    GROUP BY 1, 2 ORDER BY 1, 2"""
_COUNTERS = """
    SELECT n.nspname, c.relname, a.attname,
        coalesce(pg_sequence_last_value(pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname)), 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attidentity <> ''
    ORDER BY 1, 2, 3"""
_LOGS = """
    SELECT h.origin, h.current, h.size, h.leaf,
        (SELECT c.note FROM log.checkpoints c WHERE c.origin = h.origin ORDER BY c.size DESC LIMIT 1),
        coalesce((SELECT max(a.upto_seq) FROM log.archives a WHERE a.origin = h.origin), 0)
    FROM log.heads h ORDER BY h.current DESC, h.origin"""
_OWNED = "SELECT DISTINCT digest FROM sessions.blob_owners WHERE digest = ANY (%s)"
_ENTRIES = "SELECT octets FROM log.entries WHERE origin = %s AND seq >= %s ORDER BY seq"
_KEPT = "SELECT octets FROM log.entries WHERE origin = %s AND seq < %s ORDER BY seq"
_ARCHIVED = "SELECT leaf FROM log.archived_entries WHERE origin = %s AND seq < %s ORDER BY seq"


class PostgresSnapshot:
    """``triplane.ports.backup.DatabaseSnapshot``; make it with ``opened``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[str, int] = {}
        self.revision = expected_revision()

    async def tables(self) -> Sequence[TableShape]:
        """See ``DatabaseSnapshot.tables``."""
        return [TableShape(row[0], row[1], tuple(row[2])) for row in await self._all(TABLES, (list(SCHEMAS),))]

    async def counters(self) -> Sequence[Counter]:
        """See ``DatabaseSnapshot.counters``. Each is at or above what the snapshot's rows hold."""
        found: list[Counter] = []
        for schema in SCHEMAS:
            await self._become(OWNER[schema])
            for name, table, column, last in await self._all(_COUNTERS, (schema,)):
                found.append(Counter(schema_name=name, table=table, column=column, last=last))
        return found

    async def owned(self, digests: Collection[str]) -> frozenset[str]:
        """See ``DatabaseSnapshot.owned``."""
        await self._become(STORES_OWNER)
        return frozenset([row[0] for row in await self._all(_OWNED, (list(digests),))])

    async def logs(self) -> Sequence[Head]:
        """See ``DatabaseSnapshot.logs``."""
        await self._become(LOG_OWNER)
        return [Head(*row) for row in await self._all(_LOGS, ())]

    async def octets(self, table: TableShape) -> AsyncIterator[bytes]:
        """See ``DatabaseSnapshot.octets``: PostgreSQL's binary COPY format."""
        await self._become(OWNER[table.schema_name])
        # A query, for the rows of partitions are not in their parent.
        statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)), sql.Identifier(table.schema_name, table.table)
        )
        with translated(f"read {table.name}"):
            async with self._connection.cursor() as cursor:
                async with cursor.copy(statement) as copy:
                    async for chunk in copy:
                        yield bytes(chunk)
                self._rows[table.name] = cursor.rowcount

    async def count(self, table: TableShape) -> int:
        """See ``DatabaseSnapshot.count``."""
        return self._rows[table.name]

    def archived(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """See ``DatabaseSnapshot.archived``."""
        return self._pages(_ARCHIVED, (log.origin, log.archived))

    async def archived_needs(self, log: Head) -> frozenset[bytes] | None:
        """See ``DatabaseSnapshot.archived_needs``."""
        await self._become(LOG_OWNER)
        with translated("read what is archived"):
            found = await archivedreferences.read_within(self._connection, log.origin)
        return None if found is None else found.needed

    def kept(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """See ``DatabaseSnapshot.kept``."""
        return self._pages(_KEPT, (log.origin, log.archived))

    def entries(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """See ``DatabaseSnapshot.entries``."""
        return self._pages(_ENTRIES, (log.origin, log.archived))

    async def _pages(self, statement: LiteralString, values: Sequence[Any]) -> AsyncIterator[Sequence[bytes]]:
        await self._become(LOG_OWNER)
        with translated("read the log"):
            async with self._connection.cursor("pages", binary=True) as cursor:
                await cursor.execute(statement, values)
                while page := await cursor.fetchmany(PAGE):
                    yield [row[0] for row in page]

    async def _become(self, owner: LiteralString) -> None:
        with translated("read the database as its owner"):
            await self._connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))

    async def _all(self, statement: LiteralString, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with translated("read the database"):
            cursor = await self._connection.execute(statement, values)
            return await cursor.fetchall()


@asynccontextmanager
async def opened(conninfo: str) -> AsyncIterator[PostgresSnapshot]:
    """The snapshot of now, by the migrator's connection string. Raises ``Unavailable``, also for another schema
    revision: the backup is of a database that this program understands."""
    with translated("open the database"):
        connection = await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, application_name="triplane backup", connect_timeout=CONNECT_SECONDS
        )
    async with connection:
        await check_revision(connection)
        with translated("take a snapshot"):
            await connection.execute(_BEGIN)
            cursor = await connection.execute("SELECT txid_current_snapshot()")  # from here on nothing moves
            if await cursor.fetchone() is None:
                raise Unavailable("the database gave no snapshot: try again")
        yield PostgresSnapshot(connection)
