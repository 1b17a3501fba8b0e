"""What following edges costs on Postgres: dense webs that are wide, and a chain that is deep."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import aclosing
from statistics import median

from tests.bench.figures import Figure, figure
from tests.conftest import Database, drop_database, new_database, running_server
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.domain.resourcegraph import Edge, GraphChange, ResourceRecord, Route

ENDS = int(os.environ.get("TRIPLANE_BENCH_GRAPH_ENDS", "10000"))
LARGE = ENDS * 10 // 3
"""Ends of the web of ten times as many edges as the chain."""
REPEAT = 3
PART = 10_000


def web(prefix: str, ends: int) -> Iterator[Edge]:
    """A binary tree of owns, each end dependent on the two before it, and a way back to the top: cycles everywhere."""
    for number in range(1, ends + 1):
        yield Edge(f"{prefix}-{(number - 1) // 2}", "owns", f"{prefix}-{number}", number)
        for earlier in range(max(0, number - 2), number):
            yield Edge(f"{prefix}-{number}", "dependsOn", f"{prefix}-{earlier}", number)


def chain(prefix: str, ends: int) -> Iterator[Edge]:
    """One after another."""
    return (
        Edge(f"{prefix}-{number - 1}", "derivedFrom", f"{prefix}-{number}", number) for number in range(1, ends + 1)
    )


SHAPES = {"web": (web, ENDS), "chain": (chain, ENDS), "large": (web, LARGE)}


async def _fill(store: PostgresGraphStore, prefix: str) -> int:
    """Returns how many edges there are."""
    shape, ends = SHAPES[prefix]
    labels = {"triplane.dev/graph": prefix}
    edges = tuple(shape(prefix, ends))
    records = tuple(
        ResourceRecord(f"{prefix}-{n}", "Task", "bench", f"{prefix}-{n}", 1, labels, {"objective": "x" * 200}, None, n)
        for n in range(ends + 1)
    )
    for at in range(0, len(edges), PART):
        await store.apply(GraphChange(records[at : at + PART], edges[at : at + PART]))
    return len(edges)


async def _seconds(store: PostgresGraphStore, prefix: str) -> float:
    ends = SHAPES[prefix][1]
    began = time.perf_counter()
    found = 0
    async with aclosing(store.traverse(f"{prefix}-0", Route(max_depth=ends, limit=ends + 1))) as hops:  # type: ignore[type-var]
        async for _ in hops:
            found += 1
    seconds = time.perf_counter() - began
    assert found == ends, f"{found} ends reached from {prefix}-0, not {ends}"
    return seconds


async def measure(database: Database) -> list[Figure]:
    """All shapes, alternating; each in a store that holds the others too."""
    pool = make_pool(database.dsn("operator"), name="bench")
    await open_pool(pool)
    try:
        store = PostgresGraphStore(pool)
        edges = {prefix: await _fill(store, prefix) for prefix in SHAPES}
        taken: dict[str, list[float]] = {prefix: [] for prefix in SHAPES}
        for _ in range(REPEAT):
            for prefix in SHAPES:
                taken[prefix].append(await _seconds(store, prefix))
    finally:
        await pool.close()
    web_of = f"s, web of {edges['web']:,} edges"
    return [
        figure("graph.traverse_10k_seconds", median(taken["web"]), web_of, repeat=REPEAT),
        figure("graph.traverse_10k_deep_seconds", median(taken["chain"]), "s, chain", repeat=REPEAT),
        figure(
            "graph.traverse_100k_seconds", median(taken["large"]), f"s, web of {edges['large']:,} edges", repeat=REPEAT
        ),
    ]


def figures() -> list[Figure]:
    """Start a server, measure, stop it."""
    with running_server() as server:
        database = new_database(server)
        try:
            return asyncio.run(measure(database))
        finally:
            drop_database(database)
