"""The contract of ``GraphStore``, on every backend that is shipped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.conformance.graph import *  # noqa: F403
from triplane.conformance.graph import Opening
from triplane.ports import GraphStore


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[GraphStore]:
    yield MemoryGraphStore()


@asynccontextmanager
async def _postgres(request: pytest.FixtureRequest) -> AsyncIterator[GraphStore]:
    database = new_database(request.getfixturevalue("postgres_server"))
    pool = make_pool(database.dsn("operator"), name="operator")
    try:
        await open_pool(pool)
        yield PostgresGraphStore(pool)
    finally:
        await pool.close()
        drop_database(database)


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")])
def opening(request: pytest.FixtureRequest) -> Opening:
    """What the suite of ``triplane.conformance`` asks for: each backend that is shipped."""
    return lambda: request.param(request)
