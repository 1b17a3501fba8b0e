"""A start: what the stores hold already is known without a read per object, and what was deleted meanwhile is found."""

from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld

from triplane.audit.model import EventFilter
from triplane.controllers.key import Key


async def test_kept_generations_are_known_after_one_read_and_edited_ones_are_not() -> None:
    world = MemoryWorld()
    for name in ("kept", "edited"):
        world.server.put("Graph", name, {})
        world.look()
        await world.reconcile(Key("Graph", NAMESPACE, name))
    world.server.edit("Graph", "edited", title="new")
    world.server.put("Graph", "unknown", {})
    world.start()
    reads: list[str] = []
    original = world.graph.get

    async def noting(uid: str, generation: int | None = None) -> object:
        reads.append(uid)
        return await original(uid, generation)

    world.graph.get = noting  # type: ignore[method-assign, assignment]
    seen = world._reconcilers.has_seen
    objects = {obj["metadata"]["name"]: obj for obj in world.server.of("Graph")}
    assert not any(seen(obj) for obj in objects.values()), "a new process knows nothing"
    await world._reconcilers.catch_up()
    assert {name: seen(obj) for name, obj in objects.items()} == {"kept": True, "edited": False, "unknown": False}
    assert reads == []


async def test_what_was_deleted_while_no_operator_ran_is_logged_once() -> None:
    world = MemoryWorld()
    made = world.server.put("Graph", "gone", {})
    world.look()
    await world.reconcile(Key("Graph", NAMESPACE, "gone"))
    await world.server.delete(made)
    for _ in range(2):
        world.start()
        await world._reconcilers.catch_up()
    ends = await world.log.query(EventFilter(types=frozenset({"resource.gone"}), uid=made["metadata"]["uid"]))
    assert len(ends) == 1
    assert (await world.graph.generations())[made["metadata"]["uid"]] == (1, True)
