"""What an append rests on in the server: that a commit which fails is heard of, and that an epoch begun is seen."""

import asyncio

import psycopg
import pytest
from tests.conftest import Database
from tests.contract.test_event_log import body

from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.exchange import execute_prepared, prepare
from triplane.errors import Fenced


@pytest.mark.parametrize("then_commit", [False, True], ids=["by itself", "with COMMIT"])
async def test_a_commit_that_fails_behind_a_good_answer_is_an_error(database: Database, then_commit: bool) -> None:
    connection = await psycopg.AsyncConnection.connect(database.dsn("superuser"), autocommit=True)
    await connection.execute("CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    await prepare(connection, b"late", b"INSERT INTO once VALUES (1) RETURNING true")
    sent: list[bool] = []
    assert await execute_prepared(connection, b"late", (), lambda: sent.append(True)) == b"\x01"
    if then_commit:
        await connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await execute_prepared(connection, b"late", (), lambda: sent.append(True), then_commit=then_commit)
    assert sent == [True, True]
    await connection.close()
    with database.superuser() as admin:
        assert admin.execute("SELECT count(*) FROM once").fetchone() == (1,)


async def test_a_writer_that_waited_for_the_head_is_fenced_whatever_isolation_the_server_is_set_to(
    database: Database,
) -> None:
    with database.superuser() as admin, database.superuser() as holder:
        admin.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = serializable")  # type: ignore[arg-type]
        log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
        await log.begin_epoch()
        await log.append([body(1)])
        holder.autocommit = False
        holder.execute("SELECT FROM log.heads FOR UPDATE")
        appending = asyncio.create_task(log.append([body(2)]))
        waiting = "SELECT FROM pg_stat_activity WHERE application_name LIKE '% append' AND wait_event_type = 'Lock'"
        async with asyncio.timeout(60):
            while admin.execute(waiting).fetchone() is None:
                assert not appending.done()
                await asyncio.sleep(0.05)
        holder.execute("UPDATE log.writers SET epoch = epoch + 1")  # a newer process
        holder.commit()
        with pytest.raises(Fenced):
            await appending
        assert await log.get(body(2).id) is None
        await log.close()
