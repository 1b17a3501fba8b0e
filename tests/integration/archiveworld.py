"""A log on a real Postgres with small partitions, and what archives it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import Database
from tests.unit.audit.notary import LOG, log_key

from triplane.adapters.filesystem.exportfolder import ExportFolder
from triplane.adapters.postgres.archivist import PostgresArchivist
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.notekey import KeyRing
from triplane.audit.subtrees import GrowingTree
from triplane.controllers.archiving import Archived, archive_log
from triplane.controllers.exporting import StoredLog

NOW = datetime.now(UTC)


@dataclass
class World:
    """A log with small partitions, and what archives it."""

    database: Database
    log: PostgresEventLog
    checkpoints: PostgresCheckpointStore
    archivist: PostgresArchivist
    folder: Path

    @property
    def trust(self) -> CheckpointTrust:
        return CheckpointTrust(self.log.origin, KeyRing([log_key(name=self.log.origin)]))

    async def sign(self) -> None:
        """Publish a checkpoint of all that is there."""
        tree = GrowingTree()
        with self.database.superuser() as admin:
            for (leaf,) in admin.execute(
                "SELECT leaf FROM (SELECT seq, leaf FROM log.entries UNION SELECT seq, leaf FROM log.archived_entries)"
                " ORDER BY seq"
            ):
                tree.add(leaf)
        await self.checkpoints.keep(tree.completed)
        checkpoint = Checkpoint(self.log.origin, tree.size, tree.root())
        await self.checkpoints.publish(sign_checkpoint(checkpoint, self.log.origin, [LOG]))

    async def archive(self, before: int) -> Archived:
        with ExportFolder(self.folder) as target:
            return await archive_log(
                StoredLog(self.log, self.checkpoints),
                target,
                self.archivist,
                self.trust,
                before=before,
                place=str(self.folder),
                now=NOW,
            )

    def partitions(self) -> list[str]:
        with self.database.superuser() as admin:
            return [
                row[0]
                for row in admin.execute(
                    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'log.entries'::regclass"
                    " ORDER BY pg_inherits.inhrelid"
                )
            ]

    def rows(self) -> tuple[int, int]:
        """Lowest number and count of what is in the database, but for what stays."""
        with self.database.superuser() as admin:
            found = admin.execute(
                "SELECT min(seq), count(*) FROM log.entries WHERE type NOT IN"
                " ('origin.created', 'principal.created', 'log.archived')"
            ).fetchone()
        assert found is not None
        return found[0], found[1]


@asynccontextmanager
async def archiving(database: Database, folder: Path) -> AsyncIterator[World]:
    """A new log; ``folder`` becomes its archive."""
    with database.superuser() as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION log.partition_entries() RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 512"
        )
        admin.execute("ALTER TABLE log.entries DETACH PARTITION log.entries_0")
        admin.execute("ALTER TABLE log.entries ATTACH PARTITION log.entries_0 FOR VALUES FROM (MINVALUE) TO (512)")
        admin.execute("UPDATE log.heads SET capacity = 512")
    pool = make_pool(database.dsn("operator"), name="test")
    await open_pool(pool)
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    try:
        async with PostgresArchivist(database.dsn("migrator"), log.origin) as archivist:
            yield World(database, log, PostgresCheckpointStore(pool, log.origin), archivist, folder)
    finally:
        await log.close()
        await pool.close()
