"""Traversal on the server: what it costs the caller, who may do it with which rights, and databases of before."""

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import psycopg
import pytest
from tests.conftest import Database

from triplane.adapters.postgres.connection import expected_revision, make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.adapters.postgres.migrate import run_migrations
from triplane.ports import Edge, GraphReader, Route


@asynccontextmanager
async def opened(database: Database, login: str = "operator") -> AsyncIterator[PostgresGraphStore]:
    pool = make_pool(database.dsn(login), name=login)
    try:
        await open_pool(pool)
        yield PostgresGraphStore(pool)
    finally:
        await pool.close()


async def count(graph: GraphReader, start: str, route: Route) -> int:
    found = 0
    async with aclosing(graph.traverse(start, route)) as hops:  # type: ignore[type-var]
        async for _ in hops:
            found += 1
    return found


async def test_the_memory_of_a_traversal_does_not_grow_with_the_graph(database: Database) -> None:
    async with opened(database) as store:
        peaks = []
        for size in (3_000, 30_000):
            for at in range(1, size + 1, 10_000):
                numbers = range(at, min(at + 10_000, size + 1))
                await store.link([Edge(f"{size}-{n // 3}", "owns", f"{size}-{n}", n, {"x": "y" * 50}) for n in numbers])
            tracemalloc.start()
            assert await count(store, f"{size}-0", Route(every=True)) == size
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000, f"{peaks} octets for 3,000 and 30,000 ends"


@pytest.mark.parametrize("login", ["operator", "gateway", "verifier"])
async def test_whoever_reads_the_graph_traverses_it_and_makes_no_tables(database: Database, login: str) -> None:
    async with opened(database) as writing:
        await writing.link([Edge("a", "owns", "b", 1), Edge("b", "owns", "a", 2)])
    async with opened(database, login) as store:
        assert await count(store, "a", Route(every=True)) == 2
    with psycopg.connect(database.dsn(login), autocommit=True) as connection:
        connection.execute("SELECT graph.walk_begin('a')")
        for statement in (
            "CREATE TEMPORARY TABLE mine ()",
            "INSERT INTO pg_temp.graph_walk (n, id, depth, leaf) VALUES (1, 'b', 0, false)",
            "SELECT graph.may_meet('a', '{}', '{}', 1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


async def test_a_database_of_before_answers_of_now_and_then(database: Database) -> None:
    """0011 over a graph that is there, by the migrator alone, who gives the right to make temporary tables."""
    with database.superuser() as admin:
        for name in ("walk_begin", "walk_on", "walk_page", "walk_rest", "may_meet"):
            admin.execute(f"DROP FUNCTION graph.{name}")
        admin.execute("DROP TABLE graph.new_resources, graph.new_edges, graph.new_gone")
        admin.execute("DROP INDEX graph.resources_by_place")
        admin.execute("CREATE INDEX resources_by_name ON graph.resources (kind, namespace, name)")
        admin.execute("ALTER INDEX graph.resources_by_labels SET (fastupdate = on)")
        admin.execute(f"REVOKE TEMPORARY ON DATABASE {database.name} FROM triplane_stores_owner")
        admin.execute("UPDATE public.schema_revision SET version_num = '0010'")
        admin.execute(
            "INSERT INTO graph.resources (uid, kind, namespace, name, generation, labels, spec, seq, gone)"
            " SELECT 'u' || n, 'Task', 'team', 't' || n, 1, '{}', '{}', n, false FROM generate_series(1, 20) n"
        )
        admin.execute("INSERT INTO graph.gone VALUES ('u3', 15)")
        admin.execute(
            "INSERT INTO graph.edges (source, kind, target, seq, data)"
            " SELECT 'u' || n, 'owns', 'u' || n + 1, n + 1, '{}' FROM generate_series(1, 19) n"
        )
    run_migrations(database.dsn("migrator"), "0011")
    with database.superuser() as admin:
        admin.execute("UPDATE public.schema_revision SET version_num = %s", (expected_revision(),))
    async with opened(database, "gateway") as store:
        assert await count(store, "u1", Route()) == 19
        assert await count(store.as_of(10), "u1", Route()) == 9
        assert len(await store.as_of(10).list()) == 10
        assert [record.uid for record in await store.as_of(15).list() if record.gone] == ["u3"]
        assert not [record.uid for record in await store.as_of(14).list() if record.gone]
