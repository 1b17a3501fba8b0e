"""The log of a real database, exported by the command and through the gateway, and checked by verifiers that share no
code with it; whole, and after somebody with all rights in the database has been at it."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import Database, drop_database, new_database
from tests.integration.gateway.fake_apiserver import ALICE
from tests.integration.gateway.fake_apiserver import serving as serving_apiserver
from tests.integration.gateway.world import running
from tests.unit.audit.exports import Audit, flip, in_node, in_python, same
from tests.unit.audit.notary import LOG, log_key

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.subtrees import GrowingTree
from triplane.wiring import GatewayBackends


@dataclass
class Installation:
    """A database with a log, and who signs it."""

    database: Database
    log: PostgresEventLog
    checkpoints: PostgresCheckpointStore
    folder: Path

    @property
    def key(self) -> str:
        return str(log_key(name=self.log.origin))

    async def sign(self, size: int) -> Path:
        """Append until the log has this size, and sign; the checkpoint in a file, as somebody would keep it."""
        have, _ = await self.log.head()
        await self.log.append([body(number) for number in range(have, size)])
        tree = GrowingTree()
        for item in await self.log.query(limit=10_000):
            tree.add(leaf_hash(item.octets))
        await self.checkpoints.keep(tree.completed)
        note = sign_checkpoint(Checkpoint(self.log.origin, size, tree.root()), self.log.origin, [LOG])
        await self.checkpoints.publish(note)
        kept = self.folder / f"kept-{size}"
        kept.write_bytes(note)
        return kept

    async def export(self, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """``triplane log export``, as the database's verifier (or, with --from, as nobody)."""
        return await self.triplane("log", "export", str(folder), "--key", self.key, *more)

    async def triplane(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
        environment |= {"TRIPLANE_HOME": str(self.database.server.home), "TRIPLANE_DATABASE_NAME": self.database.name}
        environment |= variables
        command = [sys.executable, "-m", "triplane.cli.main", *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )

    def audit(self, folder: Path, *earlier: Path) -> Audit:
        return Audit(folder, [], [self.key], list(earlier))


def body(number: int) -> EventBody:
    subject = EventSubject("Task", "team", f"t{number}", f"u{number}")
    return EventBody(f"task.created/u{number}/1", "task.created", "system", "system", subject)


@pytest.fixture
async def installation(postgres_server, tmp_path: Path) -> AsyncIterator[Installation]:  # type: ignore[no-untyped-def]
    database = new_database(postgres_server)
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="checkpoints")
    await open_pool(pool)
    yield Installation(database, log, PostgresCheckpointStore(pool, log.origin), tmp_path)
    await pool.close()
    await log.close()
    drop_database(database)


async def test_an_export_by_the_command_is_verified_from_outside_and_continued(
    installation: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    kept = await installation.sign(270)
    done = await installation.export(folder, "--proofs")
    assert done.returncode == 0, done.stderr
    assert f"entries 0 to 269 written; 270 entries of {installation.log.origin}" in done.stdout
    await installation.sign(600)
    done = await installation.export(folder, "--proofs")
    assert (done.returncode, "entries 270 to 599 written" in done.stdout) == (0, True), done.stderr
    audit = installation.audit(folder, kept)
    audit.proof = folder / "proofs/300.tlog-proof"
    for verdict in (in_python(audit), in_node(audit)):
        assert verdict.code == 0, verdict
    assert len(list((folder / "proofs").iterdir())) == 600
    flip("tile/entries/001", 300)(audit)
    for verdict in (in_python(audit), in_node(audit)):
        assert (verdict.code, verdict.reason) == (1, "LeafHashMismatch"), verdict
    done = await installation.export(folder)
    assert (done.returncode, "nothing new" in done.stdout) == (0, True), "what was exported earlier is not read again"


ALTER = (
    "UPDATE log.entries SET octets = convert_to(replace(convert_from(octets, 'UTF8'), '\"t50\"', '\"t05\"'), 'UTF8')"
)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param(f"{ALTER} WHERE seq = 50", "the stored chain is broken", id="1: octets altered"),
        pytest.param("DELETE FROM log.entries WHERE seq = 50", "is missing", id="2: an entry deleted"),
        pytest.param("DELETE FROM log.entries WHERE seq >= 90", "is missing", id="2: the last ten deleted"),
    ],
)
async def test_what_a_superuser_altered_is_not_published(
    statement: str, said: str, installation: Installation, tmp_path: Path
) -> None:
    await installation.sign(100)
    with installation.database.superuser() as attacker:
        attacker.execute("SET session_replication_role = replica")
        attacker.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        assert attacker.execute(statement).rowcount > 0
    done = await installation.export(tmp_path / "export")
    assert done.returncode == 1, done.stdout
    assert said in done.stderr or "the stored chain is broken" in done.stderr
    assert "triplane log verify" in done.stderr
    assert not (tmp_path / "export/checkpoint").exists()


async def test_another_history_in_the_database_does_not_continue_what_was_exported(
    installation: Installation, tmp_path: Path
) -> None:
    """Rows 4 and 13: the suffix is rewritten with all its hashes, and signed by the log's key."""
    folder = tmp_path / "export"
    kept = await installation.sign(50)
    assert (await installation.export(folder)).returncode == 0
    before = shutil.copytree(folder, tmp_path / "before")
    with installation.database.superuser() as attacker:
        attacker.execute("SET session_replication_role = replica")
        attacker.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        attacker.execute("ALTER TABLE log.checkpoints DISABLE TRIGGER ALL")
        attacker.execute("ALTER TABLE log.entry_ids DISABLE TRIGGER ALL")
        attacker.execute("DELETE FROM log.entries WHERE seq >= 40")
        attacker.execute("DELETE FROM log.entry_ids WHERE seq >= 40")
        attacker.execute("DELETE FROM log.checkpoints")
        last = attacker.execute("SELECT leaf, time FROM log.entries WHERE seq = 39").fetchone()
        assert last is not None
        attacker.execute("UPDATE log.heads SET size = 40, leaf = %s, time = %s", last)
    await installation.log.append([body(number) for number in range(1000, 1020)])
    await installation.sign(60)
    done = await installation.export(folder)
    assert (done.returncode, "does not continue the export" in done.stderr) == (1, True), done.stderr
    for path in before.rglob("*"):
        assert path.is_dir() or (folder / path.relative_to(before)).read_bytes() == path.read_bytes()
    done = await installation.export(tmp_path / "new")
    assert done.returncode == 0, "a new export of the new history"
    for verdict in (in_python(found := installation.audit(tmp_path / "new", kept)), in_node(found)):
        assert same(verdict, "Forked", "kept-50"), verdict


async def test_through_the_gateway_the_same_is_exported(installation: Installation, tmp_path: Path) -> None:
    await installation.sign(300)
    assert (await installation.export(tmp_path / "direct")).returncode == 0
    backends = GatewayBackends(
        log=installation.log,
        checkpoints=installation.checkpoints,
        content=MemoryContentStore(),
        sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(),
        graph=MemoryGraphStore(),
    )
    async with serving_apiserver(tmp_path) as apiserver:
        apiserver.grant("alice", "get", "graphs")
        async with running(backends, tmp_path, kubeconfig=apiserver.kubeconfig) as world:
            own = tmp_path / "alice.kubeconfig"
            own.write_text(apiserver.kubeconfig.read_text().replace(apiserver.own, ALICE))
            done = await installation.export(
                tmp_path / "served", "--from", f"{world.url}/log", "--kubeconfig", str(own)
            )
            assert done.returncode == 0, done.stderr
            done = await installation.export(tmp_path / "nobody", "--from", f"{world.url}/log")
            assert (done.returncode, "401" in done.stderr) == (2, True), "no token goes where it was not named for"
            await proofs_by_the_command(installation, world.url, own, tmp_path)
    for path in (tmp_path / "direct").rglob("*"):
        assert (
            path.is_dir()
            or (tmp_path / "served" / path.relative_to(tmp_path / "direct")).read_bytes() == path.read_bytes()
        )


async def proofs_by_the_command(installation: Installation, url: str, kubeconfig: Path, folder: Path) -> None:
    """``triplane proof`` through the gateway, and ``triplane verify`` of what it gives, without it."""
    kept = await installation.sign(310)

    async def proof(name: str, *arguments: str) -> str:
        path = folder / name
        command = ("proof", *arguments, "-o", str(path), "--kubeconfig", str(kubeconfig))
        done = await installation.triplane(*command, TRIPLANE_GATEWAY_URL=url)
        assert done.returncode == 0, done.stderr
        return str(path)

    entry = await proof("entry", "entry", "task.created/u7/1", "--size", "300")
    same_entry = await proof("same", "entry", "7", "--size", "300")
    growth = await proof("growth", "consistency", "300", "--to", "310")
    assert (folder / "same").read_bytes() == (folder / "entry").read_bytes()
    nowhere = {"TRIPLANE_HOME": str(folder / "nothing"), "HOME": str(folder / "nothing")}
    given = ("--key", installation.key, "--earlier", str(kept), "--consistency", growth)
    done = await installation.triplane("verify", entry, *given, **nowhere)
    assert (done.returncode, "entry 7 is in the log: task.created Task team/t7" in done.stdout) == (0, True), (
        done.stderr
    )
    latest = await proof("latest", "checkpoint")
    done = await installation.triplane("verify", latest, "--key", installation.key, "--earlier", str(kept), **nowhere)
    assert done.returncode == 0, done.stderr
    (folder / "same").write_bytes((folder / "same").read_bytes().replace(b"index 7", b"index 8"))
    done = await installation.triplane("verify", same_entry, *given, **nowhere)
    assert (done.returncode, "RootMismatch" in done.stderr) == (1, True), done.stderr
