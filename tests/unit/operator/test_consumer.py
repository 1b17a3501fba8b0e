"""The consumer: entries become keys, the cursor follows, an outage only interrupts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.objects import make

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.audit.model import EventBody, EventFilter, EventSubject, Recorded
from triplane.controllers.key import Key
from triplane.domain.session import EMPTY_OBJECT_DIGEST, Offer
from triplane.errors import Unavailable
from triplane.operator import consumer as consumer_module
from triplane.operator.consumer import Consumer
from triplane.operator.index import Index

UID = "11111111-1111-1111-1111-111111111111"
KEY = Key("AgentSession", "team", "s")


def finished(run: int, kind: str = "run.finished") -> EventBody:
    subject = EventSubject("AgentSession", "team", "s", UID)
    return EventBody(f"{kind}/{UID}/{run}", kind, f"graph/{UID}", "system", subject)


class World:
    def __init__(self) -> None:
        self.log = MemoryEventLog(MemoryLog.create(), writer="gateway")
        self.sessions = MemorySessionStore(SystemClock())
        self.index = Index()
        self.keys: list[Key] = []

    def consumer(self) -> Consumer:
        return Consumer(self.log, self.sessions, self.index, lambda key, delay: self.keys.append(key))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("SAVE_SECONDS", "RETRY_SECONDS", "BELL_SECONDS"):
        monkeypatch.setattr(consumer_module, name, 0.01)
    world = World()
    await world.log.begin_epoch()
    return world


@asynccontextmanager
async def running(consumer: Consumer) -> AsyncIterator[None]:
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_entry_about_a_run_enqueues_its_session_and_moves_the_cursor(world: World) -> None:
    async with running(world.consumer()):
        [receipt] = await world.log.append([finished(1)])
        await eventually(lambda: world.keys == [KEY])
        async with asyncio.timeout(5):
            while await world.sessions.cursor("operator") != receipt.seq:
                await asyncio.sleep(0.005)


async def test_a_restarted_consumer_goes_on_behind_the_cursor(world: World) -> None:
    await world.log.append([finished(1)])
    [receipt] = await world.log.append([finished(2)])
    await world.sessions.set_cursor("operator", receipt.seq)
    async with running(world.consumer()):
        await world.log.append([finished(3)])
        await eventually(lambda: bool(world.keys))
        await asyncio.sleep(0.05)
    assert world.keys == [KEY]


async def test_journal_segments_wake_nobody(world: World) -> None:
    async with running(world.consumer()):
        await world.log.append([finished(1, "run.recorded")])
        await asyncio.sleep(0.05)
    assert world.keys == []


async def test_an_outage_of_the_log_loses_no_entry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original, outages = world.log.stream, 0

    async def flaky(where: EventFilter, *, after: int) -> AsyncIterator[Recorded]:
        nonlocal outages
        async for recorded in original(where, after=after):
            yield recorded
            if outages < 2:
                outages += 1
                raise Unavailable("the log is away")

    monkeypatch.setattr(world.log, "stream", flaky)
    async with running(world.consumer()):
        for number in range(1, 6):
            await world.log.append([finished(number)])
        await eventually(lambda: len(world.keys) == 5)
        await asyncio.sleep(0.05)
    assert (outages, world.keys) == (2, [KEY] * 5)


OFFER = Offer(UID, "team", "s", "t", "g", "a", "agent", "Producer", EMPTY_OBJECT_DIGEST, {})
TASK = Key("Task", "team", "work")


def session() -> dict[str, Any]:
    return make("AgentSession", "s", uid=UID, spec={"taskRef": {"name": "work", "uid": "t"}})


async def test_the_task_of_a_wanted_session_is_enqueued(world: World) -> None:
    world.index.put(session())
    await world.sessions.offer(OFFER)
    assert await world.sessions.claim("runner", "one") is None
    async with running(world.consumer()):
        await eventually(lambda: TASK in world.keys)


async def test_a_session_that_stays_wanted_is_not_asked_for_at_every_ring(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "BELL_SECONDS", 5.0)
    world.index.put(session())
    await world.sessions.offer(OFFER)
    assert await world.sessions.claim("runner", "one") is None
    async with running(world.consumer()):
        await eventually(lambda: TASK in world.keys)
        for number in range(5):
            await world.sessions.offer(replace(OFFER, session_uid=f"other-{number}"))
            await asyncio.sleep(0.01)
    assert world.keys == [TASK]


async def test_a_violation_has_its_policy_summed_up_a_little_later(world: World) -> None:
    delays: list[tuple[Key, float]] = []
    heard = Consumer(world.log, world.sessions, world.index, lambda key, delay: delays.append((key, delay)))
    subject = EventSubject("Policy", "team", "p", UID, 1)
    body = EventBody(f"policy.violated/{UID}/1/abc", "policy.violated", "system", "system", subject)
    async with running(heard):
        await world.log.append([body])
        await eventually(lambda: bool(delays))
    assert delays == [(Key("Policy", "team", "p"), consumer_module.SUMMED_SECONDS)]
