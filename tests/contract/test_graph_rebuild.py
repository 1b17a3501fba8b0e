"""The graph is rebuilt while others append and apply, and in the end it is what the log says: every backend.

What makes it hard: a row or an edge that the log does not say can hide one that an entry, appended meanwhile, did say.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import orjson
import pytest
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.audit.digest import digest_of_json
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject, JsonObject
from triplane.controllers import rebuild
from triplane.controllers.rebuild import Rebuilder, compare
from triplane.domain.projection import LogEntry, project
from triplane.errors import BlobMissing
from triplane.ports import Edge, GraphChange, GraphStore, ResourceRecord

BEFORE, MEANWHILE = 120, 60


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


class Opens(Protocol):
    def __call__(self, request: pytest.FixtureRequest) -> AbstractAsyncContextManager[GraphStore]: ...


@dataclass
class Operator:
    """Appends, and applies what it appended; reads no clock, and never stops for a rebuild."""

    log: MemoryEventLog
    graph: GraphStore
    documents: dict[str, bytes]

    async def load(self, digest: str) -> bytes:
        await asyncio.sleep(0)
        if digest not in self.documents:
            raise BlobMissing(digest)
        return self.documents[digest]

    async def works(self, number: int) -> None:
        """One Task: observed, placed below others, every third one ends."""
        uid = f"t-{number}"
        spec: JsonObject = {"objective": f"work {number % 7}"}
        digest = digest_of_json(spec)
        self.documents[digest] = orjson.dumps(spec)
        subject = EventSubject("Task", "team", uid, uid, 1)
        placed = {"ownerUid": f"t-{number // 2}", "dependsOn": [f"t-{number // 3}", f"t-{max(0, number - 1)}"]}
        for type_, data in (("resource.observed", {"specDigest": digest}), ("task.placed", placed)):
            await self.says(type_, subject, data)
        if number % 3 == 0:
            await self.says("resource.gone", subject, {})

    async def says(self, type_: str, subject: EventSubject, data: JsonObject) -> None:
        body = EventBody(f"{type_}/{subject.uid}/1", type_, "graph/g-1", SYSTEM_ACTOR, subject, data)
        (receipt,) = await self.log.append([body])
        await asyncio.sleep(0)
        documents = {digest: orjson.loads(octets) for digest, octets in self.documents.items()}
        await self.graph.apply(project(LogEntry.of_body(body, receipt.seq), documents))


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")])
async def operator(request: pytest.FixtureRequest) -> AsyncIterator[Operator]:
    async with request.param(request) as graph:
        made = Operator(MemoryEventLog(), graph, {})
        for number in range(BEFORE):
            await made.works(number)
        yield made
        await made.log.close()


def forged(at: int) -> GraphChange:
    """What the log does not say, in the places of what Task ``at`` will bring."""
    uid = f"t-{at}"
    row = ResourceRecord(uid, "Task", "team", uid, 1, {}, {"objective": "forged"}, None, 3)
    edges = (Edge(f"t-{at // 2}", "owns", uid, 3, {"forged": True}), Edge(uid, "dependsOn", f"t-{at // 3}", 3))
    return GraphChange((row,), edges, ((uid, 3),))


async def rebuilt(operator: Operator, rebuilder: Rebuilder, *, forging: bool) -> None:
    """Rebuild, and work meanwhile; some of it while the first page is read, some while it is put in place."""
    if forging:
        for number in range(BEFORE, BEFORE + MEANWHILE):
            await operator.graph.apply(forged(number))
    begun = asyncio.Event()

    async def work() -> None:
        await begun.wait()
        for number in range(BEFORE, BEFORE + MEANWHILE):
            await operator.works(number)

    working = asyncio.create_task(work())
    half = asyncio.Event()

    def progress(done: int, size: int) -> None:
        begun.set()
        if done > size // 2:
            half.set()

    await rebuilder.put_in_place(operator.graph, progress)
    assert half.is_set()
    await asyncio.wait_for(working, 60)


async def differences(operator: Operator) -> list[str]:
    rebuilder = Rebuilder(operator.log, operator.graph, operator.load)
    return [str(item) for item in await compare(await rebuilder.rebuild(), operator.graph)]


async def test_a_graph_that_is_right_stays_so_while_it_is_rebuilt(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 30)
    await rebuilt(operator, Rebuilder(operator.log, operator.graph, operator.load), forging=False)
    assert await differences(operator) == []
    assert len(await operator.graph.list()) == BEFORE + MEANWHILE


class WholeWorkFirst(Rebuilder):
    """All that is done meanwhile is done before the first page: it finds its places taken."""

    operator: Operator

    async def _say(self, after: int, upto: int) -> "AsyncIterator[rebuild._Said]":
        first = after == -1
        async for said in super()._say(after, upto):
            if first:
                first = False
                for number in range(BEFORE, BEFORE + MEANWHILE):
                    await self.operator.works(number)
            yield said


async def test_what_a_forged_row_hid_is_there_in_the_end(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 30)
    for number in range(BEFORE, BEFORE + MEANWHILE):
        await operator.graph.apply(forged(number))
    rebuilder = WholeWorkFirst(operator.log, operator.graph, operator.load)
    rebuilder.operator = operator
    await rebuilder.put_in_place(operator.graph)
    assert await differences(operator) == []


async def test_without_a_second_look_what_a_forged_row_hid_would_be_lost(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(BEFORE, BEFORE + MEANWHILE):
        await operator.graph.apply(forged(number))

    class Hasty(WholeWorkFirst):
        async def _say(self, after: int, upto: int) -> "AsyncIterator[rebuild._Said]":
            if after == -1:
                async for said in super()._say(after, upto):
                    yield said

    rebuilder = Hasty(operator.log, operator.graph, operator.load)
    rebuilder.operator = operator
    await rebuilder.put_in_place(operator.graph)
    lost = await differences(operator)
    assert any("row missing" in item for item in lost)
    assert any("edge missing" in item for item in lost)


async def test_rebuilding_and_forging_at_once_leaves_what_the_log_says(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 30)
    await rebuilt(operator, Rebuilder(operator.log, operator.graph, operator.load), forging=True)
    assert await differences(operator) == []
