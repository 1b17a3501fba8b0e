"""A commit whose outcome is unknown is looked up: the event is in the log once, and the caller gets its receipt."""

from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import Database, PostgresServer, new_database
from tests.contract.test_event_log import body
from triplane.adapters.postgres import appender, connection
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.errors import Unavailable

pytestmark = pytest.mark.faults

BEFORE, AFTER = "log.append.before_commit", "log.append.after_commit"


def _once(place: str, what: Callable[[], None]) -> tuple[Callable[[str], None], list[str]]:
    """A failpoint that does ``what`` at the first passage of ``place``, and the passages there were."""
    passed: list[str] = []

    def failpoint(name: str) -> None:
        passed.append(name)
        if name == place and passed.count(place) == 1:
            what()

    return failpoint, passed


async def test_a_reply_to_commit_that_is_lost_gives_the_first_receipt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        raise psycopg.OperationalError("the connection was cut after COMMIT was sent")

    failpoint, passed = _once(AFTER, cut)
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    try:
        size, _ = await log.head()
        monkeypatch.setattr(appender, "failpoint", failpoint)
        (receipt,) = await log.append([body(1)])
        assert passed == [BEFORE, AFTER], "the second look must find the entry, not append it again"
        assert receipt.seq == size
        assert await log.append([body(1)]) == [receipt]
        assert await log.head() == (size + 1, receipt.leaf_hash)
        assert (await log.verify_chain()).ok
    finally:
        await log.close()


async def test_a_backend_that_dies_in_the_middle_of_a_transaction_leaves_nothing_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate() -> None:
        with database.superuser() as superuser:
            ended = superuser.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE %s",
                ("%append",),
            ).fetchall()
        assert ended == [(True,)]

    failpoint, passed = _once(BEFORE, terminate)
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    try:
        size, _ = await log.head()
        monkeypatch.setattr(appender, "failpoint", failpoint)
        (receipt,) = await log.append([body(1)])
        assert passed == [BEFORE, BEFORE, AFTER], "the batch must be sealed and sent a second time"
        assert await log.head() == (size + 1, receipt.leaf_hash)
        assert (await log.verify_chain()).ok
    finally:
        await log.close()


async def test_a_log_that_could_not_be_opened_is_opened_when_the_server_is_there(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = new_database(own_postgres)
    log = PostgresEventLog(database.dsn("operator"), writer="operator")
    own_postgres.embedded.stop()
    with monkeypatch.context() as impatient:
        impatient.setattr(connection, "POOL_WAIT_SECONDS", 0.3)
        for _ in range(2):
            with pytest.raises(Unavailable, match="could not open the database: pool initialization incomplete"):
                await log.open()
    await own_postgres.embedded.start_async()
    await log.open()
    assert (await log.append([body(1)]))[0].id == body(1).id
    await log.close()
