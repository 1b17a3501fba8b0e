"""The contract of ``GraphStore``: generations and edges, applied in any order, found, walked, replaced at once."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace

import pytest

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.domain.selector import LabelSelector, parse_selector
from triplane.errors import Conflict, InvalidInput
from triplane.ports import Edge, GraphChange, GraphReader, GraphStore, Hop, ResourceRecord, Route

DIGEST = "sha256:" + "d" * 64


Opening = Callable[[], AbstractAsyncContextManager[GraphStore]]
"""Each call opens another store, empty and apart from the others; it is gone behind the context."""


@pytest.fixture
async def store(opening: Opening) -> AsyncIterator[GraphStore]:
    """One store, empty."""
    async with opening() as made:
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
    await store.apply(GraphChange(gone=(("u1", 11),)))
    assert [each.gone for each in await store.list()] == [True]


async def test_a_label_query_needs_all_labels_on_the_newest_generation(store: GraphStore) -> None:
    await store.create(record("a", 1, colour="red", shape="round"))
    await store.create(record("b", 1, colour="red"))
    await store.create(record("c", 1, colour="red", shape="round"))
    await store.create(record("c", 2, colour="blue", shape="round"))
    await store.create(record("d", 1, kind="Node", namespace="else", colour="red", shape="round"))
    both = LabelSelector.of({"colour": "red", "shape": "round"})

    async def found(*, kind: str | None = None, namespace: str | None = None) -> list[str]:
        return [each.uid for each in await store.query_by_labels(both, kind=kind, namespace=namespace)]

    assert await found() == ["d", "a"]
    assert await found(kind="Task") == ["a"]
    assert await found(namespace="else") == ["d"]
    assert len(await store.query_by_labels(LabelSelector())) == 4


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param("", "abcde", id="the empty selector matches everything"),
        pytest.param("env=prod", "a", id="equal"),
        pytest.param("env==", "c", id="equal to the empty value"),
        pytest.param("env!=prod", "bcde", id="unequal matches what lacks the label"),
        pytest.param("env in (prod, test)", "ab", id="in"),
        pytest.param("env notin (prod, test)", "cde", id="not in matches what lacks the label"),
        pytest.param("env", "abc", id="exists"),
        pytest.param("!env", "de", id="absent"),
        pytest.param("env,tier=web", "ac", id="both of two"),
        pytest.param("env notin (prod),tier", "cd", id="not in, and exists"),
        pytest.param("example.com/team=x", "e", id="a key with a prefix"),
        pytest.param("env=x,env=prod", "", id="what contradicts itself"),
    ],
)
async def test_label_selectors_mean_what_they_mean_in_kubernetes(
    store: GraphStore, selector: str, expected: str
) -> None:
    labels = {
        "a": {"env": "prod", "tier": "web"},
        "b": {"env": "test"},
        "c": {"env": "", "tier": "web"},
        "d": {"tier": "db"},
        "e": {"example.com/team": "x"},
    }
    for uid, each in labels.items():
        await store.create(replace(record(uid), labels=each))
    found = await store.query_by_labels(parse_selector(selector))
    assert [each.uid for each in found] == list(expected)


async def test_a_label_query_comes_in_pages(store: GraphStore) -> None:
    for uid, name in (("1", "b"), ("2", "a"), ("3", "c"), ("4", "b")):
        await store.create(record(uid, name=name))
    pages = []
    after = None
    while page := await store.query_by_labels(LabelSelector(), kind="Task", after=after, limit=3):
        pages.append([each.uid for each in page])
        last = page[-1]
        after = (last.kind, last.namespace, last.name, last.uid)
    assert pages == [["2", "1", "4"], ["3"]]


async def test_many_are_got_at_once_the_newest_of_each(store: GraphStore) -> None:
    await store.create(record("a", 1))
    await store.create(record("a", 2))
    await store.create(record("b", 1))
    assert await store.get_many(["a", "b", "c", "a"]) == {"a": record("a", 2), "b": record("b", 1)}
    assert await store.get_many([]) == {}
    asked = [("a", 1), ("a", 3), ("b", 1), ("c", 1)]
    assert await store.present(asked) == {("a", 1), ("b", 1)}
    assert await store.present([]) == frozenset()


async def test_of_an_edge_the_one_with_the_lowest_sequence_stays(store: GraphStore) -> None:
    await store.link([Edge("a", "owns", "b", 3, {"n": 1}), Edge("a", "owns", "b", 2), Edge("a", "uses", "b", 3)])
    await store.link([Edge("a", "owns", "b", 4, {"n": 2}), Edge("b", "owns", "a", 4)])
    await store.link([])
    assert await store.edges("a") == [Edge("a", "owns", "b", 2), Edge("a", "uses", "b", 3)]
    await store.link([Edge("a", "owns", "b", 1, {"n": 3}), Edge("a", "owns", "b", 1, {"n": 4})])
    assert await store.edges("a") == [Edge("a", "owns", "b", 1, {"n": 3}), Edge("a", "uses", "b", 3)]
    assert await store.edges("b") == [Edge("b", "owns", "a", 4)]


async def test_parallel_edges_are_told_apart_by_their_keys(store: GraphStore) -> None:
    edges = [Edge("s", "consumes", DIGEST, 1, {"name": name}, name) for name in ("left", "right")]
    await store.link(edges)
    assert await store.edges("s") == edges
    assert [hop.via for hop in await walked(store, "s")] == [edges[0]]


async def test_edges_of_many_ends_come_in_one_order(store: GraphStore) -> None:
    edges = [Edge("b", "owns", "y", 1), Edge("a", "owns", "x", 2), Edge("a", "uses", "y", 2), Edge("c", "owns", "z", 0)]
    await store.link(edges)
    assert await store.edges_of(["a", "b", "a"]) == edges[:3]
    assert await store.edges_of(["y", "z"], outgoing=False, kinds=frozenset({"owns"})) == [edges[3], edges[0]]
    assert await store.edges_of([]) == []


async def test_a_change_is_applied_whole_in_any_order_and_again(store: GraphStore) -> None:
    first = GraphChange((record("a", 1), record("b", 1)), (Edge("a", "owns", "b", 5),))
    last = GraphChange((record("a", 2, seq=20),), (Edge("a", "owns", "b", 9, {"late": True}),), (("a", 15),))
    for change in (last, first, GraphChange(), last):
        await store.apply(change)
    kept = await store.get("a")
    assert kept == replace(record("a", 2, seq=20), gone=True)
    assert (await store.get("a", 1)) == replace(record("a", 1), gone=True)
    assert await store.generations() == {"a": (2, True), "b": (1, False)}
    assert await store.edges("a") == [Edge("a", "owns", "b", 5)]
    with pytest.raises(InvalidInput):
        await store.apply(GraphChange((record("c"), replace(record("d"), spec={"a": "nul \0"})), first.edges))
    assert await store.get("c") is None


async def test_what_is_gone_stays_gone_though_its_row_comes_late(store: GraphStore) -> None:
    await store.apply(GraphChange(gone=(("a", 7),)))
    assert await store.get("a") is None
    await store.apply(GraphChange((record("a", 1, seq=3),)))
    assert [each.gone for each in await store.list()] == [True]
    assert [each.gone for each in await store.find("Task", "team", "task")] == [True]


async def test_writers_applying_overlapping_changes_at_once_do_not_harm_each_other(store: GraphStore) -> None:
    records = [record(f"u{n}") for n in range(30)]
    edges = [Edge(f"u{n}", "owns", f"u{n + 1}", 9) for n in range(29)]
    step = [slice(None, None, 1 if n % 2 else -1) for n in range(8)]
    await asyncio.gather(*(store.apply(GraphChange(tuple(records[s]), tuple(edges[s]))) for s in step))
    assert len(await store.list()) == 30
    assert len(await walked(store, "u0", Route(frozenset({"owns"})))) == 29


async def test_replacing_leaves_what_later_entries_brought_and_what_is_kept(store: GraphStore) -> None:
    await store.apply(
        GraphChange(
            (record("old", seq=1), record("lost", seq=2), record("new", seq=11), record("stale", seq=3)),
            (Edge("old", "owns", "x", 1), Edge("lost", "owns", "x", 2), Edge("new", "owns", "x", 11)),
            (("stale", 4), ("new", 12)),
        )
    )
    rebuilt = GraphChange(
        (record("stale", seq=3, colour="red"), record("made", seq=4)), (Edge("made", "owns", "y", 4),)
    )
    keep: set[str] = set()

    async def changes() -> AsyncIterator[GraphChange]:
        for item in rebuilt.records:
            yield GraphChange((item,))
        yield GraphChange()
        yield GraphChange(edges=rebuilt.edges)
        keep.add("lost")  # known only at the end

    assert await store.replace(changes(), upto=10, keep=keep) == (2, 1)
    assert {each.uid: (each.gone, each.labels) for each in await store.list()} == {
        "lost": (False, {}),
        "made": (False, {}),
        "new": (True, {}),
        "stale": (False, {"colour": "red"}),
    }
    assert [edge.source for edge in await store.page_edges()] == ["lost", "made", "new"]


async def once(change: GraphChange) -> AsyncIterator[GraphChange]:
    yield change


async def test_of_two_that_replace_the_graph_one_is_refused(store: GraphStore) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[GraphChange]:
        begun.set()
        await ended.wait()
        yield GraphChange((record("slow", seq=1),))

    first = asyncio.create_task(store.replace(slow(), upto=5))
    await asyncio.wait_for(begun.wait(), 60)
    with pytest.raises(Conflict, match="wait until"):
        await store.replace(once(GraphChange((record("other", seq=1),))), upto=5)
    ended.set()
    assert await first == (1, 0)
    assert [each.uid for each in await store.list()] == ["slow"]
    await store.replace(once(GraphChange()), upto=5)
    assert await store.list() == []


async def test_a_replacing_that_fails_changes_nothing_and_leaves_nothing_behind(store: GraphStore) -> None:
    await store.create(record("old", seq=1))

    async def failing() -> AsyncIterator[GraphChange]:
        yield GraphChange((record("half", seq=2),))
        raise InvalidInput("the log ended")

    with pytest.raises(InvalidInput, match="the log ended"):
        await store.replace(failing(), upto=5)
    assert [each.uid for each in await store.list()] == ["old"]
    await store.replace(once(GraphChange((record("new", seq=3),))), upto=5)
    assert [each.uid for each in await store.list()] == ["new"]


async def test_the_graph_of_an_earlier_entry_is_as_it_was(store: GraphStore) -> None:
    await store.apply(
        GraphChange(
            (record("a", 1, seq=1, colour="red"), record("a", 2, seq=5, colour="blue"), record("b", 1, seq=4)),
            (Edge("a", "owns", "b", 4), Edge("a", "uses", "c", 2), Edge("b", "owns", "d", 6)),
            (("a", 7),),
        )
    )

    async def uids(seq: int, selector: str) -> list[str]:
        return [each.uid for each in await store.as_of(seq).query_by_labels(parse_selector(selector))]

    assert await store.as_of(0).list() == []
    assert await store.as_of(0).get("a") is None
    assert await store.as_of(4).get("a") == record("a", 1, seq=1, colour="red")
    assert await store.as_of(4).get("a", 2) is None
    assert await store.as_of(6).get_many(["a", "b"]) == {
        "a": record("a", 2, seq=5, colour="blue"), "b": record("b", 1, seq=4),
    }  # fmt: skip
    assert [each.gone for each in await store.as_of(6).find("Task", "team", "task")] == [False, False]
    assert [each.gone for each in await store.as_of(7).find("Task", "team", "task")] == [True, False]
    assert await uids(4, "colour=red") == ["a"]
    assert await uids(5, "colour=red") == []
    assert await store.as_of(3).edges("a") == [Edge("a", "uses", "c", 2)]
    assert await store.as_of(4).edges_of(["b"], outgoing=False) == [Edge("a", "owns", "b", 4)]
    assert [hop.id for hop in await walked(store.as_of(5), "a")] == ["c", "b"]
    assert [hop.id for hop in await walked(store.as_of(6), "a")] == ["c", "b", "d"]


async def test_everything_can_be_paged_through(store: GraphStore) -> None:
    await store.apply(
        GraphChange(
            (record("b", 1), record("a", 2), record("a", 10)),
            (Edge("b", "owns", "c", 1), Edge("a", "uses", "c", 1), Edge("a", "uses", "c", 1, key="k")),
            (("b", 12),),
        )
    )
    first = await store.page_records(limit=2)
    assert [(each.uid, each.generation) for each in first] == [("a", 2), ("a", 10)]
    rest = await store.page_records(("a", 10), limit=2)
    assert [(each.uid, each.generation, each.gone) for each in rest] == [("b", 1, True)]
    edges = await store.page_edges(limit=2)
    assert [edge.identity for edge in edges] == [("a", "uses", "c", ""), ("a", "uses", "c", "k")]
    assert [edge.source for edge in await store.page_edges(edges[-1].identity)] == ["b"]


async def walked(store: GraphReader, start: str, route: Route = Route()) -> list[Hop]:
    async with aclosing(store.traverse(start, route)) as hops:  # type: ignore[type-var]
        return [hop async for hop in hops]


INWARD = Route(frozenset(), None)
AROUND = Route(None, None)


async def test_a_traversal_goes_breadth_first_and_reaches_each_end_once(store: GraphStore) -> None:
    edges = [
        Edge("a", "owns", "b", 5),
        Edge("a", "uses", "c", 4),
        Edge("a", "owns", "c", 5, {"n": 1}),
        Edge("b", "owns", "d", 6),
        Edge("c", "owns", "d", 7),
        Edge("d", "owns", "a", 8),
        Edge("d", "uses", "d", 8),
        Edge("z", "owns", "a", 1),
    ]
    await store.link(edges)

    async def ids(start: str, route: Route) -> list[str]:
        return [hop.id for hop in await walked(store, start, route)]

    found = await walked(store, "a")
    assert [(hop.id, hop.depth, hop.via) for hop in found] == [
        ("c", 1, edges[1]), ("b", 1, edges[0]), ("d", 2, edges[3]),
    ]  # fmt: skip
    assert await ids("a", Route(frozenset({"owns"}))) == ["b", "c", "d"]
    assert await ids("a", Route(max_depth=1)) == ["c", "b"]
    assert await ids("a", Route(max_depth=0)) == []
    assert await ids("a", Route(limit=2)) == ["c", "b"]
    assert await ids("a", Route(limit=1)) == ["c"]
    assert await ids("a", Route(frozenset())) == []
    assert [(hop.id, hop.depth) for hop in await walked(store, "a", INWARD)] == [("z", 1), ("d", 1), ("b", 2), ("c", 2)]
    assert [(hop.id, hop.depth) for hop in await walked(store, "b", AROUND)] == [("a", 1), ("d", 1), ("z", 2), ("c", 2)]
    assert await ids("nobody", AROUND) == []


async def test_a_traversal_tells_of_every_other_edge_it_followed_once(store: GraphStore) -> None:
    edges = [
        Edge("a", "owns", "b", 1),
        Edge("a", "uses", "b", 2, {"x": 1}, "k"),
        Edge("b", "owns", "c", 3),
        Edge("a", "owns", "c", 4),
        Edge("c", "uses", "a", 5),
        Edge("c", "uses", "c", 6),
        Edge("r", "reviews", "b", 7),
        Edge("r", "uses", "s", 8),
        Edge("c", "owns", "d", 9),
    ]
    await store.link(edges)
    route = Route(leaves=frozenset({"reviews"}), every=True, max_depth=2)
    found = await walked(store, "a", route)
    assert [(hop.id, hop.depth) for hop in found if not hop.again] == [("b", 1), ("c", 1), ("r", 2), ("d", 2)]
    assert [hop.via for hop in found if hop.again] == [edges[1], edges[2], edges[4], edges[5]]
    around = await walked(store, "b", replace(AROUND, every=True))
    assert sorted(hop.via.identity for hop in around) == sorted(edge.identity for edge in edges)
    assert {hop.id for hop in await walked(store, "b", replace(AROUND, every=True, limit=2))} <= {"a", "c", "b"}


async def test_a_traversal_meets_only_who_may_be_met(store: GraphStore) -> None:
    await store.apply(
        GraphChange(
            (record("a"), record("b"), record("x", namespace="secret"), record("late", seq=20)),
            (
                Edge("a", "owns", "b", 1),
                Edge("a", "owns", "x", 1),
                Edge("x", "owns", "late", 1),
                Edge("a", "owns", "unknown", 1),
                Edge("b", "consumes", DIGEST, 2),
                Edge("b", "owns", "late", 2),
                Edge(DIGEST, "derivedFrom", "sha256:1", 3, {"task": "a"}),
                Edge(DIGEST, "derivedFrom", "sha256:2", 3, {"task": "x"}),
            ),
        )
    )
    mine = Route(namespaces=frozenset({"team"}), every=True)
    assert [hop.id for hop in await walked(store, "a", mine)] == ["b", DIGEST, "late", "sha256:1"]
    assert [hop.id for hop in await walked(store.as_of(10), "a", mine)] == ["b", DIGEST, "sha256:1"]
    every = await walked(store, "a", Route(namespaces=frozenset({"team", "secret"})))
    assert {hop.id for hop in every} == {"b", "x", DIGEST, "late", "sha256:1", "sha256:2"}
    assert len(await walked(store, "a")) == 7


def _web(rng: random.Random) -> list[Edge]:
    return [
        Edge(f"n{rng.randrange(60)}", rng.choice(("owns", "uses", "reviews")), f"n{rng.randrange(60)}", n, {"n": n})
        for n in (rng.randrange(40) for _ in range(220))
    ]


async def test_a_traversal_is_the_same_however_the_edges_lie(store: GraphStore) -> None:
    edges = _web(random.Random(7))
    await store.link(edges)
    twin = MemoryGraphStore()
    await twin.link(edges)
    some = frozenset({"uses"})
    for start in ("n0", "n7", "n59"):
        for route in (Route(), INWARD, AROUND, Route(some, frozenset({"owns"}), frozenset({"reviews"}))):
            for limit, depth in ((5, 64), (1000, 64), (1000, 2)):
                asked = replace(route, limit=limit, max_depth=depth, every=True)
                for seq in (None, 20):
                    mine, other = (store, twin) if seq is None else (store.as_of(seq), twin.as_of(seq))
                    assert await walked(mine, start, asked) == await walked(other, start, asked), (start, asked, seq)


@pytest.mark.parametrize("shape", ["wide", "deep", "comb"])
async def test_ten_thousand_ends_are_reached_each_once(store: GraphStore, shape: str) -> None:
    count = 10_000
    shapes: dict[str, Callable[[int], int]] = {
        "wide": lambda n: 0,
        "deep": lambda n: n - 1,
        "comb": lambda n: (n - 1) // 2 * 2,
    }
    parent = shapes[shape]
    edges = tuple(Edge(f"n{parent(n)}", "owns", f"n{n}", n) for n in range(1, count + 1))
    await store.apply(GraphChange(edges=edges))
    found = await walked(store, "n0", Route(max_depth=count, limit=count))
    assert len(found) == count
    assert {hop.id for hop in found} == {f"n{n}" for n in range(1, count + 1)}


async def test_a_traversal_that_is_not_ended_leaves_no_trace(store: GraphStore) -> None:
    await store.link([Edge("a", "owns", f"n{n}", n) for n in range(3000)])
    for _ in range(20):  # more than there are connections
        async with aclosing(store.traverse("a")) as hops:  # type: ignore[type-var]
            assert (await anext(hops)).id == "n0"
    assert len(await walked(store, "a", Route(limit=10))) == 10
    assert len(await walked(store, "n1", INWARD)) == 1


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


async def test_generations_are_the_newest_of_each_with_its_end(store: GraphStore) -> None:
    await store.create(record("u1", 1, seq=1))
    await store.create(record("u1", 3, seq=2))
    await store.create(record("u2", 2, seq=3))
    await store.apply(GraphChange(gone=(("u2", 4),)))
    assert await store.generations() == {"u1": (3, False), "u2": (2, True)}
