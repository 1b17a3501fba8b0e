"""What appending costs, measured against plain Postgres on the same server with fsync on.

``python -m tests.bench.log`` prints one JSON object per figure: ``{name, value, unit, reference, ratio, repeat}``,
values and references per second, the median over ``repeat`` alternating measurements. About a minute;
``TRIPLANE_BENCH_SECONDS`` (3 per measurement) and ``TRIPLANE_BENCH_REPEAT`` (3) make it shorter.
"""

import asyncio
import gc
import json
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

import psycopg

from tests.bench import figures
from tests.bench.figures import Figure
from tests.conftest import Database, drop_database, new_database, running_server
from triplane import processmemory
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.entry import event_id, prepare, seal_all
from triplane.audit.model import EventBody, EventSubject

WRITERS = (1, 8, 64)
IN_FLIGHT = 1000
SECONDS = float(os.environ.get("TRIPLANE_BENCH_SECONDS", "2"))
REPEAT = int(os.environ.get("TRIPLANE_BENCH_REPEAT", "3"))
MOST_PER_SECOND = 60_000
"""More than are appended or copied; running out ends a measurement early."""
BODIES = int(SECONDS * MOST_PER_SECOND)


def body(number: int, run: str) -> EventBody:
    """An entry of ordinary size (about 700 octets)."""
    uid = f"{run}-{number}"
    return EventBody(
        id=event_id("run.recorded", uid, 1, str(number)),
        type="run.recorded",
        stream="graph/3f0c9a6e-0000-4000-8000-000000000001",
        actor="p-0123456789abcdef",
        subject=EventSubject(
            kind="AgentSession",
            namespace="demo",
            name=f"audit-producer-{number}",
            uid=uid,
            generation=1,
            labels=(("triplane.dev/graph", "audit"), ("triplane.dev/node", "report")),
        ),
        data={"run": 1, "sequence": number, "records": 12, "digest": "sha256:" + "ab" * 32},
        blobs=("sha256:" + "ab" * 32,),
    )


async def closed_loops(count: int, once: Callable[[int], Awaitable[object]], seconds: float = SECONDS) -> float:
    """Completed calls per second of ``count`` loops that each wait for their answer."""
    done = 0
    until = time.perf_counter() + seconds

    async def loop(number: int) -> None:
        nonlocal done
        try:
            while time.perf_counter() < until:
                await once(number)
                done += 1
        except StopAsyncIteration:
            return

    started = time.perf_counter()
    await asyncio.gather(*(loop(number) for number in range(count)))
    return done / (time.perf_counter() - started)


@contextmanager
def made_before() -> Iterator[list[EventBody]]:
    """New bodies, as the references' rows are made before the time counts. The collector need not walk them."""
    run = uuid.uuid4().hex[:8]
    bodies = [body(number, run) for number in range(BODIES)]
    gc.collect()
    gc.freeze()
    try:
        yield bodies
    finally:
        gc.unfreeze()


async def appends(log: PostgresEventLog, writers: int) -> float:
    """Appends per second by ``writers`` closed loops."""
    with made_before() as bodies:
        supply = iter(bodies)

        async def once(_: int) -> None:
            for one in supply:
                await log.append([one])
                return
            raise StopAsyncIteration

        return await closed_loops(writers, once)


async def latencies(log: PostgresEventLog, rate: float) -> list[float]:
    """Seconds from when each append was due, at ``rate`` appends per second that wait for nobody. Half load is half of
    what the most writers that do wait for their answers reach."""
    taken: list[float] = []
    with made_before() as bodies:

        async def once(one: EventBody, due: float) -> None:
            await log.append([one])
            taken.append(time.perf_counter() - due)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(bodies[: int(rate * SECONDS)]):
                due = began + number / rate
                if (ahead := due - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead)
                group.create_task(once(one, due))
    return taken


def sample(count: int) -> list[tuple[int, bytes, str]]:
    """Sealed entries for the plain references: (seq, octets, id)."""
    prepared = [prepare("localhost/bench", body(number, uuid.uuid4().hex[:8])) for number in range(count)]
    sealed = seal_all(prepared, 0, "0" * 64, "2026-01-01T00:00:00.000000Z")
    return [(n, entry.octets, one.id) for n, (one, entry) in enumerate(zip(prepared, sealed, strict=True))]


def make_server_settled(database: Database) -> None:
    """Let it have its WAL segments, as a server has that has run for a while: a new one is 16 MiB of zeros first, a
    pause of some 70 ms for whoever commits then. Checkpoints reuse the old ones."""
    with database.superuser() as admin:
        admin.execute("ALTER SYSTEM SET min_wal_size = '1GB'")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("CREATE TABLE public.filler AS SELECT repeat('x', 1000) FROM generate_series(1, 600000)")
        admin.execute("DROP TABLE public.filler")
        for _ in range(2):
            admin.execute("SELECT pg_switch_wal()")
            admin.execute("CHECKPOINT")


def make_plain_table(database: Database) -> None:
    """The octets under the same two unique indexes, without chain, projections or triggers."""
    with database.superuser() as admin:
        admin.execute("DROP TABLE IF EXISTS public.plain, public.plain_ids")
        admin.execute("CREATE TABLE public.plain (origin text, seq bigserial, octets bytea, PRIMARY KEY (origin, seq))")
        admin.execute("CREATE TABLE public.plain_ids (origin text, id text, PRIMARY KEY (origin, id))")


async def single_commits(database: Database, writers: int) -> tuple[float, float]:
    """Unchained single-row commits per second by so many connections, and the seconds that the middle one took."""
    make_plain_table(database)
    rows = iter(sample(BODIES))
    dsn = database.dsn("superuser")
    connections = [await psycopg.AsyncConnection.connect(dsn, autocommit=True) for _ in range(writers)]
    taken: list[float] = []

    async def insert(number: int) -> None:
        for _, octets, _ in rows:
            began = time.perf_counter()
            await connections[number].execute(
                "INSERT INTO public.plain (origin, octets) VALUES ('o', %b)", (octets,), prepare=True
            )
            taken.append(time.perf_counter() - began)
            return
        raise StopAsyncIteration

    try:
        return await closed_loops(writers, insert), median(taken)
    finally:
        for connection in connections:
            await connection.close()


async def copied(database: Database, batch: int = 256) -> float:
    """Rows per second by plain COPY in the sequencer's batch size, one commit per batch, both unique indexes."""
    make_plain_table(database)
    rows = sample(BODIES)
    done = 0
    dsn = database.dsn("superuser")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        started = time.perf_counter()
        while time.perf_counter() - started < SECONDS and done + batch <= len(rows):
            part = rows[done : done + batch]
            async with connection.transaction():
                await _copy(
                    connection,
                    "COPY public.plain FROM STDIN (FORMAT BINARY)",
                    "text int8 bytea",
                    [("o", seq, octets) for seq, octets, _ in part],
                )
                await _copy(
                    connection,
                    "COPY public.plain_ids FROM STDIN (FORMAT BINARY)",
                    "text text",
                    [("o", one) for _, _, one in part],
                )
            done += batch
        return done / (time.perf_counter() - started)


async def _copy(connection: psycopg.AsyncConnection[Any], statement: str, types: str, rows: Sequence[Any]) -> None:
    cursor = connection.cursor()
    async with cursor.copy(statement) as copy:
        copy.set_types(types.split())
        for row in rows:
            await copy.write_row(row)


def figure(name: str, values: Sequence[float], references: Sequence[float] = (), unit: str = "1/s") -> Figure:
    """The medians, as one line of ``build/bench.json``."""
    reference = median(references) if references else None
    return figures.figure(name, median(values), unit, repeat=len(values), reference=reference)


async def measure(database: Database, repeat: int = REPEAT) -> list[Figure]:
    """All figures of appending. Whatever was appended must verify."""
    make_server_settled(database)
    log = await PostgresEventLog(database.dsn("operator"), writer="bench").open()
    processmemory.settle()  # as every process that appends does
    ours: dict[int, list[float]] = {writers: [] for writers in (*WRITERS, IN_FLIGHT)}
    plain: dict[int, list[float]] = {writers: [] for writers in (*WRITERS, IN_FLIGHT)}
    late: list[float] = []
    commits: list[float] = []
    try:
        for _ in range(repeat):  # alternating, so that a change of the machine's mood meets both
            for writers in WRITERS:
                rate, commit = await single_commits(database, writers)
                plain[writers].append(rate)
                ours[writers].append(await appends(log, writers))
                if writers == 1:
                    commits.append(commit)
            plain[IN_FLIGHT].append(await copied(database))
            ours[IN_FLIGHT].append(await appends(log, IN_FLIGHT))
            make_server_settled(database)  # what follows is half load, not what full load left to be written
            late.append(quantiles(await latencies(log, ours[WRITERS[-1]][-1] / 2), n=100)[98])
        verification = await log.verify_chain()
        if not verification.ok:
            raise AssertionError(f"the benchmark's chain is broken: {verification.broken}")
        return [
            *(figure(f"log.append_vs_single_commit_{n}", ours[n], plain[n]) for n in WRITERS),
            figure("log.append_vs_copy", ours[IN_FLIGHT], plain[IN_FLIGHT]),
            figure("log.append_p99_vs_commit", late, commits, "s"),
        ]
    finally:
        await log.close()


def run() -> list[Figure]:
    """Start a server, measure, stop it."""
    with running_server() as server:
        database = new_database(server)
        try:
            return asyncio.run(measure(database))
        finally:
            drop_database(database)


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
