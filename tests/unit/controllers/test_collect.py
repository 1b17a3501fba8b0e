"""The collector over memory stores: what goes, what stays, what is said, and that failure loses nothing."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from tests.contract.session_world import ManualClock

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.audit.digest import digest_of_bytes
from triplane.conformance.sessionsubject import offer
from triplane.conformance.sessionsubject import permit as permit_of
from triplane.controllers.collect import Collected, Collector
from triplane.domain.collection import Kept, Rules
from triplane.domain.events import blob_erased, principal_created
from triplane.errors import Conflict, InvalidInput, TriplaneError, Unavailable
from triplane.ports import ResourceRecord

RULES = Rules()


@dataclass
class World:
    clock: ManualClock
    content: MemoryContentStore
    log: MemoryEventLog
    sessions: MemorySessionStore
    graph: MemoryGraphStore

    def collector(self, rules: Rules = RULES, **instead: Any) -> Collector:
        parts: dict[str, Any] = {"log": self.log, "sessions": self.sessions, "graph": self.graph, **instead}
        return Collector(self.content, parts["log"], parts["sessions"], parts["graph"], rules)

    async def collect(self, rules: Rules = RULES) -> Collected:
        return await self.collector(rules).run()

    def age(self, days: float = 8) -> None:
        self.clock.time += timedelta(days=days)

    async def there(self) -> set[str]:
        return {digest async for digest in self.content.list_digests()}


@pytest.fixture
def world() -> World:
    clock = ManualClock()
    return World(
        clock, MemoryContentStore(clock=clock), MemoryEventLog(), MemorySessionStore(clock), MemoryGraphStore()
    )


async def test_from_the_store_of_another_log_nothing_is_collected(world: World) -> None:
    """Two installations on one bucket: each would take what only the other needs."""
    needed_by_other = await world.content.store(b"needed by the other")
    await world.content.owner("localhost/other")
    world.age()
    with pytest.raises(InvalidInput, match="belongs to the log localhost/other, not to"):
        await world.collect()
    assert await world.there() == {needed_by_other}


async def test_what_nothing_names_goes_and_the_log_says_what(world: World) -> None:
    waste = sorted([await world.content.store(b"waste"), await world.content.store(b"more waste")])
    document = await world.content.store(b"needed")
    await world.log.append([principal_created("p-1", b"needed")])
    world.age()
    done = await world.collect()
    assert (done.seen, done.condemned, done.removed, done.octets, done.refused) == (3, 2, 2, 15, "")
    assert done.kept[Kept.REFERENCED] == 1
    [said] = [entry for entry in await world.log.query() if entry.entry["type"] == "blob.collected"]
    assert said.entry["data"] == {"count": 2, "octets": 15}
    [manifest] = said.entry["blobs"]
    octets = b"".join([chunk async for chunk in world.content.resolve(manifest)])
    assert orjson.loads(octets)["digests"] == waste
    assert await world.there() == {document, manifest}


async def test_the_next_run_removes_nothing_more(world: World) -> None:
    await world.content.store(b"waste")
    world.age()
    collector = world.collector()
    assert (await collector.run()).removed == 1
    world.age()
    head = await world.log.head()
    assert (await collector.run()).condemned == 0
    assert await world.log.head() == head


async def test_everything_that_names_a_blob_keeps_it(world: World) -> None:
    async def stored(content: bytes) -> str:
        return await world.content.store(content)

    named = [
        await stored(b"snapshot"), await stored(b"work order"), await stored(b"run input"), await stored(b"owned"),
        await stored(b"spec"), await stored(b"logged"), await stored(b"held"),
    ]  # fmt: skip
    await world.sessions.offer(replace(offer(), snapshot_digest=named[0], work_order={"program": named[1]}))
    await world.sessions.permit(replace(permit_of(), snapshot_digest=named[0], run_inputs={"in": [named[2]]}))
    await world.sessions.own_blob("team", named[3])
    await world.graph.create(
        ResourceRecord("u", "Harness", "team", "h", 1, {}, {"program": {"digest": named[4]}}, None, 2)
    )
    await world.log.append([principal_created("p-1", b"logged")])
    await world.content.hold(named[6], "backup", 30 * 86_400)
    await stored(b"waste")
    world.age()
    assert (await world.collect()).removed == 1
    assert set(named) <= await world.there()


async def test_young_blobs_stay_until_their_grace_is_over(world: World) -> None:
    digest = await world.content.store(b"about to be named")
    world.age(6.9)
    assert (await world.collect()).kept[Kept.YOUNG] == 1
    await world.content.store(b"about to be named")
    world.age(6.9)
    assert (await world.collect()).removed == 0
    world.age(0.2)
    assert (await world.collect()).removed == 1
    assert digest not in await world.there()


async def test_an_erased_blob_that_was_stored_again_and_is_not_named_goes(world: World) -> None:
    digest = await world.content.store(b"x")
    await world.log.append([blob_erased(digest, 1)])
    world.age()
    assert (await world.collect()).removed == 1


async def test_against_a_log_that_names_hardly_anything_nothing_goes(world: World) -> None:
    for number in range(200):
        document = f"document {number}".encode()
        await world.content.store(document)
        await world.log.append([principal_created(f"p-{number}", document)])
    world.age()
    done = await world.collector(log=MemoryEventLog(MemoryLog(world.log.origin))).run()
    assert "200 of 200 blobs" in done.refused
    assert (done.condemned, done.removed) == (0, 0)
    assert len(await world.there()) == 200
    assert (await world.collect()).refused == ""


async def test_two_collectors_never_run(world: World) -> None:
    async with world.content.lease(60):
        with pytest.raises(Conflict, match="another collector"):
            await world.collect()


class Broken:
    """A store that is away for the one call."""

    def __init__(self, target: object, call: str) -> None:
        self._target, self._call = target, call

    def __getattr__(self, name: str) -> Any:
        async def fails(*_: object, **__: object) -> None:
            raise Unavailable("it is away")

        return fails if name == self._call else getattr(self._target, name)


@pytest.mark.parametrize(
    ("part", "call"),
    [("log", "query"), ("log", "append"), ("sessions", "blob_references"), ("graph", "page_records")],
    ids=["the log cannot be read", "the log cannot be written", "no session store", "no graph"],
)
async def test_where_anything_cannot_be_read_or_said_nothing_goes(world: World, part: str, call: str) -> None:
    digest = await world.content.store(b"waste")
    world.age()
    with pytest.raises(TriplaneError, match="it is away"):
        await world.collector(**{part: Broken(getattr(world, part), call)}).run()
    assert digest in await world.there()
    assert (await world.collect()).removed == 1  # and the lease is free again


async def test_a_blob_renewed_after_the_decision_stays(world: World) -> None:
    digest = await world.content.store(b"waste, and then not")
    world.age()

    class StoredMeanwhile(MemoryEventLog):
        async def append(self, bodies: Any) -> Any:
            await world.content.store(b"waste, and then not")
            return await super().append(bodies)

    done = await world.collector(log=StoredMeanwhile()).run()
    assert (done.condemned, done.removed) == (1, 0)
    assert digest in await world.there()


async def test_many_go_in_batches_each_with_its_entry(world: World) -> None:
    for number in range(2_100):
        await world.content.store(str(number).encode())
    world.age()
    done = await world.collect(Rules(share=1.0, most=2_050))
    assert (done.condemned, done.removed) == (2_050, 2_050)
    said = [
        entry.entry["data"]["count"] for entry in await world.log.query() if entry.entry["type"] == "blob.collected"
    ]
    assert said == [1_000, 1_000, 50]
    assert digest_of_bytes(b"x") not in await world.there()


class Archived(MemoryEventLog):
    """A log whose oldest entries were taken out of the database."""

    async def query(self, *arguments: Any, **options: Any) -> Any:
        return [entry for entry in await super().query(*arguments, **options) if entry.seq > 2]


async def test_a_log_that_does_not_show_every_entry_condemns_nothing(world: World) -> None:
    """What the hidden entries need is not known: without this check their blobs would go."""
    needed = await world.content.store(b"needed")
    world.log = Archived()
    await world.log.append([principal_created("p-1", b"needed")])
    await world.log.append([principal_created("p-2", b"other")])
    assert needed not in {digest for entry in await world.log.query() for digest in entry.entry["blobs"]}
    world.age()
    with pytest.raises(Unavailable, match="does not show every entry after -1"):
        await world.collect()
    assert await world.there() == {needed}


async def test_a_dry_run_says_what_would_go_and_changes_nothing(world: World) -> None:
    waste = await world.content.store(b"waste")
    world.age()
    head = await world.log.head()
    done = await world.collector().run(dry=True)
    assert (done.condemned, done.removed, done.octets, done.examples) == (1, 0, 5, (waste,))
    assert await world.there() == {waste}
    assert await world.log.head() == head
