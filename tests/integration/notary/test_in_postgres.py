"""The notary over Postgres: privileges, hashes that are missing, what the command says, and that work is bounded."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.unit.controllers.notary_world import NotaryWorld

from triplane.adapters.anchors.file import FileAnchor
from triplane.adapters.filesystem.ledger import FolderLedger
from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.migrate import migrate
from triplane.audit.merkle import Node, leaf_hash, subtree_root
from triplane.controllers.proving import entry_proof
from triplane.errors import Corrupt

LOGINS = ("operator", "gateway", "verifier", "migrator")


@pytest.fixture
def home(database: Database) -> Path:
    """The home of an installation with this database."""
    made = database.server.home / database.name
    (made / "secrets").mkdir(parents=True)
    for path in (database.server.home / "secrets").glob("db_*"):
        (made / "secrets" / path.name).write_bytes(path.read_bytes())
    (made / "pg").symlink_to(database.server.home / "pg")
    return made


@pytest.fixture
async def world(database: Database, home: Path) -> AsyncIterator[NotaryWorld]:
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="notary", largest=2)
    await open_pool(pool)
    store = PostgresCheckpointStore(pool, log.origin)
    anchors = [FileAnchor(home / "anchor" / "checkpoint")]
    yield NotaryWorld(log, store, FolderLedger(home / "notary"), NotaryKeyFolder(home / "secrets"), [*anchors])
    await pool.close()
    await log.close()


async def test_a_long_log_is_signed_page_by_page_and_taken_up_again(world: NotaryWorld) -> None:
    await world.log.append([body(n) for n in range(1500)])
    await world.signed()
    await world.log.append([body(n) for n in range(1500, 1600)])
    signed = await world.signed()
    leaves = [leaf_hash(item.octets) for item in await world.log.query(limit=10_000)]
    assert (signed.size, signed.root) == (1602, subtree_root(leaves))
    assert list(await world.store.hashes([Node(8, n) for n in range(6)])) == [
        subtree_root(leaves[256 * n : 256 * (n + 1)]) for n in range(6)
    ]


async def test_kept_hashes_that_are_missing_are_said_to_be_and_the_notary_makes_them_again(
    world: NotaryWorld, database: Database
) -> None:
    await world.grow(600)
    await world.signed()
    with database.superuser() as admin:
        admin.execute("ALTER TABLE log.subtrees DISABLE TRIGGER ALL")
        admin.execute("DELETE FROM log.subtrees")
    with pytest.raises(Corrupt, match="of the 1 subtrees of 256 entries from 0 on, 0 hashes are kept"):
        await world.store.hashes([Node(8, 0)])
    await world.grow(601)
    signed = await world.signed()
    leaves = [leaf_hash(item.octets) for item in await world.log.query(limit=10_000)]
    assert signed.root == subtree_root(leaves)
    assert list(await world.store.hashes([Node(8, 0)])) == [subtree_root(leaves[:256])]


async def test_a_proof_that_altered_hashes_spoil_is_not_given_and_what_to_do_is_said(
    world: NotaryWorld, database: Database
) -> None:
    await world.grow(600)
    await world.signed()
    (recorded,) = await world.log.query(after=549, limit=1)
    assert await entry_proof(world.log, world.store, recorded)
    with database.superuser() as admin:
        admin.execute("ALTER TABLE log.subtrees DISABLE TRIGGER ALL")
        admin.execute("UPDATE log.subtrees SET hash = sha256(hash) WHERE index = 0")
    with pytest.raises(Corrupt, match=r"leads to root .*Run `triplane log verify`, which names what was altered"):
        await entry_proof(world.log, world.store, recorded)


FORBIDDEN = (
    "INSERT INTO log.checkpoints VALUES ('o', 9, '\\x00', '')",
    "UPDATE log.checkpoints SET note = note || 'x'",
    "DELETE FROM log.checkpoints",
    "TRUNCATE log.checkpoints",
    "INSERT INTO log.subtrees VALUES ('o', 8, 9, decode(repeat('00', 32), 'hex'))",
    "UPDATE log.subtrees SET hash = hash",
    "DELETE FROM log.subtrees",
    "TRUNCATE log.subtrees",
    "ALTER TABLE log.checkpoints DISABLE TRIGGER ALL",
)
PUBLISHING = ("SELECT log.log_publish('o', 1, '', '')", "SELECT log.log_keep_subtrees('o', '{}', '{}', '{}')")


async def test_no_login_changes_what_was_published_and_only_the_operator_publishes(
    world: NotaryWorld, database: Database
) -> None:
    await world.grow(300)
    await world.signed()
    for login in LOGINS:
        with psycopg.connect(database.dsn(login), autocommit=True) as connection:
            for statement in (*FORBIDDEN, *(() if login == "operator" else PUBLISHING)):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
            if login != "migrator":
                assert connection.execute("SELECT size FROM log.checkpoints").fetchall() == [(300,)]
                assert connection.execute("SELECT level, index FROM log.subtrees").fetchall() == [(8, 0)]


async def test_even_the_owner_of_the_tables_meets_the_triggers(world: NotaryWorld, database: Database) -> None:
    notary = await world.begun()
    await world.signed(notary)
    await world.grow(300)
    await world.signed(notary)
    with database.superuser() as admin:
        admin.execute("SET session_replication_role = replica")
        for statement in (
            "UPDATE log.checkpoints SET size = size + 1",
            "UPDATE log.checkpoints SET note = 'x' || note",
            "UPDATE log.checkpoints SET note = note || 'x' WHERE size = 2",
            "DELETE FROM log.checkpoints",
            "TRUNCATE log.checkpoints",
            "UPDATE log.subtrees SET hash = hash",
            "DELETE FROM log.subtrees",
            "TRUNCATE log.subtrees",
        ):
            with pytest.raises(psycopg.Error, match=r"refused: the (log is append-only|checkpoint of)"):
                admin.execute(statement.encode())


async def test_the_columns_of_a_checkpoint_cannot_say_other_than_its_note(database: Database) -> None:
    with (
        database.superuser() as admin,
        pytest.raises(psycopg.errors.CheckViolation, match="note_says_so"),
    ):
        admin.execute("INSERT INTO log.checkpoints VALUES ('o', 3, decode(repeat('00', 32), 'hex'), 'o\n4\n')")


def triplane(home: Path, database: Database, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIPLANE_", "KUBECONFIG"))}
    more = {
        "TRIPLANE_HOME": str(home),
        "TRIPLANE_DATABASE_NAME": database.name,
        "TRIPLANE_ANCHORS": f"file:{home}/anchor/checkpoint",
    }
    return subprocess.run(
        [sys.executable, "-m", "triplane.cli.main", "log", *arguments],
        env=kept | more | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_shows_the_checkpoint_and_who_holds_it(
    world: NotaryWorld, database: Database, home: Path
) -> None:
    before = triplane(home, database, "checkpoint")
    assert (before.returncode, "no checkpoint has been signed yet" in before.stderr) == (1, True), before.stderr
    await world.grow(20)
    await world.signed()
    await world.grow(23)
    shown = triplane(home, database, "checkpoint")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith((home / "notary" / "checkpoint").read_text())
    assert f"file:{home}/anchor/checkpoint" in shown.stdout
    assert "3 entries have come since" in shown.stderr
    found = json.loads(triplane(home, database, "checkpoint", "-o", "json").stdout)
    assert [item["standing"] for item in found["places"]] == ["Continues"] * 3
    with database.superuser() as admin:
        admin.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        admin.execute("UPDATE log.entries SET leaf = set_byte(leaf, 0, 1 + get_byte(leaf, 0) % 255) WHERE seq = 3")
    tampered = triplane(home, database, "checkpoint")
    assert (tampered.returncode, "not the ones that were signed" in tampered.stderr) == (1, True)


async def test_the_command_tells_of_holders_that_the_settings_here_do_not_name(
    world: NotaryWorld, database: Database, home: Path, tmp_path: Path
) -> None:
    await world.grow(20)
    await world.signed()
    other = f"file:{tmp_path}/other"
    shown = triplane(home, database, "checkpoint", TRIPLANE_ANCHORS=other)
    assert shown.returncode == 0, shown.stderr
    assert f"not compared: file:{home}/anchor/checkpoint was given checkpoints" in shown.stderr
    assert "not checked" not in shown.stderr
    assert "not compared" not in triplane(home, database, "checkpoint").stderr


async def test_the_command_names_what_was_signed_for_another_log(
    world: NotaryWorld, database: Database, home: Path
) -> None:
    await world.grow(20)
    await world.signed()
    with database.superuser() as admin:
        admin.execute("ALTER TABLE log.checkpoints DISABLE TRIGGER ALL")
        admin.execute("DELETE FROM log.checkpoints")
    removed = triplane(home, database, "checkpoint")
    assert removed.returncode == 1
    assert "no checkpoint is published, though the notary's own record holds one of 20 entries" in removed.stderr
    with database.superuser() as admin:
        for table in ("heads", "entries", "entries_0", "entry_ids", "checkpoints", "subtrees"):
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        admin.execute("DELETE FROM log.heads")
        admin.execute("TRUNCATE log.entries, log.entry_ids, log.checkpoints, log.subtrees")
    begun = migrate(database.dsn("migrator"), database.server.passwords, database=database.name)
    shown = triplane(home, database, "checkpoint")
    assert shown.returncode == 1
    assert "no checkpoint has been signed yet" not in shown.stderr
    assert f"signed by this installation for {world.log.origin}; the log is {begun}" in shown.stderr


async def test_keys_are_listed_rotated_and_retired_by_command(
    world: NotaryWorld, database: Database, home: Path
) -> None:
    await world.signed()
    first, *others = json.loads(triplane(home, database, "keys", "list", "-o", "json").stdout)
    assert (others, first["state"]) == ([], "signs")
    assert first["pin"] == str(world.record.known(world.log.origin).trust().log.keys[0])
    pin = triplane(home, database, "keys", "rotate").stdout.strip()
    assert pin.startswith(f"{world.log.origin}+")
    assert triplane(home, database, "keys", "retire", first["id"][:12]).returncode == 0
    listed = json.loads(triplane(home, database, "keys", "list", "-o", "json").stdout)
    assert [(item["state"], item["pin"]) for item in listed] == [("signs", pin), ("retired", first["pin"])]
    again = triplane(home, database, "keys", "retire", first["id"][:12])
    assert (again.returncode, "0 keys that sign begin with" in again.stderr) == (2, True)
    await world.grow(5)
    assert (await world.signed()).size == 5
    assert triplane(home, database, "checkpoint").returncode == 0
