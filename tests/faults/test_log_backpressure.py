"""A database that does not answer while everybody goes on appending: what waits is bounded, and nobody is told of an
entry that is not there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.faults.tcpproxy import DatabaseProxy
from triplane.adapters.postgres import appender, sequencer
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.model import Receipt
from triplane.errors import Unavailable

pytestmark = pytest.mark.faults

CALLERS = 3000
QUEUE = 300


@pytest.fixture
def between(database: Database) -> Iterator[DatabaseProxy]:
    made = DatabaseProxy(database.server.embedded.socket, database.server.home / "proxy").start()
    yield made
    made.stop()


@asynccontextmanager
async def opened(database: Database, between: DatabaseProxy) -> AsyncIterator[PostgresEventLog]:
    dsn = make_conninfo(database.dsn("operator"), host=str(between.folder))
    log = await PostgresEventLog(dsn, writer="operator").open()
    try:
        yield log
    finally:
        await log.close()


async def acknowledged_once(log: PostgresEventLog, outcomes: list[list[Receipt] | BaseException]) -> int:
    """How many were; each of them is in the log, once, under the number that its receipt names."""
    numbers = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, list)]
    found = await log.get_many([body(number).id for number in numbers])
    for number in numbers:
        outcome = outcomes[number]
        assert isinstance(outcome, list)
        assert found[body(number).id].seq == outcome[0].seq
    verification = await log.verify_chain()
    assert verification.ok, verification.broken
    return len(numbers)


async def test_callers_wait_their_turn_and_what_waits_is_bounded(
    database: Database, between: DatabaseProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "LARGEST_QUEUE", QUEUE)
    monkeypatch.setattr(appender, "RETRY_SECONDS", 60.0)
    async with opened(database, between) as log:
        await log.append([body(CALLERS)])
        between.frozen = True
        calls = [asyncio.create_task(log.append([body(number)])) for number in range(CALLERS)]
        try:
            for _ in range(20):
                await asyncio.sleep(0.05)
                assert log.load.queued_entries <= QUEUE
                assert log.load.queued_octets <= QUEUE * 1024
            assert log.load.outside == CALLERS - log.load.queued_entries, "the others have encoded nothing yet"
            assert not any(call.done() for call in calls), "nothing may be acknowledged that is not durable"
        finally:
            between.frozen = False
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert await acknowledged_once(log, outcomes) == CALLERS
        assert (log.load.queued_entries, log.load.queued_octets, log.load.outside) == (0, 0, 0)


async def test_whose_patience_ends_is_told_so_and_the_log_goes_on_afterwards(
    database: Database, between: DatabaseProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "LARGEST_QUEUE", QUEUE)
    monkeypatch.setattr(sequencer, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(appender, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(appender, "TRANSACTION_SECONDS", 1.0)
    async with opened(database, between) as log:
        await log.append([body(CALLERS)])
        between.frozen = True
        try:
            outcomes = await asyncio.gather(
                *(log.append([body(number)]) for number in range(CALLERS)), return_exceptions=True
            )
        finally:
            between.frozen = False
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        unsent = [outcome for outcome in outcomes if "Nothing was appended" in str(outcome)]
        assert len(unsent) >= CALLERS - QUEUE
        # Of what was sent nobody knows; again gives the one receipt, whether or not it was appended the first time.
        again = await asyncio.gather(*(log.append([body(number)]) for number in range(100)), return_exceptions=True)
        assert await acknowledged_once(log, again) == 100
        assert log.load.refused == len(unsent)
