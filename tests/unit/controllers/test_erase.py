"""An erasure that a crash broke off is ended, wherever it broke off; what was put again is left alone."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from tests.contract.session_world import ManualClock

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.controllers.erase import end_erasures, erase
from triplane.errors import BlobMissing


class Crash(BaseException):
    """Nobody handles it."""


@dataclass
class World:
    """A blob that belongs to two namespaces, stored an hour ago."""

    clock: ManualClock = field(default_factory=ManualClock)
    log: MemoryEventLog = field(default_factory=MemoryEventLog)

    def __post_init__(self) -> None:
        self.clock.time = datetime.now(UTC) - timedelta(hours=1)  # the memory log tells real time
        self.content = MemoryContentStore(clock=self.clock)
        self.sessions = MemorySessionStore(self.clock)

    async def put(self, *namespaces: str) -> str:
        digest = await self.content.store(b"personal")
        for namespace in namespaces:
            await self.sessions.own_blob(namespace, digest)
        return digest

    async def end(self) -> int:
        return await end_erasures(self.content, self.log, self.sessions)


@pytest.fixture
def world() -> World:
    return World()


async def crashes(*_: object, **__: object) -> None:
    raise Crash


async def broken_off(world: World, monkeypatch: pytest.MonkeyPatch, before: str = "disown_blob") -> str:
    digest = await world.put("team", "guests")
    with monkeypatch.context() as patched:
        patched.setattr(world.sessions if before == "disown_blob" else world.content, before, crashes)
        with pytest.raises(Crash):
            await erase(world.content, world.log, world.sessions, digest)
    assert await world.content.exists(digest)
    return digest


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("disown_blob", id="before the owners are forgotten"),
        pytest.param("delete", id="before the blob goes"),
    ],
)
@pytest.mark.parametrize(
    "again",
    [
        pytest.param(None, id="ended at once"),
        pytest.param("disown_blob", id="and the end before the owners are forgotten"),
        pytest.param("collect", id="and the end before the blob goes"),
    ],
)
async def test_a_crash_at_any_step_is_made_good(
    world: World, monkeypatch: pytest.MonkeyPatch, before: str, again: str | None
) -> None:
    digest = await broken_off(world, monkeypatch, before)
    if again is not None:
        with monkeypatch.context() as patched:
            patched.setattr(world.sessions if again == "disown_blob" else world.content, again, crashes)
            with pytest.raises(Crash):
                await world.end()
        assert await world.content.exists(digest)
    assert await world.end() == 1
    assert not await world.content.exists(digest)
    assert not await world.sessions.blob_owned(digest), "it would pass for lost"
    assert await world.end() == 0
    with pytest.raises(BlobMissing):
        await erase(world.content, world.log, world.sessions, digest)


async def test_what_was_put_again_stays_and_keeps_its_owner(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await broken_off(world, monkeypatch)
    world.clock.time += timedelta(hours=2)
    digest = await world.put("team")
    assert await world.end() == 0
    assert await world.content.exists(digest)
    assert await world.sessions.owns_blob("team", digest)


@pytest.mark.parametrize("late", ["disown_blob", "collect"])
async def test_what_is_put_again_while_the_erasure_is_being_ended_stays_and_keeps_its_owner(
    world: World, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    digest = await broken_off(world, monkeypatch)
    store = world.sessions if late == "disown_blob" else world.content
    step = getattr(store, late)

    async def put_then(*arguments: object, **named: object) -> object:
        world.clock.time += timedelta(hours=2)
        await world.put("new")
        return await step(*arguments, **named)

    monkeypatch.setattr(store, late, put_then)
    assert await world.end() == 0
    assert await world.content.exists(digest)
    assert await world.sessions.owns_blob("new", digest)


async def test_a_hold_delays_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await broken_off(world, monkeypatch)
    await world.content.hold(digest, "export", 60)
    assert await world.end() == 0
    assert await world.content.exists(digest)
    await world.content.release(digest, "export")
    assert await world.end() == 1


async def test_two_that_end_it_at_once_leave_no_owner_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await broken_off(world, monkeypatch)
    collect = world.content.collect

    async def another_first(name: str, *, before: datetime) -> bool:
        assert await collect(name, before=before)
        return await collect(name, before=before)

    monkeypatch.setattr(world.content, "collect", another_first)
    assert await world.end() == 0
    assert not await world.content.exists(digest)
    assert not await world.sessions.blob_owned(digest)
