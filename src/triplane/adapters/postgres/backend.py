"""Postgres as a backend of the graph store: ``postgres:`` (``triplane.backends``). It lies in the log's database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.backends import GraphPlace
from triplane.errors import InvalidInput


@asynccontextmanager
async def graph(place: GraphPlace) -> AsyncIterator[PostgresGraphStore]:
    """On the process's own connections. Raises ``InvalidInput`` for a URL with anything behind the scheme."""
    if place.url != "postgres:":
        raise InvalidInput(f"{place.url!r}: write postgres: alone; the database is named by TRIPLANE_DATABASE_…")
    yield PostgresGraphStore(place.pool)
