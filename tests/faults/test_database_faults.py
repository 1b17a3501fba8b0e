"""The way to the database fails: replies lost, connections cut, silence, a full disk (rows 20–22)."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.e2e.api import Api
from tests.faults.installation import Installation
from tests.faults.rules import DropRequest, LoseReply
from tests.faults.smalldisk import small_disk_database
from tests.faults.tcpproxy import DatabaseProxy, statement
from tests.faults.work import UNDISTURBED, Work
from triplane.adapters.postgres.embedded import socket_folder
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.model import EventFilter
from triplane.errors import Unavailable

pytestmark = pytest.mark.faults

SMALL_MEGABYTES = 48
APPEND, LOCK, COMMIT = "log_append", "log_lock_head", "^COMMIT"


@pytest.fixture
def between(database: Database) -> Iterator[DatabaseProxy]:
    made = DatabaseProxy(database.server.embedded.socket, database.server.home / "proxy").start()
    yield made
    made.stop()


@asynccontextmanager
async def opened(database: Database, between: DatabaseProxy) -> AsyncIterator[PostgresEventLog]:
    """The operator's log, through the proxy."""
    dsn = make_conninfo(database.dsn("operator"), host=str(between.folder))
    log = await PostgresEventLog(dsn, writer="operator").open()
    try:
        yield log
    finally:
        await log.close()


async def test_a_commit_whose_reply_is_lost_on_the_wire_is_found_and_not_repeated(
    database: Database, between: DatabaseProxy
) -> None:
    async with opened(database, between) as log:
        size, _ = await log.head()
        # The first append takes the head's lock and commits by a statement of its own; the second does both in one.
        for number, pattern in ((1, f"{COMMIT}|{APPEND}"), (2, APPEND)):
            with between.rule(statement(pattern), LoseReply()) as rule:
                (receipt,) = await log.append([body(number)])
            assert len(rule.struck) == 1
            assert receipt.seq == size + number - 1
            assert await log.append([body(number)]) == [receipt]
        assert (await log.head())[0] == size + 2
        assert (await log.verify_chain()).ok


@pytest.mark.parametrize(
    ("pattern", "action"),
    [
        pytest.param(LOCK, LoseReply(), id="cut while it holds the head's lock"),
        pytest.param(f"{COMMIT}|{APPEND}", DropRequest(), id="cut before COMMIT arrives"),
    ],
)
async def test_a_transaction_that_was_cut_leaves_nothing_and_is_made_anew(
    database: Database, between: DatabaseProxy, pattern: str, action: LoseReply | DropRequest
) -> None:
    async with opened(database, between) as log:
        size, _ = await log.head()
        with between.rule(statement(pattern), action) as rule:
            (receipt,) = await log.append([body(1)])
        assert len(rule.struck) == 1
        assert receipt.seq == size
        assert (await log.head())[0] == size + 1
        assert (await log.verify_chain()).ok


async def test_a_server_that_falls_silent_costs_a_wait_and_no_entry(database: Database, between: DatabaseProxy) -> None:
    async with opened(database, between) as log:
        size, _ = await log.head()
        between.frozen = True
        try:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="could not append"):
                await log.append([body(1)])
            assert time.monotonic() - began < 30
        finally:
            between.frozen = False
        (receipt,) = await log.append([body(1)])
        assert receipt.seq == size, "the doubtful one must be there at most once"
        assert (await log.head())[0] == size + 1


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_was_acknowledged() -> None:
    with small_disk_database(SMALL_MEGABYTES) as database:
        log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
        try:
            receipts = [(await log.append([body(number)]))[0] for number in range(20)]
            _fill(database)
            refused: Unavailable | None = None
            number = len(receipts)
            while refused is None:
                assert number < 5000, "the disk is not full"
                try:
                    receipts.append((await log.append([body(number)]))[0])
                    number += 1
                except Unavailable as error:
                    refused = error
            assert "No space left on device" in str(refused), refused
            found = await log.query(EventFilter(types=frozenset({"resource.observed"})), limit=10_000)
            assert [item.seq for item in found] == [receipt.seq for receipt in receipts]
            assert (await log.verify_chain()).ok, "reading must go on while the disk is full"
            with database.superuser() as superuser:
                superuser.execute("DROP TABLE filler")
            receipts += await log.append([body(number)])
            assert [receipt.seq for receipt in receipts] == list(range(receipts[0].seq, receipts[0].seq + number + 1))
            assert (await log.verify_chain()).ok
        finally:
            await log.close()


def _fill(database: Database) -> None:
    """Take what is left of the small disk, down to the last page."""
    with database.superuser() as superuser:
        superuser.execute("CREATE TABLE filler (octets bytea STORAGE EXTERNAL)")
        for size in (1 << 20, 1 << 16, 1 << 13):
            with pytest.raises(psycopg.errors.DiskFull):
                for _ in range(10_000):
                    superuser.execute("INSERT INTO filler VALUES (%s)", (b"x" * size,))


# -- the whole installation ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database_proxy(installation: Installation) -> Iterator[DatabaseProxy]:
    """A proxy between the database and operator and gateway both."""
    settings = installation.settings
    made = DatabaseProxy(socket_folder(settings.pg), settings.run / "dbproxy").start()
    try:
        host = {"TRIPLANE_DATABASE_HOST": str(made.folder)}
        with installation.given("gateway", **host), installation.given("operator", **host):
            yield made
    finally:
        made.stop()


@pytest.mark.parametrize("nth", [pytest.param(n, id=f"from the {n}. commit on, three in a row") for n in (1, 9)])
def test_replies_to_commits_that_are_lost_during_a_task_do_not_show_in_the_end(
    installation: Installation, api: Api, database_proxy: DatabaseProxy, nth: int
) -> None:
    work = Work(installation, api, f"commits-{nth}", 0)
    work.settled()
    with database_proxy.rule(statement(f"{COMMIT}|{APPEND}"), LoseReply(), first=nth, times=3) as rule:
        work.apply()
        work.succeed()
    assert len(rule.struck) == 3
    sessions = api.list("AgentSession", work.namespace).json()["items"]
    for item in sessions:
        # A claim whose answer was lost is a lost run: nobody works on it, so its lease runs out.
        # And only what produced something has a statement about it.
        passing = ("run.lost", "attestation.recorded")
        types = [entry for entry in work.types(item["metadata"]["uid"]) if entry not in passing]
        assert (types[0], types[-2:], types.count("run.finished")) == (UNDISTURBED[0], UNDISTURBED[2:4], 1)
    assert len(sessions) == 2


def test_connections_cut_all_the_while_only_cost_time(
    installation: Installation, api: Api, database_proxy: DatabaseProxy
) -> None:
    work = Work(installation, api, "cut", 2)
    work.apply()
    for _ in range(6):
        time.sleep(0.4)
        database_proxy.cut()
    work.succeed()


def test_a_database_that_falls_silent_and_refuses_for_a_while_is_waited_for(
    installation: Installation, api: Api, database_proxy: DatabaseProxy
) -> None:
    work = Work(installation, api, "silent-database", 1)
    uid = work.begin()
    database_proxy.frozen = database_proxy.refusing = True
    try:
        time.sleep(6)
    finally:
        database_proxy.frozen = False
        database_proxy.cut()
        time.sleep(2)
        database_proxy.refusing = False
    work.succeed()
    assert work.types(uid) == UNDISTURBED
