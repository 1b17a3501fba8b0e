"""What the log costs, measured against plain Postgres on the same server with fsync on.

``python -m tests.bench.log`` prints one JSON object per figure: ``{name, value, unit, reference, ratio, repeat}``,
values and references per second, the median over ``repeat`` alternating measurements.
"""

import asyncio
import gc
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any

import psycopg

from tests.conftest import Database, drop_database, new_database, running_server
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.entry import event_id, prepare, seal_all
from triplane.audit.model import EventBody, EventSubject

WRITERS = 8
IN_FLIGHT = 1000
SECONDS = 3.0
REPEAT = 3
BODIES = 120_000
"""More than are appended in ``SECONDS``; running out fails the measurement."""

Figure = dict[str, Any]


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
        while time.perf_counter() < until:
            await once(number)
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(loop(number) for number in range(count)))
    return done / (time.perf_counter() - started)


async def appends(log: PostgresEventLog, writers: int) -> float:
    """Appends per second by ``writers`` closed loops. The bodies are made before, as the reference's rows are."""
    run = uuid.uuid4().hex[:8]
    bodies = iter([body(number, run) for number in range(BODIES)])
    gc.collect()
    gc.freeze()  # the collector need not walk the prepared bodies again and again
    try:
        return await closed_loops(writers, lambda _: log.append([next(bodies)]))
    finally:
        gc.unfreeze()


def sample(count: int) -> list[tuple[int, bytes, str]]:
    """Sealed entries for the plain references: (seq, octets, id)."""
    prepared = [prepare("localhost/bench", body(number, uuid.uuid4().hex[:8])) for number in range(count)]
    sealed = seal_all(prepared, 0, "0" * 64, "2026-01-01T00:00:00.000000Z")
    return [(n, entry.octets, one.id) for n, (one, entry) in enumerate(zip(prepared, sealed, strict=True))]


def make_plain_table(database: Database) -> None:
    """The octets under the same two unique indexes, without chain, projections or triggers."""
    with database.superuser() as admin:
        admin.execute("DROP TABLE IF EXISTS public.plain, public.plain_ids")
        admin.execute("CREATE TABLE public.plain (origin text, seq bigserial, octets bytea, PRIMARY KEY (origin, seq))")
        admin.execute("CREATE TABLE public.plain_ids (origin text, id text, PRIMARY KEY (origin, id))")


async def single_commits(database: Database) -> float:
    """Unchained single-row commits per second by 8 connections."""
    make_plain_table(database)
    rows = iter(sample(BODIES))
    dsn = database.dsn("superuser")
    connections = [await psycopg.AsyncConnection.connect(dsn, autocommit=True) for _ in range(WRITERS)]

    async def insert(number: int) -> None:
        _, octets, _ = next(rows)
        await connections[number].execute(
            "INSERT INTO public.plain (origin, octets) VALUES ('o', %b)", (octets,), prepare=True
        )

    try:
        return await closed_loops(WRITERS, insert)
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


async def verified(log: PostgresEventLog) -> float:
    """Entries verified per second, whole chain."""
    started = time.perf_counter()
    verification = await log.verify_chain()
    if not verification.ok:
        raise AssertionError(f"the benchmark's chain is broken: {verification.broken}")
    return verification.count / (time.perf_counter() - started)


def figure(name: str, values: Sequence[float], references: Sequence[float] = ()) -> Figure:
    """One line of ``build/bench.json``."""
    value = median(values)
    reference = median(references) if references else None
    return {
        "name": name,
        "value": round(value, 1),
        "unit": "1/s",
        "reference": None if reference is None else round(reference, 1),
        "ratio": None if reference is None else round(value / reference, 3),
        "repeat": len(values),
    }


async def measure(database: Database, repeat: int = REPEAT) -> list[Figure]:
    """All figures of the log."""
    log = await PostgresEventLog(database.dsn("operator"), writer="bench").open()
    try:
        singles, single_references, bulks, bulk_references, verifications = [], [], [], [], []
        for _ in range(repeat):  # alternating, so that a change of the machine's mood meets both
            single_references.append(await single_commits(database))
            singles.append(await appends(log, WRITERS))
            bulk_references.append(await copied(database))
            bulks.append(await appends(log, IN_FLIGHT))
            verifications.append(await verified(log))
        return [
            figure("log.append_vs_single_commit", singles, single_references),
            figure("log.append_vs_copy", bulks, bulk_references),
            figure("log.verify_per_second", verifications),
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
