"""Rows 1 and 15 of the attack table with one layer of the protection removed after the other."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql
from tests.attacks.test_log_tampering import TABLES, first_break
from tests.attacks.test_log_tampering import as_superuser as as_superuser_without_triggers
from tests.conftest import Database
from tests.contract.test_event_log import body

from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.roles import role_name
from triplane.audit.chain import ChainVerifier, StoredEntry, projections
from triplane.audit.entry import open_entry
from triplane.audit.model import EventFilter

pytestmark = pytest.mark.attacks


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresEventLog]:
    opened = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await opened.append([body(number) for number in range(4)])
    yield opened
    await opened.close()


async def test_1_without_projections_compared_a_query_lies_and_every_hash_holds(
    log: PostgresEventLog, database: Database
) -> None:
    (receipt,) = await log.append([body(1)])
    as_superuser_without_triggers(database, f"UPDATE log.entries SET kind = 'Node' WHERE seq = {receipt.seq}")
    assert [recorded.seq for recorded in await log.query(EventFilter(kind="Node"))] == [receipt.seq]
    hashes_only = ChainVerifier(log.origin)
    for recorded in await log.query():
        opened = open_entry(recorded.octets)
        told = StoredEntry(
            recorded.seq,
            recorded.octets,
            bytes.fromhex(recorded.leaf_hash),
            projections(opened.entry),  # made of the octets, not read from the columns
            (recorded.seq, opened.body_sha256),
        )
        assert hashes_only.feed(told)
    assert hashes_only.result().ok
    found = await first_break(log)
    assert (found.seq, found.reason) == (receipt.seq, "ProjectionMismatch")
    assert f"entry {receipt.seq}: the column kind holds 'Node', the octets say 'Task'" in found.message
    assert "restore the column" in found.remedy


CHANGES = [
    pytest.param("UPDATE log.entries SET octets = octets || ' ' WHERE seq = 3", 3, "LeafHashMismatch", id="UPDATE"),
    pytest.param("DELETE FROM log.entries WHERE seq = 3", 3, "EntryMissing", id="DELETE"),
    pytest.param("TRUNCATE log.entries", 0, "EntryMissing", id="TRUNCATE"),
]


@pytest.mark.parametrize(("statement", "seq", "reason"), CHANGES)
async def test_15_a_login_is_stopped_by_its_rights_then_by_triggers_and_then_only_found_out(
    log: PostgresEventLog, database: Database, statement: str, seq: int, reason: str
) -> None:
    def attack() -> None:
        with psycopg.connect(database.dsn("operator"), autocommit=True) as operator:
            operator.execute(statement)  # type: ignore[arg-type]

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table entries"):
        attack()
    with database.superuser() as admin:  # the first layer removed: rights
        granted = sql.SQL("GRANT UPDATE, DELETE, TRUNCATE, SELECT ON {} TO {}")
        for table in TABLES:
            admin.execute(granted.format(sql.Identifier("log", table), sql.Identifier(role_name("operator"))))
    with pytest.raises(psycopg.Error, match=r"on log\.entries\w* refused: the log is append-only"):
        attack()
    assert (await log.verify_chain()).ok
    as_superuser_without_triggers(database)  # the second
    attack()
    found = await first_break(log)
    assert (found.seq, found.reason) == (seq, reason)
    assert str(seq) in found.message
    assert "restore the log from a backup that verifies" in found.remedy
