"""What a large log costs: it is filled once by real appends, and everything is measured on it.

``BENCH_LOG_ENTRIES`` (default 1,000,000) is its size; ``BENCH_LOG_SMALL`` (10,000) that of the log whose memory the
large one's is held against.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import psycopg

from tests.bench.figures import Figure, figure
from tests.bench.log import body
from tests.conftest import Database, drop_database, new_database, running_server
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.merkle import Node, inclusion_plan, tree_root, verify_inclusion
from triplane.audit.model import EventFilter
from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import Given, tile_roots

ENTRIES: Final = int(os.environ.get("BENCH_LOG_ENTRIES", "1000000"))
SMALL: Final = int(os.environ.get("BENCH_LOG_SMALL", "10000"))
PROCESSES: Final = 2
REPEAT: Final = 3
WRITERS: Final = 4
BATCH: Final = 256
PROOF_SECONDS: Final = 3.0
QUERIES: Final = 1000
RUN: Final = "large"
_PEAK: Final = "import sys; from tests.bench.largelog import peak; peak(sys.argv[1])"


async def fill(log: PostgresEventLog, first: int, count: int) -> float:
    """Append ``count`` entries, several calls at a time; seconds."""
    starts = iter(range(first, first + count, BATCH))
    taken = 0.0

    async def write() -> None:
        for start in starts:
            await log.append([body(number, RUN) for number in range(start, min(start + BATCH, first + count))])

    taken = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return time.perf_counter() - taken


def selected(database: Database) -> float:
    """Octets of all entries, in order, by a bare SELECT: entries a second."""
    count, begun = 0, time.perf_counter()
    with (
        psycopg.connect(database.dsn("verifier"), autocommit=True) as connection,
        connection.transaction(),
        connection.cursor("plain", binary=True) as cursor,
    ):
        cursor.execute("SELECT octets FROM log.entries WHERE origin = %s ORDER BY seq", (database.origin,))
        while rows := cursor.fetchmany(2000):
            count += len(rows)
    return count / (time.perf_counter() - begun)


async def verified(log: PostgresEventLog) -> float:
    """Entries verified a second, everything checked, with two worker processes."""
    begun = time.perf_counter()
    found = await log.verify_chain(given=Given(processes=PROCESSES))
    if not found.ok:
        raise AssertionError(f"the benchmark's chain is broken: {found.broken}")
    return found.count / (time.perf_counter() - begun)


def peak(conninfo: str) -> None:
    """Verify, and print the memory that this process and its workers had at most, in KiB."""

    async def run() -> None:
        log = await PostgresEventLog(conninfo, writer="verifier").open()
        found = await log.verify_chain(given=Given(processes=PROCESSES))
        assert found.ok
        await log.close()

    import resource

    asyncio.run(run())
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps(own.ru_maxrss + PROCESSES * workers.ru_maxrss))


def memory(database: Database) -> float:
    """MiB that a verification takes at most, workers included."""
    command = [sys.executable, "-c", _PEAK, database.dsn("verifier")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ})
    return float(json.loads(done.stdout)) / 1024


async def proofs(database: Database, store: PostgresCheckpointStore, size: int) -> float:
    """Inclusion proofs made from the store and checked, a second, of entries anywhere in the log."""
    with psycopg.connect(database.dsn("verifier")) as connection:
        leaves = [row[0] for row in connection.execute("SELECT leaf FROM log.entries ORDER BY seq")]
    level, hashes = 8, tile_roots(leaves)
    while hashes:  # as the notary keeps them
        for at in range(0, len(hashes), 1000):
            await store.keep([(Node(level, at + index), one) for index, one in enumerate(hashes[at : at + 1000])])
        level, hashes = level + 8, tile_roots(hashes)
    root = tree_root(size, lambda nodes: [_subtree(leaves, node) for node in nodes])
    rng, made = random.Random(7), 0
    until = time.perf_counter() + PROOF_SECONDS

    async def prove() -> None:
        nonlocal made
        while time.perf_counter() < until:
            index = rng.randrange(size)
            plan = inclusion_plan(index, size)
            verify_inclusion(index, size, leaves[index], plan.fold(await store.hashes(plan.nodes)), root)
            made += 1

    await asyncio.gather(*(prove() for _ in range(WRITERS)))
    return made / PROOF_SECONDS


def _subtree(leaves: Sequence[bytes], node: Node) -> bytes:
    from triplane.audit.merkle import subtree_root

    return subtree_root(leaves[node.index << node.level : (node.index + 1) << node.level])


async def queries(log: PostgresEventLog, size: int) -> tuple[float, float]:
    """99th percentile of the queries that the system itself asks, and the time of one that no index helps; seconds."""
    rng = random.Random(11)
    types = frozenset({"run.recorded", "run.ended"})

    def uid() -> str:
        return f"{RUN}-{rng.randrange(size - WIDTH)}"

    shapes: tuple[Callable[[], Awaitable[Any]], ...] = (
        lambda: log.query(EventFilter(uid=uid())),
        lambda: log.query(EventFilter(uids=frozenset(uid() for _ in range(20)))),
        lambda: log.query(EventFilter(types=types), after=rng.randrange(size), limit=100),
        lambda: log.query(EventFilter(namespace="demo"), limit=50, newest_first=True),
        lambda: log.get_many([f"run.recorded/{one}/1/{one.rpartition('-')[2]}" for one in (uid() for _ in range(10))]),
    )
    taken = []
    for number in range(QUERIES):
        begun = time.perf_counter()
        await shapes[number % len(shapes)]()
        taken.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    await log.query(EventFilter(name="nobody"), limit=1)
    return quantiles(taken, n=100)[98], time.perf_counter() - begun


async def measure(database: Database) -> list[Figure]:
    """All figures of the large log."""
    log = await PostgresEventLog(database.dsn("operator"), writer="bench").open()
    pool = make_pool(database.dsn("operator"), name="bench")
    await open_pool(pool)
    try:
        await fill(log, 0, SMALL)
        small = await asyncio.to_thread(memory, database)
        tenth = ENTRIES // 10
        head = tenth / await fill(log, SMALL, tenth)
        await fill(log, SMALL + tenth, max(ENTRIES - 2 * tenth - SMALL, 0))
        tail = tenth / await fill(log, ENTRIES - tenth, tenth)
        size, _ = await log.head()
        large = await asyncio.to_thread(memory, database)
        selects, verifications = [], []
        for _ in range(REPEAT):  # alternating, so that a change of the machine's mood meets both
            selects.append(await asyncio.to_thread(selected, database))
            verifications.append(await verified(log))
        p99, scan = await queries(log, size)
        made = await proofs(database, PostgresCheckpointStore(pool, log.origin), size)
        return [
            figure("log.tail_vs_head", tail, "1/s", repeat=1, reference=head, entries=size),
            figure(
                "log.verify_vs_select",
                median(verifications),
                "1/s",
                repeat=REPEAT,
                reference=median(selects),
                entries=size,
            ),
            figure("log.verify_rss_mib", large, "MiB", repeat=1, reference=small, entries=size),
            figure("query.p99_seconds", p99, "s", repeat=QUERIES, entries=size),
            figure("query.scan_seconds", scan, "s", repeat=1, entries=size),
            figure("proof.per_second", made, "1/s", repeat=1, entries=size),
        ]
    finally:
        await pool.close()
        await log.close()


def figures() -> list[Figure]:
    """Start a server, fill, measure, stop it."""
    with running_server() as server:
        database = new_database(server)
        try:
            return asyncio.run(measure(database))
        finally:
            drop_database(database)


if __name__ == "__main__":
    for line in figures():
        print(json.dumps(line))
