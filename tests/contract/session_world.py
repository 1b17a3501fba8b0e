"""The backends of ``SessionStore`` that its contract is tested on, and sessions in them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from tests.conftest import Database, drop_database, new_database

from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.sessionstore import PostgresSessionStore
from triplane.domain.session import Claim, Offer, Permit
from triplane.ports import SessionStore

SNAPSHOT = "sha256:" + "5" * 64


@dataclass
class Subject:
    """A store, the same store as another process sees it, and a way to let its clock run on."""

    store: SessionStore
    other: SessionStore
    elapse: Callable[[float], Awaitable[None]]


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


def offer(uid: str = "s1", *, task: str = "t1", graph: str = "g1", agent: str = "a1") -> Offer:
    return Offer(
        session_uid=uid,
        namespace="team",
        name=f"session-{uid}",
        task_uid=task,
        graph_uid=graph,
        agent_uid=agent,
        agent_name="agent",
        role="Producer",
        snapshot_digest=SNAPSHOT,
        work_order={"version": 1, "task": {"objective": "weigh 1.5 kg, ümlaut", "list": [1, None, True]}},
    )


def permit(uid: str = "s1", run: int = 1, counter: int = 1, revision: int = 0, seconds: float = 10) -> Permit:
    return Permit(
        session_uid=uid,
        run=run,
        counter=counter,
        snapshot_digest=SNAPSHOT,
        revocation_revision=revision,
        run_inputs={"findings": [f"of run {run}, counter {counter}"]},
        seconds=seconds,
    )


async def offered(store: SessionStore, uid: str = "s1") -> None:
    assert await store.offer(offer(uid))


async def permitted(store: SessionStore, uid: str = "s1", run: int = 1) -> None:
    revision = await store.revocation_revision()
    assert await store.permit(permit(uid, run, await store.next_permit_counter(uid, run), revision))


async def claimed(store: SessionStore, uid: str = "s1", run: int = 1, instance: str = "i1") -> Claim:
    if run == 1:
        await offered(store, uid)
    await permitted(store, uid, run)
    return await store.claim_run(uid, run, "runner", instance)
