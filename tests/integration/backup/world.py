"""An installation's stores with something in them, and an empty one to restore into."""

import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.conftest import Database, PostgresServer, drop_database, new_database

from triplane.adapters.filesystem.backupfolder import BackupFolder
from triplane.adapters.filesystem.signingkeys import Ed25519Signer
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.adapters.postgres.roles import ensure_database
from triplane.adapters.postgres.sessionstore import PostgresSessionStore
from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.entry import event_id
from triplane.audit.merkle import CompactRange, leaf_hash
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.notekey import KeyType, key_of
from triplane.backupwiring import open_sources, open_targets
from triplane.controllers.backup import Backup, Taken
from triplane.controllers.restore import Checked, Demands, Restore
from triplane.domain.session import Offer
from triplane.ports import Edge, GraphChange, KeptContent, ResourceRecord
from triplane.settings import Settings
from triplane.wiring import open_content

GRAPH = "3f0c9a6e-0000-4000-8000-000000000001"


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def body(number: int, *blobs: str) -> EventBody:
    uid = f"uid-{number}"
    return EventBody(
        id=event_id("resource.observed", uid, 1),
        type="resource.observed",
        stream=f"graph/{GRAPH}",
        actor="system",
        subject=EventSubject(kind="Task", namespace="team", name=f"task-{number}", uid=uid, generation=1),
        data={"specDigest": "sha256:" + "ab" * 32},
        blobs=blobs,
    )


@dataclass
class Installation:
    """The stores of one installation."""

    settings: Settings
    origin: str
    log: PostgresEventLog
    sessions: PostgresSessionStore
    graph: PostgresGraphStore
    checkpoints: PostgresCheckpointStore
    content: KeptContent

    async def work(self, first: int, count: int) -> list[str]:
        """Appends so many entries, each of which names a blob of its own; the digests."""
        digests = [await self.content.store(b"%d of %s" % (n, uuid.uuid4().bytes)) for n in range(first, first + count)]
        await self.log.append([body(n, digest) for n, digest in enumerate(digests, first)])
        return digests

    async def fill(self) -> list[str]:
        """Something in every schema."""
        digests = await self.work(0, 30)
        records = tuple(
            ResourceRecord(
                uid=f"uid-{n}", kind="Task", namespace="team", name=f"task-{n}", generation=1, labels={"a": "b"},
                spec={"n": n}, requester="p-1", seq=n + 2,
            )
            for n in range(30)
        )  # fmt: skip
        await self.graph.apply(GraphChange(records, (Edge("uid-1", "owns", "uid-2", 4),)))
        order = await self.content.store(b"a work order's own blob")
        offer = Offer(
            session_uid="s1", namespace="team", name="session", task_uid="uid-1", graph_uid=GRAPH, agent_uid="a1",
            agent_name="agent", role="Producer", snapshot_digest="sha256:" + "5" * 64, work_order={"input": order},
        )  # fmt: skip
        assert await self.sessions.offer(offer)
        await self.sessions.own_blob("team", digests[0])
        await self.sessions.set_cursor("consumer", 7)
        return [*digests, order]

    async def checkpoint(self, signer: Ed25519Signer) -> tuple[bytes, str]:
        """Signs and publishes the log as it is now; the note, and the key to pin."""
        tree = CompactRange()
        for recorded in await self.log.query(limit=10_000):
            tree.add(leaf_hash(recorded.octets))
        note = sign_checkpoint(Checkpoint(self.origin, tree.size, tree.root()), self.origin, [signer])
        await self.checkpoints.publish(note)
        return note, str(key_of(self.origin, KeyType.ED25519, signer))

    async def backup(self, folder: Path, secrets: tuple[tuple[str, bytes], ...] = ()) -> Taken:
        async with open_sources(self.settings) as sources:
            taking = Backup(sources.snapshot, sources.content, BackupFolder(folder), program="test", progress=quiet)
            return await taking.take(datetime.now(UTC), secrets)


@asynccontextmanager
async def opened(settings: Settings, database: Database) -> AsyncIterator[Installation]:
    """The stores as the operator opens them."""
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="operator")
    sessions = PostgresSessionStore(pool)
    try:
        await open_pool(pool)
        async with open_content(settings) as content:
            yield Installation(
                settings,
                log.origin,
                log,
                sessions,
                PostgresGraphStore(pool),
                PostgresCheckpointStore(pool, log.origin),
                content,
            )
    finally:
        await sessions.close()
        await pool.close()
        await log.close()


def signer() -> Ed25519Signer:
    """A new key."""
    return Ed25519Signer(Ed25519PrivateKey.generate())


def settings_of(server: PostgresServer, home: Path, name: str, **content: Any) -> Settings:
    """Of a home with the server's passwords; ``content``: where its blobs are, if not there."""
    (home / "secrets").mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (server.home / "secrets").glob("db_*"):
        shutil.copy(path, home / "secrets" / path.name)
    return Settings(home=home, database_host=str(server.embedded.socket), database_name=name, **content)


@asynccontextmanager
async def installation(server: PostgresServer, home: Path, **content: Any) -> AsyncIterator[Installation]:
    """A migrated one, empty."""
    database = new_database(server)
    try:
        async with opened(settings_of(server, home, database.name, **content), database) as made:
            yield made
    finally:
        drop_database(database)


@contextmanager
def nothing(server: PostgresServer, home: Path, **content: Any) -> Iterator[tuple[Settings, Database]]:
    """A database without anything, and a home without blobs."""
    name = f"r_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.embedded.dsn, autocommit=True) as admin:
        ensure_database(admin, name)
    database = Database(server, name, "")
    try:
        yield settings_of(server, home, name, **content), database
    finally:
        drop_database(database)


async def restore(
    folder: Path, settings: Settings, demands: Demands | None = None, *, name: str | None = None, load: bool = True
) -> Checked:
    """What `triplane restore` does, in this process."""
    source = BackupFolder(folder)
    restoring = Restore(source, str(folder), quiet)
    checked = await restoring.check(source.choose(name), demands or Demands())
    if load:
        from triplane.backupwiring import keep_secret

        async def keep(secret: str, content: bytes) -> None:
            keep_secret(settings, secret, content)

        async with open_targets(settings, None) as targets:
            await restoring.load(checked, targets.database, targets.content, keep)
    return checked
