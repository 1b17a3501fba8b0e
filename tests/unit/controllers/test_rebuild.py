"""The graph made anew from the log is the live one, whatever befell the operator; and where it is not, that is said."""

from contextlib import suppress
from dataclasses import replace

import pytest
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.test_task_crashes import finish, world

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.controllers import rebuild
from triplane.controllers.rebuild import Difference, Rebuilder, Rebuilt, differences
from triplane.errors import TriplaneError, Unavailable
from triplane.ports import Edge, GraphChange, ResourceRecord, Route


def rebuilder(made: MemoryWorld, live: MemoryGraphStore | None = None) -> Rebuilder:
    async def load(digest: str) -> bytes:
        return b"".join([chunk async for chunk in made.content.resolve(digest)])

    return Rebuilder(made.log, live or made.graph, load)


async def check(made: MemoryWorld) -> list[Difference]:
    return (await differences(rebuilder(made), made.graph))[1]


def forge(graph: MemoryGraphStore, row: ResourceRecord) -> None:
    """As somebody would who writes into the tables."""
    graph._kept.generations[row.uid][row.generation] = row


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "LOOK_SECONDS", 0)


async def test_rebuilt_equals_live_after_a_life_and_after_the_end_of_everything() -> None:
    made = world()
    await finish(made)
    rebuilt = await rebuilder(made).rebuild()
    assert {edge.kind for edge in rebuilt.edges.values()} >= {
        "owns", "uses", "produces", "reviews",
    }  # fmt: skip
    assert await check(made) == []
    for obj in list(made.server.objects.values()):
        await made._reconcilers.gone(obj["kind"], obj)
    assert await check(made) == []
    assert all(record.gone for record in await made.graph.list())


async def test_rebuilt_equals_live_wherever_the_operator_was_killed() -> None:
    sound = world()
    await finish(sound)
    for at in range(1, sound.fuse.writes + 1):
        made = world()
        made.fuse.at, made.fuse.after = at, True
        assert await finish(made) == 1
        await made._reconcilers.project()
        assert await check(made) == [], f"killed after write {at}"


async def test_the_graph_can_be_lost_as_a_whole() -> None:
    made = world()
    await finish(made)
    fresh = MemoryGraphStore()
    told: list[tuple[int, int]] = []
    put = await rebuilder(made, fresh).put_in_place(fresh, lambda done, size: told.append((done, size)))
    size, _ = await made.log.head()
    assert (put.upto, told[-1]) == (size - 1, (size, size))
    assert (put.records, put.edges) == (len(await fresh.page_records()), len(await fresh.page_edges()))
    assert await fresh.page_records(limit=10_000) == await made.graph.page_records(limit=10_000)
    assert await fresh.page_edges(limit=10_000) == await made.graph.page_edges(limit=10_000)
    (artifact,) = await fresh.list("Artifact")
    up = fresh.traverse(artifact.uid, Route(frozenset(), frozenset({"produces", "owns"})))
    kinds = [record.kind async for hop in up if (record := await fresh.get(hop.id)) is not None]
    assert sorted(kinds) == ["AgentSession", "Graph", "Task"]


async def test_each_difference_is_named_and_replacing_ends_it() -> None:
    made = world()
    await finish(made)
    (task,) = await made.graph.list("Task")
    (agent, *_) = await made.graph.list("Agent")
    (edge, *_) = await made.graph.edges(task.uid)
    graph = made.graph
    forge(graph, replace(task, spec={"objective": "forged"}, requester="p-x"))
    await graph.create(replace(agent, uid="forged", seq=3))
    await graph.link([replace(edge, seq=edge.seq - 1, data={"forged": True}), Edge("x", "owns", "y", 2)])
    del graph._kept.generations[agent.uid]
    await graph.apply(GraphChange(gone=((task.uid, 5),)))
    found = await check(made)
    said = {(item.what, item.field) for item in found}
    name = f"Task team/{task.name} {task.uid} generation 1"
    assert said >= {(name, "spec"), (name, "requester"), (name, "gone")}
    assert ("x owns y", "edge") in said
    assert any(item.field == "row" and item.live is None and agent.uid in item.what for item in found)
    assert any(item.field == "row" and item.rebuilt is None and "forged" in item.what for item in found)
    assert any(item.field == "data" and item.live == {"forged": True} for item in found)
    assert "not in the log" in str(next(item for item in found if item.what == "x owns y"))
    await rebuilder(made).put_in_place(graph)
    assert await check(made) == []


async def test_what_later_entries_brought_is_left_alone() -> None:
    made = world()
    await finish(made)
    rebuilt = await rebuilder(made).rebuild()
    (task,) = await made.graph.list("Task")
    newer = replace(task, uid="later", seq=rebuilt.upto + 5)
    await made.graph.apply(GraphChange((newer,), (Edge("later", "owns", "z", newer.seq),)))
    assert await rebuild.compare(rebuilt, made.graph) == []
    await rebuilder(made).put_in_place(made.graph)
    assert await made.graph.get("later") == newer
    assert len(await made.graph.edges("later")) == 1


async def test_an_entry_on_its_way_into_the_graph_is_no_difference() -> None:
    made = world()
    await finish(made)
    live = MemoryGraphStore()

    class Lagging(Rebuilder):
        looks = 0

        async def advance(self, rebuilt: Rebuilt) -> None:
            self.looks += 1
            await super().advance(rebuilt)
            if self.looks == 2:
                gone = tuple(rebuilt.gone.items())
                await live.apply(GraphChange(tuple(rebuilt.records.values()), tuple(rebuilt.edges.values()), gone))

    lagging = Lagging(made.log, live, rebuilder(made)._load)
    assert (await differences(lagging, live))[1] == []
    assert lagging.looks == 2
    assert (await differences(rebuilder(made, MemoryGraphStore()), MemoryGraphStore()))[1] != []


async def test_a_document_that_is_gone_is_taken_from_the_row_that_proves_itself() -> None:
    made = world()
    await finish(made)
    (task,) = await made.graph.list("Task")
    entry = await made.log.get(f"resource.observed/{task.uid}/1")
    assert entry is not None
    digest = entry.entry["data"]["specDigest"]
    await made.content.delete(digest)
    assert await check(made) == []
    forge(made.graph, replace(task, spec={"objective": "another"}))
    (found,) = await check(made)
    assert (found.field, found.rebuilt) == ("document", digest)
    put = await rebuilder(made).put_in_place(made.graph)
    assert list(put.unreadable) == [(task.uid, 1)]
    kept = await made.graph.get(task.uid)
    assert kept is not None
    assert kept.spec == {"objective": "another"}


async def test_a_content_store_that_is_away_is_not_taken_for_an_empty_one() -> None:
    made = world()
    await finish(made)

    async def away(digest: str) -> bytes:
        raise Unavailable("the gateway is away")

    with pytest.raises(Unavailable):
        await Rebuilder(made.log, made.graph, away).rebuild()
    with suppress(TriplaneError):
        await made._reconcilers.project()
