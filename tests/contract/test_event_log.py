"""The contract of ``EventLog``, on every backend that is shipped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.conformance.log import *  # noqa: F403
from triplane.conformance.logsubject import Backend, Opening, SteerableTime
from triplane.ports import EventLog


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    time, opened, shared = SteerableTime(), [], MemoryLog.create()

    async def open_log(writer: str) -> EventLog:
        opened.append(MemoryEventLog(shared, writer=writer, now=time))
        return opened[-1]

    yield Backend(open_log, time)
    for log in opened:
        await log.close()


@asynccontextmanager
async def _postgres(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    time, opened = SteerableTime(), []
    database = new_database(request.getfixturevalue("postgres_server"))

    async def open_log(writer: str) -> EventLog:
        opened.append(await PostgresEventLog(database.dsn("operator"), writer=writer, now=time).open())
        return opened[-1]

    yield Backend(open_log, time)
    for log in opened:
        await log.close()
    drop_database(database)


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")])
def opening(request: pytest.FixtureRequest) -> Opening:
    """What the suite of ``triplane.conformance`` asks for: each backend that is shipped."""
    return lambda: request.param(request)
