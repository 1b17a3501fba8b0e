"""Attacks on the log in Postgres: what a login may not do, and what verification finds after a superuser did it anyway.

Numbers are the rows of the attack table of the audit plane.
"""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.conftest import Database, PostgresServer, drop_database, new_database
from tests.contract.test_event_log import body

from triplane.adapters.postgres import appender, ownerappend
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.migrate import migrate
from triplane.adapters.postgres.ownerappend import append_within
from triplane.audit.entry import Context, Prepared, first_entries, format_time, open_entry, prepare, seal_all
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import Break
from triplane.errors import Corrupt, Fenced, Forbidden, Unavailable

pytestmark = pytest.mark.attacks

SIZE = 12
LOGINS = ("operator", "gateway", "verifier", "migrator")
TABLES = (
    "entries",
    "entries_0",
    "entry_ids",
    "heads",
    "writers",
    "archives",
    "archived_entries",
    "archived_references",
)
Connection = psycopg.Connection[Any]


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresEventLog]:
    """A log of ``SIZE`` entries."""
    opened = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await opened.append([body(n) for n in range(SIZE - 2)])
    yield opened
    await opened.close()


def as_superuser(database: Database, *statements: str) -> None:
    """Run statements with every trigger switched off, as one who owns the machine can."""
    with database.superuser() as admin:
        for table in TABLES:
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL")
        for statement in statements:
            admin.execute(statement)


def replace_entry(admin: Connection, seq: int, octets: bytes) -> None:
    """Put a whole, consistent entry in the place of another: octets, hash, projections, id index."""
    opened = open_entry(octets)
    entry, subject = opened.entry, opened.entry["subject"]
    (old_id,) = admin.execute("SELECT id FROM log.entries WHERE seq = %s", (seq,)).fetchone() or ("",)
    admin.execute("DELETE FROM log.entry_ids WHERE id = %s", (old_id,))
    admin.execute(
        "UPDATE log.entries SET octets = %s, leaf = %s, id = %s, stream = %s, type = %s, time = %s, actor = %s,"
        " kind = %s, namespace = %s, name = %s, uid = %s WHERE seq = %s",
        (
            octets,
            leaf_hash(octets),
            *(entry[key] for key in ("id", "stream", "type", "time", "actor")),
            *(subject[key] for key in ("kind", "namespace", "name", "uid")),
            seq,
        ),
    )
    admin.execute(
        "INSERT INTO log.entry_ids SELECT origin, %s, %s, %s FROM log.heads", (entry["id"], seq, opened.body_sha256)
    )


async def first_break(log: PostgresEventLog) -> Break:
    verification = await log.verify_chain()
    assert not verification.ok
    assert verification.root == ""
    assert verification.broken is not None
    return verification.broken


FLIP = "set_byte({0}, 40, get_byte({0}, 40) # 1)"


@pytest.mark.parametrize(
    ("statement", "seq", "reason"),
    [
        pytest.param(
            f"UPDATE log.entries SET octets = {FLIP.format('octets')} WHERE seq = 5",
            5,
            "LeafHashMismatch",
            id="1: a bit of the octets",
        ),
        pytest.param(
            "UPDATE log.entries SET leaf = set_byte(leaf, 3, get_byte(leaf, 3) # 1) WHERE seq = 5",
            5,
            "LeafHashMismatch",
            id="1: a bit of the stored hash",
        ),
        *(
            pytest.param(
                f"UPDATE log.entries SET {column} = {column} || 'x' WHERE seq = 5",
                5,
                "ProjectionMismatch",
                id=f"1: the projection {column} only",
            )
            for column in ("stream", "type", "time", "actor", "kind", "namespace", "name", "uid")
        ),
        pytest.param(
            "UPDATE log.entries SET id = id || 'x' WHERE seq = 5",
            5,
            "ProjectionMismatch",
            id="1: the projection id only",
        ),
        pytest.param(
            "UPDATE log.entry_ids SET body_sha256 = set_byte(body_sha256, 0, (get_byte(body_sha256, 0) + 1) % 256)"
            " WHERE seq = 5",
            5,
            "IdIndexMismatch",
            id="1: the body hash of the id index only",
        ),
        pytest.param(
            "UPDATE log.entry_ids SET seq = 6 WHERE seq = 5", 5, "IdIndexMismatch", id="1: an id moved in the index"
        ),
        pytest.param(
            "DELETE FROM log.entry_ids WHERE seq = 5", 5, "IdIndexMismatch", id="2: an id deleted from the index"
        ),
        pytest.param("DELETE FROM log.entries WHERE seq = 0", 0, "EntryMissing", id="2: the first entry deleted"),
        pytest.param("DELETE FROM log.entries WHERE seq = 5", 5, "EntryMissing", id="2: one in the middle deleted"),
        pytest.param("DELETE FROM log.entries WHERE seq >= 9", 9, "EntryMissing", id="2: the last three deleted"),
        pytest.param("TRUNCATE log.entries", 0, "EntryMissing", id="2: all deleted"),
        pytest.param(
            "UPDATE log.entries SET seq = seq - 1000 WHERE seq > 5; DELETE FROM log.entries WHERE seq = 5;"
            "UPDATE log.entries SET seq = seq + 999 WHERE seq < 0",
            5,
            "SequenceMismatch",
            id="2: one deleted and the rest moved up",
        ),
        pytest.param(
            "UPDATE log.entries SET seq = CASE seq WHEN 5 THEN -6 ELSE -5 END WHERE seq IN (5, 6);"
            "UPDATE log.entries SET seq = -seq WHERE seq < 0",
            5,
            "SequenceMismatch",
            id="3: two swapped",
        ),
        pytest.param(
            "ALTER TABLE log.entries DROP CONSTRAINT entries_pkey;"
            "INSERT INTO log.entries SELECT * FROM log.entries WHERE seq = 5",
            5,
            "EntryRepeated",
            id="3: one duplicated",
        ),
        pytest.param(
            "INSERT INTO log.entries SELECT origin, 12, octets, leaf, id, stream, type, time, actor, kind, namespace,"
            " name, uid FROM log.entries WHERE seq = 5",
            12,
            "SequenceMismatch",
            id="3: an old one inserted at the end",
        ),
        *(
            pytest.param(
                f"ALTER TABLE log.entries ALTER {column} DROP NOT NULL;"
                f"UPDATE log.entries SET {column} = NULL WHERE seq = 5",
                5,
                "LeafHashMismatch",
                id=f"1: no {column}",
            )
            for column in ("octets", "leaf")
        ),
        pytest.param(
            "UPDATE log.heads SET leaf = decode(repeat('ab', 32), 'hex')", 12, "HeadMismatch", id="the head's leaf"
        ),
        *(
            pytest.param(
                f"UPDATE log.heads SET time = '{year}-01-01T00:00:00.000000Z'",
                12,
                "HeadMismatch",
                id=f"the head's time, of {year}",
            )
            for year in (2000, 2099)
        ),
        pytest.param("UPDATE log.heads SET size = 11", 12, "HeadMismatch", id="the head's size, smaller"),
        pytest.param("UPDATE log.heads SET size = 13", 12, "EntryMissing", id="the head's size, larger"),
        pytest.param(
            "INSERT INTO log.entry_ids SELECT origin, 'task.placed/forged/1', 5, body_sha256 FROM log.entry_ids"
            " WHERE seq = 5",
            5,
            "IdIndexMismatch",
            id="an id in the index that no entry has",
        ),
        pytest.param(
            "INSERT INTO log.entry_ids SELECT origin, 'task.placed/forged/1', 99, body_sha256 FROM log.entry_ids"
            " WHERE seq = 5",
            99,
            "IdIndexMismatch",
            id="an id in the index for an entry that does not exist",
        ),
    ],
)
async def test_verification_names_the_first_bad_entry_and_why(
    log: PostgresEventLog, database: Database, statement: str, seq: int, reason: str
) -> None:
    assert (await log.verify_chain()).ok
    as_superuser(database, statement)
    found = await first_break(log)
    assert (found.seq, found.reason) == (seq, reason)
    assert str(seq) in found.message


@pytest.mark.parametrize(
    ("year", "connected"),
    [
        pytest.param(2099, True, id="ahead, a writer at work that others came before"),
        pytest.param(2099, False, id="ahead, a writer that connects"),
        pytest.param(2000, False, id="behind, a writer that connects"),
    ],
)
async def test_15_behind_a_head_of_another_time_nothing_is_appended(
    log: PostgresEventLog, database: Database, year: int, connected: bool
) -> None:
    """All that follows would have that time, and be signed with it, for good."""
    writer = log if connected else await PostgresEventLog(database.dsn("gateway"), writer="gateway").open()
    other = await PostgresEventLog(database.dsn("operator"), writer="other").open()
    await other.append([body(50)])  # so that a writer at work looks at the head again
    await other.close()
    head = await log.head()
    as_superuser(database, f"UPDATE log.heads SET time = '{year}-01-01T00:00:00.000000Z'")
    for _ in range(2):
        with pytest.raises(Corrupt, match=f"time '{year}-.*nothing is appended; run `triplane log verify`"):
            await writer.append([body(51)])
    assert await log.head() == head
    await writer.close()


async def test_3_an_entry_inserted_in_the_middle_is_found(log: PostgresEventLog, database: Database) -> None:
    before = (await log.query())[4]
    forged = prepare(log.origin, body(777)).seal(5, before.leaf_hash, before.entry["time"])
    as_superuser(
        database,
        "UPDATE log.entries SET seq = seq - 1000 WHERE seq >= 5",
        "UPDATE log.entries SET seq = seq + 1001 WHERE seq < 0",
        "INSERT INTO log.entries SELECT origin, 5, octets, leaf, id || 'x', stream, type, time, actor, kind, namespace,"
        " name, uid FROM log.entries WHERE seq = 6",
        "UPDATE log.heads SET size = 13",
    )
    with database.superuser() as admin:
        replace_entry(admin, 5, forged)
    found = await first_break(log)
    assert (found.seq, found.reason) == (6, "SequenceMismatch")


async def test_6_a_sibling_in_the_place_of_an_entry_is_found_at_its_successor(
    log: PostgresEventLog, database: Database
) -> None:
    old = (await log.query())[5]
    sibling = prepare(log.origin, body(777)).seal(5, old.entry["prev"], old.entry["time"])
    as_superuser(database)
    with database.superuser() as admin:
        replace_entry(admin, 5, sibling)
    found = await first_break(log)
    assert (found.seq, found.reason) == (6, "PrevMismatch")


async def test_6_a_sibling_in_the_place_of_the_last_entry_is_found_by_the_head(
    log: PostgresEventLog, database: Database
) -> None:
    old = (await log.query())[-1]
    sibling = prepare(log.origin, body(777)).seal(old.seq, old.entry["prev"], old.entry["time"])
    as_superuser(database)
    with database.superuser() as admin:
        replace_entry(admin, old.seq, sibling)
    found = await first_break(log)
    assert (found.seq, found.reason) == (SIZE, "HeadMismatch")


async def test_7_a_log_transplanted_from_another_origin_is_found_at_its_first_entry(
    log: PostgresEventLog, database: Database
) -> None:
    begun = first_entries("localhost", "f00d", log._now())
    moment = open_entry(begun[-1].octets).entry["time"]
    rest = [prepare("localhost/f00d", body(n)) for n in range(SIZE - 2)]
    foreign = [*begun, *seal_all(rest, 2, begun[-1].leaf.hex(), moment)]
    as_superuser(database)
    with database.superuser() as admin:
        for seq, sealed in enumerate(foreign):
            replace_entry(admin, seq, sealed.octets)
        admin.execute("UPDATE log.heads SET leaf = %s", (foreign[-1].leaf,))
    found = await first_break(log)
    assert (found.seq, found.reason) == (0, "OriginMismatch")


async def test_11_a_range_behind_an_altered_entry_does_not_verify(log: PostgresEventLog, database: Database) -> None:
    assert (await log.verify_chain(first=6)).ok
    as_superuser(database, f"UPDATE log.entries SET octets = {FLIP.format('octets')} WHERE seq = 5")
    ranged = await log.verify_chain(first=6)
    assert ranged.broken is not None
    assert (ranged.broken.seq, ranged.broken.reason) == (6, "PrevMismatch")


async def test_12_a_log_emptied_with_its_head_is_not_a_success(log: PostgresEventLog, database: Database) -> None:
    as_superuser(
        database,
        "TRUNCATE log.entries, log.entry_ids",
        "UPDATE log.heads SET size = 0, leaf = decode(repeat('00', 32), 'hex'), time = ''",
    )
    verification = await log.verify_chain()
    assert (verification.ok, verification.count, verification.root) == (False, 0, "")


async def test_12_a_log_without_its_head_row_says_so(log: PostgresEventLog, database: Database) -> None:
    as_superuser(database, "DELETE FROM log.heads")
    with pytest.raises(Corrupt, match="head row"):
        await log.verify_chain()
    with pytest.raises(Corrupt, match="head row"):
        await log.head()


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["DELETE FROM log.heads"], id="the head row gone"),
        pytest.param(["UPDATE log.heads SET current = false"], id="the head row not the current one"),
        pytest.param(
            [
                "ALTER TABLE log.checkpoints DROP CONSTRAINT note_says_so",
                "INSERT INTO log.checkpoints SELECT origin, 2, leaf, '' FROM log.heads",
                "DELETE FROM log.heads",
                "TRUNCATE log.entries",
            ],
            id="only checkpoints left",
        ),
        pytest.param(
            [
                "INSERT INTO log.archives SELECT origin, 256, leaf, leaf, '', 'there', '' FROM log.heads",
                "DELETE FROM log.heads",
                "TRUNCATE log.entries",
            ],
            id="only what tells of an archive left",
        ),
    ],
)
async def test_12_no_new_log_is_begun_in_the_place_of_one_without_its_head_row(
    log: PostgresEventLog, database: Database, statements: list[str]
) -> None:
    as_superuser(database, *statements)
    with pytest.raises(Corrupt, match=f"the head row of the log {database.origin} is gone.* restore from a backup"):
        await PostgresEventLog(database.dsn("verifier"), writer="verifier").open()
    with pytest.raises(Corrupt, match="no new log is begun in its place"):
        migrate(database.dsn("migrator"), database.server.passwords, database=database.name)
    with database.superuser() as admin:
        assert admin.execute("SELECT count(*) FROM log.heads WHERE current").fetchone() == (0,)


@pytest.fixture(scope="module")
def untouched(postgres_server: PostgresServer) -> Iterator[Database]:
    """One database for all that is refused."""
    made = new_database(postgres_server)
    yield made
    drop_database(made)


CHANGES = [
    pytest.param("UPDATE log.{table} SET {column} = {column}", id="UPDATE"),
    pytest.param("DELETE FROM log.{table}", id="DELETE"),
    pytest.param("TRUNCATE log.{table} CASCADE", id="TRUNCATE"),
    pytest.param("INSERT INTO log.{table} SELECT * FROM log.{table}", id="INSERT"),
    pytest.param("ALTER TABLE log.{table} DISABLE TRIGGER ALL", id="DISABLE TRIGGER"),
    pytest.param("ALTER TABLE log.{table} ADD COLUMN more text", id="ALTER TABLE"),
    pytest.param("CREATE RULE hide AS ON INSERT TO log.{table} DO INSTEAD NOTHING", id="CREATE RULE"),
    pytest.param("DROP TABLE log.{table} CASCADE", id="DROP TABLE"),
]
COLUMNS = {
    "entries": "octets",
    "entries_0": "octets",
    "entry_ids": "seq",
    "heads": "size",
    "writers": "epoch",
    "archives": "place",
    "archived_entries": "leaf",
    "archived_references": "digest",
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("login", LOGINS)
def test_15_no_login_may_change_the_tables(untouched: Database, login: str, table: str, statement: str) -> None:
    with psycopg.connect(untouched.dsn(login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.format(table=table, column=COLUMNS[table]))  # type: ignore[arg-type]


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SET session_replication_role = replica", id="switch triggers off for the session"),
        pytest.param("SET ROLE triplane_superuser", id="become the superuser"),
        pytest.param("ALTER ROLE CURRENT_USER SUPERUSER", id="make oneself a superuser"),
        pytest.param("CREATE ROLE more LOGIN", id="create a role"),
        pytest.param("ALTER FUNCTION log.refuse_change() OWNER TO CURRENT_USER", id="take the trigger function"),
        pytest.param("CREATE FUNCTION log.mine() RETURNS int LANGUAGE sql RETURN 1", id="add a function to the schema"),
        pytest.param("COPY log.entries TO PROGRAM 'cat'", id="run a program on the server"),
    ],
)
def test_15_no_login_may_get_around(untouched: Database, login: str, statement: str) -> None:
    with psycopg.connect(untouched.dsn(login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)  # type: ignore[arg-type]


@pytest.mark.parametrize("login", ["operator", "gateway", "verifier"])
@pytest.mark.parametrize("group", ["triplane_log_owner", "triplane_stores_owner", "triplane_log_appender"])
def test_15_only_the_migrator_may_become_an_owner(untouched: Database, login: str, group: str) -> None:
    with psycopg.connect(untouched.dsn(login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SET ROLE {group}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE log.entries SET octets = octets", id="UPDATE"),
        pytest.param("DELETE FROM log.entries WHERE seq = 0", id="DELETE"),
        pytest.param("TRUNCATE log.entries", id="TRUNCATE"),
        pytest.param("UPDATE log.entries_0 SET octets = octets", id="UPDATE of a partition"),
        pytest.param("DELETE FROM log.entries_0 WHERE seq = 0", id="DELETE from a partition"),
        pytest.param("TRUNCATE log.entries_0", id="TRUNCATE of a partition"),
        pytest.param("TRUNCATE log.archives", id="TRUNCATE of the archives' boundaries"),
        pytest.param("TRUNCATE log.archived_entries", id="TRUNCATE of what stands for archived entries"),
        pytest.param("TRUNCATE log.archived_references", id="TRUNCATE of what archived entries name"),
        pytest.param("UPDATE log.entry_ids SET seq = 0", id="UPDATE of the id index"),
        pytest.param("TRUNCATE log.entry_ids", id="TRUNCATE of the id index"),
        pytest.param("DELETE FROM log.heads", id="DELETE of the head"),
    ],
)
@pytest.mark.parametrize("replica", [False, True], ids=["with triggers as usual", "as a replica"])
def test_15_even_the_owner_and_a_superuser_are_refused_while_triggers_stand(
    untouched: Database, statement: str, replica: bool
) -> None:
    with untouched.superuser() as admin:
        if replica:
            admin.execute("SET session_replication_role = replica")
        else:
            admin.execute("SET ROLE triplane_log_owner")
        with pytest.raises(psycopg.Error, match="append-only") as refused:
            admin.execute(statement)  # type: ignore[arg-type]
    assert refused.value.sqlstate == "TP002"


@pytest.mark.parametrize("login", ["verifier", "migrator"])
def test_15_only_appenders_may_append(untouched: Database, login: str) -> None:
    with psycopg.connect(untouched.dsn(login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT log.log_append('o', 'w', 0, 0, '', '{}', '{}')")


async def test_15_a_reader_gets_forbidden_from_append_and_the_log_unchanged(database: Database) -> None:
    log = await PostgresEventLog(database.dsn("verifier"), writer="verifier").open()
    head = await log.head()
    with pytest.raises(Forbidden):
        await log.append([body(1)])
    assert await log.head() == head
    assert (await log.verify_chain()).ok
    await log.close()


def _later() -> str:
    """A time that a log may go on at: what was appended before is older, and the server's clock not far behind."""
    return format_time(datetime.now(UTC) + timedelta(minutes=1))


def _append_raw(database: Database, entry: Prepared, leaf: bytes, *, behind: tuple[int, bytes], time: str) -> bool:
    """Append one entry by the function that appenders may execute, with the leaf hash that the caller claims."""
    size, before = behind
    with (
        psycopg.connect(database.dsn("operator"), autocommit=True) as connection,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(ownerappend, "chain_leaves", lambda *_: [leaf])
        return append_within(
            connection, database.origin, [entry], size=size, leaf=before, time=time, writer="raw", epoch=0
        )


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param({"seq": 13}, id="a gap in seq"),
        pytest.param({"seq": 11}, id="a seq that is taken"),
        pytest.param({"prev": "ab" * 32}, id="another prev"),
        pytest.param({"time": "2000-01-01T00:00:00.000000Z"}, id="a time before the last entry's"),
        pytest.param({"time": "3000"}, id="a time that is none"),
        pytest.param({"origin": "localhost/f00d"}, id="another origin"),
        pytest.param({"leaf": b"\xab" * 32}, id="a hash of something else"),
        pytest.param({"fields": {"data": b""}}, id="no data"),
        pytest.param({"fields": {"generation": -1}}, id="a negative generation"),
    ],
)
async def test_15_an_appender_cannot_append_what_does_not_continue_the_chain(
    log: PostgresEventLog, database: Database, forge: dict[str, Any]
) -> None:
    size, head = await log.head()
    behind, later = (size, bytes.fromhex(head)), _later()
    time = forge.get("time", later)
    entry = prepare(log.origin, body(50))
    forged = entry._replace(**forge.get("fields", {}))
    claimed = prepare(forge.get("origin", log.origin), body(50))
    octets = claimed.seal(forge.get("seq", size), forge.get("prev", head), time)
    with pytest.raises(psycopg.Error) as refused:
        _append_raw(database, forged, forge.get("leaf", leaf_hash(octets)), behind=behind, time=time)
    assert refused.value.sqlstate == "TP004"
    assert await log.head() == (size, head)
    assert _append_raw(database, entry, leaf_hash(entry.seal(size, head, later)), behind=behind, time=later)
    assert (await log.verify_chain()).ok


def _smuggled(entry: Prepared, octets: bytes, **fields: Any) -> tuple[Prepared, bytes]:
    """The entry with fields that hold more than one value, and the octets that they make."""
    context = {name: fields.pop(name) for name in list(fields) if name in Context._fields}
    changed = entry._replace(context=entry.context._replace(**context), **fields)
    for name, text in (*context.items(), *fields.items()):
        old = entry.data if name == "data" else str(getattr(entry.context, name, None) or getattr(entry, name)).encode()
        octets = octets.replace(old, text if isinstance(text, bytes) else text.encode(), 1)
    return changed, octets


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        pytest.param(
            {"name": 'evil","name":"thing-50'},
            "AND to_json(texts)::text = '\"' || texts || '\"'",
            id="a quote in a name, so that another name is told to queries than the octets begin with",
        ),
        pytest.param({"data": b'{},"kind":{}'}, "AND data IS JSON OBJECT", id="data that ends early and adds a member"),
        pytest.param(
            {"labels": '[],"uid":"other","more":[]'}, "AND labels IS JSON ARRAY", id="labels that name another subject"
        ),
        pytest.param(
            {"blobs": '[],"actor":"p-other","more":[]'}, "AND blobs IS JSON ARRAY", id="blobs that name another actor"
        ),
    ],
)
async def test_1_an_appender_cannot_make_projections_differ_from_octets(
    log: PostgresEventLog, database: Database, fields: dict[str, Any], check: str
) -> None:
    size, head = await log.head()
    behind, time = (size, bytes.fromhex(head)), _later()
    honest = prepare(log.origin, body(50))
    entry, octets = _smuggled(honest, honest.seal(size, head, time), **fields)
    with pytest.raises(psycopg.Error) as refused:
        _append_raw(database, entry, leaf_hash(octets), behind=behind, time=time)
    assert refused.value.sqlstate == "TP004"
    assert await log.head() == (size, head)
    with database.superuser() as admin:  # the same without the check: it would have stood in the log
        (definition,) = admin.execute(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'log_append'"
        ).fetchone() or ("",)
        assert check in definition
        admin.execute(definition.replace(check, ""))
    assert _append_raw(database, entry, leaf_hash(octets), behind=behind, time=time)
    found = await first_break(log)
    assert (found.seq, found.reason) == (size, "Malformed")


async def test_15_an_appender_cannot_reuse_an_id_whatever_it_claims(log: PostgresEventLog, database: Database) -> None:
    size, head = await log.head()
    again = prepare(log.origin, body(1))._replace(body_sha256=b"\0" * 32)
    behind, time = (size, bytes.fromhex(head)), _later()
    with pytest.raises(psycopg.errors.UniqueViolation):
        _append_raw(database, again, leaf_hash(again.seal(size, head, time)), behind=behind, time=time)
    assert await log.head() == (size, head)


async def test_a_stopped_writer_that_holds_the_head_does_not_stop_the_others(
    log: PostgresEventLog, database: Database
) -> None:
    """The head lock is held across a round trip only after a miss; then an idle holder is ended by the server."""
    options = "-c idle_in_transaction_session_timeout=500ms"
    holder = psycopg.connect(database.dsn("gateway"), options=options)
    holder.execute("SELECT * FROM log.log_lock_head(%s, 'gateway', 0, '{}')", (log.origin,))
    (receipt,) = await log.append([body(50)])
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        holder.execute("COMMIT")
    holder.close()
    assert (await log.get(receipt.id)) is not None


def _write(conninfo: str, writer: str, first: int, count: int) -> None:
    async def run() -> None:
        log = await PostgresEventLog(conninfo, writer=writer).open()
        for start in range(first, first + count, 10):
            await asyncio.gather(*(log.append([body(n)]) for n in range(start, start + 10)))
        await log.close()

    asyncio.run(run())


async def test_16_processes_that_append_at_once_make_one_gapless_chain(database: Database) -> None:
    """Five processes, 100 entries each, half of them the same as the next process's, on a log just made."""
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=_write, args=(database.dsn(login), f"w{number}", 50 * number, 100))
        for number, login in enumerate(("operator", "gateway", "operator", "gateway", "operator"))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        await asyncio.to_thread(writer.join, 120)
    assert [writer.exitcode for writer in writers] == [0] * 5
    log = await PostgresEventLog(database.dsn("verifier"), writer="verifier").open()
    verification = await log.verify_chain()
    assert verification.ok
    assert verification.count == 2 + 300
    assert len(await log.get_many([body(n).id for n in range(300)])) == 300
    await log.close()


async def test_16_of_two_leaders_the_older_is_refused_by_the_database(database: Database) -> None:
    old = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await old.begin_epoch()
    await old.append([body(1)])
    new = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await new.begin_epoch()
    outcomes = await asyncio.gather(
        *(old.append([body(n)]) for n in range(100, 120)),
        *(new.append([body(n)]) for n in range(200, 220)),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, Fenced) for outcome in outcomes[:20])
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes[20:])
    assert await new.get_many([body(n).id for n in range(100, 120)]) == {}
    assert (await new.verify_chain()).ok
    await old.close()
    await new.close()


async def test_16_another_login_cannot_fence_the_operator(database: Database) -> None:
    operator = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await operator.begin_epoch()
    intruder = await PostgresEventLog(database.dsn("gateway"), writer="operator").open()
    await intruder.begin_epoch()
    await intruder.begin_epoch()
    await operator.append([body(1)])
    await operator.check_epoch()
    await operator.close()
    await intruder.close()


async def test_a_database_that_is_gone_is_unavailable_and_one_that_is_back_is_used(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "RETRY_SECONDS", 0.5)
    database = new_database(own_postgres)
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    (first,) = await log.append([body(1)])
    reading = asyncio.create_task(anext(log.stream(after=first.seq)))
    await asyncio.sleep(0.2)
    own_postgres.embedded.kill()
    with pytest.raises(Unavailable):
        await log.append([body(2)])
    await own_postgres.embedded.start_async()
    (second,) = await log.append([body(2)])
    assert second.seq == first.seq + 1
    assert await log.append([body(1)]) == [first]
    assert (await asyncio.wait_for(reading, 20)).seq == second.seq
    assert (await log.verify_chain()).ok
    await log.close()
