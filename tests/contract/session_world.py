"""The backends of ``SessionStore`` that its contract is tested on, and their clocks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from tests.conftest import Database, drop_database, new_database

from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.sessionstore import PostgresSessionStore
from triplane.conformance.sessionsubject import Opening, Subject


class ManualClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    clock = ManualClock()
    store = MemorySessionStore(clock)

    async def elapse(seconds: float) -> None:
        clock.time += timedelta(seconds=seconds)

    yield Subject(store, store, elapse)


@asynccontextmanager
async def _postgres(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    database: Database = new_database(request.getfixturevalue("postgres_server"))
    operator = make_pool(database.dsn("operator"), name="operator")
    gateway = make_pool(database.dsn("gateway"), name="gateway")
    store, other = PostgresSessionStore(operator), PostgresSessionStore(gateway)
    try:
        await open_pool(operator)
        await open_pool(gateway)
        yield Subject(store, other, asyncio.sleep)
    finally:
        await store.close()
        await other.close()
        await operator.close()
        await gateway.close()
        drop_database(database)


BACKENDS = [pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")]


@pytest.fixture(params=BACKENDS)
def opening(request: pytest.FixtureRequest) -> Opening:
    """What the suites of ``triplane.conformance`` ask for: each backend that is shipped."""
    return lambda: request.param(request)
