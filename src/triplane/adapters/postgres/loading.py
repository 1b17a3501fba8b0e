"""An empty database that takes a backup: claim, load, verify, let others in.

A table of its own marks the database from the first step to the last. While it stands every process and every migration
refuses to work on it, so that an interrupted restore is no installation, and only its repetition may clear away what it
left. Rows are loaded in one transaction by the owners of the schemas; the log's own triggers and functions stay on.
"""

import asyncio
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from triplane.adapters.postgres.connection import CONNECT_SECONDS, UNFINISHED, translated
from triplane.adapters.postgres.migrate import LOCK_KEY, ensure_access, run_migrations
from triplane.adapters.postgres.snapshot import OWNER, TABLES
from triplane.adapters.postgres.sweep import Range, sweep
from triplane.audit.merkle import EMPTY_ROOT, CompactRange, leaf_reader, root_plan
from triplane.audit.verifying import Given, TreeState
from triplane.domain.backup import SCHEMAS, Counter, OriginFacts, TableFile
from triplane.errors import Corrupt, Unavailable
from triplane.failpoint import failpoint
from triplane.ports.backup import NotEmpty

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_REFERENCES = """
    SELECT c.conrelid::regclass::text, c.confrelid::regclass::text FROM pg_constraint c
    JOIN pg_namespace n ON n.oid = c.connamespace WHERE c.contype = 'f' AND n.nspname = ANY (%s)"""
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = ANY (%s) ORDER BY nspname"
_LEAVES = """
    SELECT leaf FROM (
        SELECT seq, leaf FROM log.archived_entries WHERE origin = %(origin)s
        UNION SELECT seq, leaf FROM log.entries WHERE origin = %(origin)s) AS both_
    ORDER BY seq"""
_ARCHIVED = "SELECT leaf, time FROM log.archived_entries WHERE origin = %s AND seq < %s ORDER BY seq"
_ROOM = "SELECT log.make_room(0, max(capacity)) FROM log.heads"


class PostgresTarget:
    """``triplane.ports.backup.EmptyDatabase``: the database ``database`` on the server of ``dsn``, an administrator's
    or the migrator's. An async context manager: inside it nobody else migrates or restores."""

    def __init__(self, dsn: str, passwords: Mapping[str, str], *, database: str) -> None:
        self._dsn = dsn
        self._passwords = passwords
        self._database = database
        self._own = ""
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None

    async def __aenter__(self) -> "PostgresTarget":
        self._own = await asyncio.to_thread(ensure_access, self._dsn, self._passwords, self._database)
        async with AsyncExitStack() as stack:
            with translated("open the database"):
                self._connection = await stack.enter_async_context(
                    await psycopg.AsyncConnection.connect(
                        self._own, autocommit=True, application_name="triplane restore", connect_timeout=CONNECT_SECONDS
                    )
                )
                await self._connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def begin(self, revision: str) -> None:
        """See ``EmptyDatabase.begin``."""
        if not await self._is_ours():
            await self._check_empty()
        with translated("claim the database"):
            await self._open().execute(f"CREATE TABLE IF NOT EXISTS {UNFINISHED} ()")
            async with self._open().transaction():
                for (schema,) in await self._all(_SCHEMAS, (list(SCHEMAS),)):
                    await self._become(schema)
                    await self._open().execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
                    await self._open().execute("RESET ROLE")
                await self._open().execute("DROP TABLE IF EXISTS public.schema_revision")
            failpoint("restore.step")
            await asyncio.to_thread(run_migrations, self._own, revision)

    async def load(self, tables: Sequence[TableFile], rows: Mapping[str, AsyncIterable[bytes]]) -> None:
        """See ``EmptyDatabase.load``."""
        shapes = {f"{row[0]}.{row[1]}": tuple(row[2]) for row in await self._all(TABLES, (list(SCHEMAS),))}
        given = {table.name: table.columns for table in tables}
        for name in sorted(shapes.keys() | given.keys()):
            if shapes.get(name) != given.get(name):
                raise Corrupt(
                    f"the backup has {name} with columns {given.get(name)}, its schema revision has "
                    f"{shapes.get(name)}: the manifest was altered, take the backup from another copy"
                )
        named = {table.name: table for table in tables}
        partitioned = "capacity" in shapes["log.heads"]
        with translated("load the backup"):
            async with self._open().transaction():
                for name in await self._order(named):
                    await self._load(named[name], rows[name])
                    if name == "log.heads" and partitioned:
                        await self._open().execute(_ROOM)
                    failpoint("restore.step")

    async def count_on(self, counters: Sequence[Counter]) -> None:
        """See ``EmptyDatabase.count_on``."""
        with translated("set the counters"):
            async with self._open().transaction():
                for counter in counters:
                    await self._become(counter.schema_name)
                    if counter.last:
                        await self._open().execute(
                            "SELECT setval(pg_get_serial_sequence(format('%%I.%%I', %s::text, %s::text), %s), %s)",
                            (counter.schema_name, counter.table, counter.column, counter.last),
                        )

    async def verify(self, facts: OriginFacts, sizes: Collection[int]) -> Mapping[int, bytes]:
        """See ``EmptyDatabase.verify``. The schema is brought up to date first: that is what will be worked on."""
        await asyncio.to_thread(run_migrations, self._own)
        owner = make_conninfo(self._own, options=f"-c role={OWNER['log']}")
        with translated("verify the loaded log"):
            async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:
                roots = await self._roots(connection, facts, {*sizes, facts.size})
                start = await self._start(connection, facts) if facts.archived else None
                found = await sweep(connection, owner, Range(facts.origin, 0, None, Given(start=start)))
        if found.broken is not None:
            raise Corrupt(
                f"the backup's log {facts.origin} is broken at entry {found.broken.seq}: {found.broken.reason}: "
                f"{found.broken.message}. Take an earlier backup, or another copy"
            )
        if found.last + 1 != facts.size or roots[facts.size].hex() != facts.root or found.root != facts.root:
            raise Corrupt(
                f"the loaded log {facts.origin} has {found.last + 1} entries with root {found.root}, the manifest says "
                f"{facts.size} with root {facts.root}: one of the two was altered, take the backup from another copy"
            )
        return roots

    async def finish(self) -> None:
        """See ``EmptyDatabase.finish``."""
        with translated("let others into the database"):
            await asyncio.to_thread(run_migrations, self._own)
            await self._open().execute(f"DROP TABLE IF EXISTS {UNFINISHED}")

    async def _roots(self, connection: Connection, facts: OriginFacts, sizes: set[int]) -> dict[int, bytes]:
        """From the stored leaf hashes; that they are those of the octets is for the sweep to say."""
        roots = {0: EMPTY_ROOT}
        tree = CompactRange()
        async with connection.transaction(), connection.cursor("leaves", binary=True) as cursor:
            await cursor.execute(_LEAVES, {"origin": facts.origin})
            while page := await cursor.fetchmany(10_000):
                for (leaf,) in page:
                    tree.add(leaf)
                    if tree.size in sizes:
                        roots[tree.size] = tree.root()
        missing = sizes - roots.keys()
        if missing:
            raise Corrupt(
                f"the loaded log {facts.origin} has {tree.size} entries, the manifest or an anchor speaks of "
                f"{max(missing)}: take the backup from another copy"
            )
        return roots

    async def _start(self, connection: Connection, facts: OriginFacts) -> TreeState:
        """From where the entries that are here go on: the leaf hashes of the archived ones are."""
        cursor = await connection.execute(_ARCHIVED, (facts.origin, facts.archived), binary=True)
        rows = await cursor.fetchall()
        if len(rows) != facts.archived:
            raise Corrupt(
                f"{len(rows)} of the {facts.archived} archived entries of {facts.origin} have their leaf hashes in the "
                "backup: take it from another copy"
            )
        read = leaf_reader([row[0] for row in rows])
        return TreeState(facts.archived, tuple(read(root_plan(facts.archived).nodes)), rows[-1][0].hex(), rows[-1][1])

    async def _is_ours(self) -> bool:
        found = await self._all("SELECT to_regclass(%s::text) IS NOT NULL", (UNFINISHED,))
        return bool(found[0][0])

    async def _check_empty(self) -> None:
        """A schema without any row but those it begins with is empty: a migration was interrupted there."""
        holding: list[str] = []
        for schema, table, _ in await self._all(TABLES, (list(SCHEMAS),)):
            await self._open().execute("BEGIN")
            try:
                await self._become(schema)
                query = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1000001) AS few")
                ((count,),) = await self._all(query.format(sql.Identifier(schema, table)), ())
            finally:
                await self._open().execute("ROLLBACK")
            if count and f"{schema}.{table}" != "sessions.revocation":
                holding.append(f"{schema}.{table} {count if count <= 1_000_000 else 'over a million'}")
        if holding:
            raise NotEmpty(
                f"the database {self._database} is in use, it holds rows: {', '.join(holding)}. A backup is restored "
                "into an empty installation only: choose another TRIPLANE_HOME or TRIPLANE_DATABASE_NAME, or move "
                "this one away first"
            )

    async def _order(self, named: Collection[str]) -> list[str]:
        """Tables before those that refer to them, and heads, which say how much room is needed, before entries."""
        needs: dict[str, set[str]] = {name: set() for name in named}
        needs["log.entries"].add("log.heads")
        for table, other in await self._all(_REFERENCES, (list(SCHEMAS),)):
            if table != other and table in needs and other in needs:
                needs[table].add(other)
        ordered: list[str] = []
        while needs:
            ready = sorted(name for name, others in needs.items() if not others - set(ordered))
            if not ready:
                raise Unavailable(f"tables refer to each other in a circle: {', '.join(sorted(needs))}")
            ordered += ready
            needs = {name: others for name, others in needs.items() if name not in ready}
        return ordered

    async def _load(self, table: TableFile, rows: AsyncIterable[bytes]) -> None:
        place = sql.Identifier(table.schema_name, table.table)
        await self._become(table.schema_name)
        if table.schema_name != "log":
            await self._open().execute(sql.SQL("DELETE FROM {}").format(place))  # what a migration put there
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            place, sql.SQL(", ").join(map(sql.Identifier, table.columns))
        )
        try:
            async with self._open().cursor() as cursor:
                async with cursor.copy(statement) as copy:
                    async for chunk in rows:
                        await copy.write(chunk)
                loaded = cursor.rowcount
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise Corrupt(
                f"tables/{table.name} does not fit its table ({str(error).splitlines()[0]}): take the backup from "
                "another copy"
            ) from error
        if loaded != table.rows:
            raise Corrupt(f"tables/{table.name} has {loaded} rows, the manifest says {table.rows}: take another copy")

    async def _become(self, schema: str) -> None:
        await self._open().execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(OWNER[schema])))

    async def _all(self, statement: LiteralString | sql.Composed, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = await self._open().execute(statement, values)
        return await cursor.fetchall()

    def _open(self) -> Connection:
        if self._connection is None:
            raise Unavailable("the database to restore into is not open: enter the target first")
        return self._connection
