"""The contract of ``GraphStore``, on every backend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.errors import InvalidInput
from triplane.ports import Edge, GraphStore, ResourceRecord

DIGEST = "sha256:" + "d" * 64


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


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[GraphStore]:
    async with request.param(request) as made:
        yield made
        await made.close()


def record(
    uid: str = "u1",
    generation: int = 1,
    *,
    kind: str = "Task",
    namespace: str = "team",
    name: str = "task",
    seq: int = 10,
    **labels: str,
) -> ResourceRecord:
    return ResourceRecord(
        uid=uid,
        kind=kind,
        namespace=namespace,
        name=name,
        generation=generation,
        labels=labels,
        spec={"objective": "weigh 1.5 kg", "n": [1, -2, None, True, 2**40], "ü": {"": "✓ \U0001f600"}},
        requester="p-1",
        seq=seq,
    )


async def test_a_record_is_kept_as_it_came(store: GraphStore) -> None:
    assert await store.create(record(colour="red"))
    assert await store.get("u1") == record(colour="red")
    assert await store.get("u1", 1) == record(colour="red")
    assert await store.get("u1", 2) is None
    assert await store.get("u2") is None


async def test_a_generation_is_created_once_and_the_stored_one_stays(store: GraphStore) -> None:
    assert await store.create(record())
    assert not await store.create(replace(record(seq=99), spec={}, requester=None))
    assert await store.get("u1") == record()


async def test_writers_racing_to_create_have_one_winner(store: GraphStore) -> None:
    made = await asyncio.gather(*(store.create(replace(record(), requester=f"p-{n}")) for n in range(8)))
    assert sorted(made) == [False] * 7 + [True]
    kept = await store.get("u1")
    assert kept is not None
    assert kept.requester == f"p-{made.index(True)}"


async def test_the_newest_generation_is_the_one_with_the_highest_number(store: GraphStore) -> None:
    await store.create(record(generation=10, seq=5))
    await store.create(record(generation=9, seq=50))
    newest = await store.get("u1")
    assert newest == record(generation=10, seq=5)
    assert await store.get("u1", 9) == record(generation=9, seq=50)
    assert await store.list() == [newest]


async def test_a_name_finds_every_incarnation_newest_first(store: GraphStore) -> None:
    await store.create(record("old", 1, seq=1))
    await store.create(record("old", 2, seq=4))
    await store.create(record("new", 1, seq=9))
    await store.create(record("other", 1, name="other"))
    await store.create(record("foreign", 1, namespace="else"))
    await store.create(record("node", 1, kind="Node"))
    assert await store.find("Task", "team", "task") == [record("new", 1, seq=9), record("old", 2, seq=4)]
    assert await store.find("Task", "team", "nothing") == []


async def test_an_update_replaces_what_may_change_and_nothing_else(store: GraphStore) -> None:
    await store.create(record(seq=10, colour="red"))
    update = replace(
        record(seq=11, shape="round"), spec={"a": 1}, requester=None, gone=True, name="forged", kind="Forged"
    )
    assert await store.update(update)
    assert await store.get("u1") == replace(update, name="task", kind="Task")


async def test_older_never_overwrites_newer(store: GraphStore) -> None:
    await store.create(record(seq=10))
    assert await store.update(record(seq=12, colour="blue"))
    assert not await store.update(record(seq=11, colour="late"))
    assert await store.get("u1") == record(seq=12, colour="blue")
    assert await store.update(record(seq=12, colour="green"))
    assert await store.get("u1") == record(seq=12, colour="green")
    assert not await store.update(record(generation=2, seq=99))
    assert not await store.update(record("u2", seq=99))
    assert len(await store.list()) == 1


async def test_updates_arriving_in_any_order_leave_the_newest(store: GraphStore) -> None:
    await store.create(record(seq=0))
    await asyncio.gather(*(store.update(record(seq=seq, at=str(seq))) for seq in (3, 9, 1, 7, 5, 2, 8, 4, 6)))
    kept = await store.get("u1")
    assert kept is not None
    assert (kept.seq, kept.labels) == (9, {"at": "9"})


async def test_a_list_is_in_order_and_can_be_narrowed(store: GraphStore) -> None:
    records = [
        record("3", kind="Node", namespace="b", name="a"),
        record("2", kind="Node", namespace="b", name="a-b"),
        record("1", kind="Node", namespace="a", name="z"),
        record("5", kind="Task", namespace="a", name="x"),
        record("4", kind="Task", namespace="a", name="x"),
        record("6", kind="Task", namespace="a", name="Xx"),
    ]
    for each in records:
        await store.create(each)
    assert [each.uid for each in await store.list()] == ["1", "3", "2", "6", "4", "5"]
    assert [each.uid for each in await store.list("Node")] == ["1", "3", "2"]
    assert [each.uid for each in await store.list(namespace="a")] == ["1", "6", "4", "5"]
    assert [each.uid for each in await store.list("Task", "b")] == []


async def test_what_is_gone_is_still_listed(store: GraphStore) -> None:
    await store.create(record())
    await store.update(replace(record(seq=11), gone=True))
    assert [each.gone for each in await store.list()] == [True]


async def test_a_label_query_needs_all_labels_on_the_newest_generation(store: GraphStore) -> None:
    await store.create(record("a", 1, colour="red", shape="round"))
    await store.create(record("b", 1, colour="red"))
    await store.create(record("c", 1, colour="red", shape="round"))
    await store.create(record("c", 2, colour="blue", shape="round"))
    await store.create(record("d", 1, kind="Node", namespace="else", colour="red", shape="round"))

    async def found(**narrowed: str) -> list[str]:
        return [each.uid for each in await store.query_by_labels({"colour": "red", "shape": "round"}, **narrowed)]

    assert await found() == ["d", "a"]
    assert await found(kind="Task") == ["a"]
    assert await found(namespace="else") == ["d"]
    assert [each.uid for each in await store.query_by_labels({"colour": "red"})] == ["d", "a", "b"]
    assert await store.query_by_labels({"colour": ""}) == []
    assert len(await store.query_by_labels({})) == 4


async def test_an_edge_that_is_there_stays_as_it_is(store: GraphStore) -> None:
    await store.link([Edge("a", "owns", "b", 1, {"n": 1}), Edge("a", "owns", "b", 2), Edge("a", "uses", "b", 3)])
    await store.link([Edge("a", "owns", "b", 0, {"n": 2}), Edge("b", "owns", "a", 4)])
    await store.link([])
    assert await store.edges("a") == [Edge("a", "owns", "b", 1, {"n": 1}), Edge("a", "uses", "b", 3)]
    assert await store.edges("b") == [Edge("b", "owns", "a", 4)]


async def test_edges_go_both_ways_in_order(store: GraphStore) -> None:
    edges = [
        Edge("t1", "produces", DIGEST, 7),
        Edge("t0", "produces", DIGEST, 7),
        Edge("t2", "consumes", DIGEST, 7),
        Edge("t9", "reviews", DIGEST, 3),
        Edge(DIGEST, "derivedFrom", "x", 1),
    ]
    await store.link(edges)
    assert await store.edges(DIGEST, outgoing=False) == [edges[3], edges[2], edges[1], edges[0]]
    assert await store.edges(DIGEST) == [edges[4]]
    some = frozenset({"reviews", "consumes"})
    assert await store.edges(DIGEST, outgoing=False, kinds=some) == [edges[3], edges[2]]
    assert await store.edges("nobody") == []


async def test_writers_linking_the_same_edges_at_once_do_not_harm_each_other(store: GraphStore) -> None:
    edges = [Edge(f"s{n}", "owns", f"t{n}", n) for n in range(50)]
    await asyncio.gather(*(store.link(edges[:: 1 if n % 2 else -1]) for n in range(8)))
    assert [await store.edges(edge.source) for edge in edges] == [[edge] for edge in edges]


async def test_what_no_backend_can_keep_is_refused_by_all(store: GraphStore) -> None:
    await store.create(record())
    for spec in ({"a": "nul \0"}, {"\0": 1}, {"a": float("inf")}, {"a": "\ud800"}):
        with pytest.raises(InvalidInput):
            await store.create(replace(record("u2"), spec=spec))
        with pytest.raises(InvalidInput):
            await store.update(replace(record(seq=11), spec=spec))
        with pytest.raises(InvalidInput):
            await store.link([Edge("fine", "owns", "fine", 1), Edge("a", "owns", "b", 1, spec)])
    assert await store.get("u2") is None
    assert await store.get("u1") == record()
    assert await store.edges("fine") == []


async def test_what_was_read_or_given_does_not_change_what_is_stored(store: GraphStore) -> None:
    given = record()
    await store.create(given)
    given.spec["n"].append("more")
    read = await store.get("u1")
    assert read == record()
    read.spec["n"].append("more")
    assert await store.get("u1") == record()
