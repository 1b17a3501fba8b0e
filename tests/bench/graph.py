"""What following ten thousand edges costs on Postgres: a dense web that is wide, and a chain that is deep."""

import asyncio
import time
from collections.abc import Iterator
from statistics import median

from tests.bench.figures import Figure, figure
from tests.conftest import Database, drop_database, new_database, running_server
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.domain.resourcegraph import Edge, GraphChange, ResourceRecord

ENDS = 10_000
REPEAT = 3


def web() -> Iterator[Edge]:
    """A binary tree of owns, each end dependent on the two before it, and a way back to the top: cycles everywhere."""
    for number in range(1, ENDS + 1):
        yield Edge(f"web-{(number - 1) // 2}", "owns", f"web-{number}", number)
        for earlier in range(max(0, number - 2), number):
            yield Edge(f"web-{number}", "dependsOn", f"web-{earlier}", number)


def chain() -> Iterator[Edge]:
    """One after another."""
    return (Edge(f"chain-{number - 1}", "derivedFrom", f"chain-{number}", number) for number in range(1, ENDS + 1))


def _records(prefix: str) -> tuple[ResourceRecord, ...]:
    labels = {"triplane.dev/graph": prefix}
    return tuple(
        ResourceRecord(f"{prefix}-{n}", "Task", "bench", f"{prefix}-{n}", 1, labels, {"objective": "x" * 200}, None, n)
        for n in range(ENDS + 1)
    )


async def _seconds(store: PostgresGraphStore, prefix: str) -> float:
    began = time.perf_counter()
    hops = await store.traverse(f"{prefix}-0", max_depth=ENDS, limit=ENDS + 1)
    seconds = time.perf_counter() - began
    assert len(hops) == ENDS, f"{len(hops)} ends reached from {prefix}-0, not {ENDS}"
    return seconds


async def measure(database: Database) -> list[Figure]:
    """Both shapes, alternating; each in a store that holds the other too."""
    pool = make_pool(database.dsn("operator"), name="bench")
    await open_pool(pool)
    try:
        store = PostgresGraphStore(pool)
        for prefix, edges in (("web", web()), ("chain", chain())):
            await store.apply(GraphChange(records=_records(prefix), edges=tuple(edges)))
        wide, deep = [], []
        for _ in range(REPEAT):
            wide.append(await _seconds(store, "web"))
            deep.append(await _seconds(store, "chain"))
    finally:
        await pool.close()
    return [
        figure("graph.traverse_10k_seconds", median(wide), "s, web of 30,000 edges", repeat=REPEAT),
        figure("graph.traverse_10k_deep_seconds", median(deep), "s, chain", repeat=REPEAT),
    ]


def figures() -> list[Figure]:
    """Start a server, measure, stop it."""
    with running_server() as server:
        database = new_database(server)
        try:
            return asyncio.run(measure(database))
        finally:
            drop_database(database)
