"""``GraphStore`` against a model that only remembers what it was told: any order of any operations, every backend.

``TRIPLANE_GRAPH_EXAMPLES`` asks for more than the few of a usual run.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.contract.graph_world import BLOBS, NAMESPACES, UIDS, WORLDS, GraphWorld

from triplane.domain.selector import LabelSelector, Operator, Requirement
from triplane.ports import Edge, GraphChange, GraphReader, Hop, ResourceRecord, Route

EXAMPLES = int(os.environ.get("TRIPLANE_GRAPH_EXAMPLES", "8"))
KINDS = ("owns", "uses", "derivedFrom")
ENDS = st.sampled_from([*UIDS, *BLOBS])
LABELS = st.dictionaries(st.sampled_from(["env", "tier"]), st.sampled_from(["", "x", "y"]), max_size=2)
SOME_KINDS = st.sets(st.sampled_from(KINDS)).map(frozenset)
REQUIREMENTS = st.builds(
    Requirement,
    st.sampled_from(["env", "tier"]),
    st.sampled_from(list(Operator)),
    st.lists(st.sampled_from(["", "x", "y"]), min_size=1, max_size=2, unique=True).map(tuple),
)
ROUTES = st.builds(
    Route,
    st.none() | SOME_KINDS,
    st.none() | SOME_KINDS,
    SOME_KINDS,
    st.none() | st.sets(st.sampled_from(NAMESPACES)).map(frozenset),
    st.integers(0, 4),
    st.integers(1, 6),
)


class Opens(Protocol):
    def __call__(self, request: pytest.FixtureRequest) -> AbstractContextManager[GraphWorld]: ...


class Told:
    """What a history says up to an entry, by the words of ``GraphStore``."""

    def __init__(self, history: Sequence[GraphChange]) -> None:
        self.records: dict[tuple[str, int], ResourceRecord] = {}
        self.edges: dict[tuple[str, str, str, str], Edge] = {}
        self.gone: set[str] = set()
        for change in history:
            for record in change.records:
                self.records.setdefault((record.uid, record.generation), record)
            for edge in change.edges:
                self.edges.setdefault(edge.identity, edge)
            self.gone |= {uid for uid, _ in change.gone}

    def newest(self) -> list[ResourceRecord]:
        found: dict[str, ResourceRecord] = {}
        for (uid, _), record in sorted(self.records.items()):
            found[uid] = ResourceRecord(
                **{name: getattr(record, name) for name in record.__slots__ if name != "gone"}, gone=uid in self.gone
            )
        return sorted(found.values(), key=lambda each: (each.kind, each.namespace, each.name, each.uid))

    def may_meet(self, far: str, edge: Edge, route: Route) -> bool:
        if route.namespaces is None:
            return True
        seen = {uid for (uid, _), record in self.records.items() if record.namespace in route.namespaces}
        task = edge.data.get("task")
        return (far in seen or far in BLOBS) and (not task or task in seen)

    def steps(self, near: str, route: Route) -> list[tuple[str, Edge, bool]]:
        """(far end, edge, leaf) of what the route follows from here."""
        found = []
        for edge in self.edges.values():
            if edge.source == near and (route.outward is None or edge.kind in route.outward):
                found.append((edge.target, edge, False))
            if edge.target == near and (route.inward is None or edge.kind in route.inward):
                found.append((edge.source, edge, False))
            if edge.target == near and edge.kind in route.leaves:
                found.append((edge.source, edge, True))
        return [step for step in found if self.may_meet(step[0], step[1], route)]

    def walked(self, start: str, route: Route) -> list[Hop]:
        """Level by level, the definition word for word."""
        reached, frontier = {start}, [start]
        hops: list[Hop] = []
        for depth in range(1, route.max_depth + 1):
            ways: dict[str, list[tuple[bool, int, str, tuple[str, str, str, str], Edge]]] = {}
            for near in frontier:
                for far, edge, leaf in self.steps(near, route):
                    if far not in reached:
                        key = (edge.source, edge.kind, edge.target, edge.key)
                        order = (edge.source, edge.target, edge.key, edge.kind)
                        assert key == edge.identity
                        ways.setdefault(far, []).append((leaf, edge.seq, edge.kind, order, edge))
            best = {far: min(found, key=lambda way: way[:4]) for far, found in ways.items()}
            level = sorted(best, key=lambda far: (best[far][1], best[far][2], far))[: route.limit - len(hops)]
            hops += [Hop(far, depth, best[far][4]) for far in level]
            reached |= set(level)
            frontier = [far for far in level if not best[far][0]]
        return hops


class StoreAndModel(RuleBasedStateMachine):
    """The model is the history itself: entry n is ``history[n]``."""

    def __init__(self, world: GraphWorld) -> None:
        super().__init__()
        self.world = world
        self.store = world.fresh()
        self.history: list[GraphChange] = []

    def tell(
        self, *, records: Sequence[ResourceRecord] = (), edges: Sequence[Edge] = (), gone: Sequence[str] = ()
    ) -> None:
        seq = len(self.history)
        change = GraphChange(tuple(records), tuple(edges), tuple((uid, seq) for uid in gone))
        self.history.append(change)
        self.world.run(self.store.apply(change))

    @rule(uid=st.sampled_from(UIDS[:3]), labels=LABELS, number=st.integers(1, 3))
    def is_observed(self, uid: str, labels: dict[str, str], number: int) -> None:
        told = Told(self.history)
        if (uid, number) in told.records:
            return  # a log has each once
        place = UIDS.index(uid)
        record = ResourceRecord(
            uid=uid,
            kind=("Task", "Node")[place % 2],
            namespace=NAMESPACES[place % 2],
            name=f"name-{place // 2}",
            generation=number,
            labels=labels,
            spec={"generation": number},
            requester=None,
            seq=len(self.history),
        )
        self.tell(records=[record])

    @rule(uid=st.sampled_from(UIDS))
    def ends(self, uid: str) -> None:
        self.tell(gone=[uid])

    @rule(
        found=st.lists(
            st.tuples(ENDS, st.sampled_from(KINDS), ENDS, st.sampled_from(["", "k"])), min_size=1, max_size=4
        )
    )
    def are_linked(self, found: list[tuple[str, str, str, str]]) -> None:
        seq = len(self.history)
        edges = {
            item: Edge(*item[:3], seq, {"at": seq, **({"task": "a"} if item[3] else {})}, item[3]) for item in found
        }
        self.tell(edges=list(edges.values()))

    @rule(data=st.data())
    def somebody_comes_late(self, data: st.DataObject) -> None:
        """After a crash the same is applied again."""
        if self.history:
            at = data.draw(st.integers(0, len(self.history) - 1))
            self.world.run(self.store.apply(GraphChange.merged(self.history[at : at + 3])))

    @rule(data=st.data(), lost=st.booleans())
    def is_rebuilt(self, data: st.DataObject, lost: bool) -> None:
        upto = data.draw(st.integers(-1, len(self.history) - 1))

        async def changes() -> AsyncIterator[GraphChange]:
            for change in self.history[: upto + 1]:
                yield change

        async def nothing() -> AsyncIterator[GraphChange]:
            yield GraphChange()

        async def rebuild() -> tuple[int, int]:
            if lost:
                await self.store.replace(nothing(), upto=upto)
            found = await self.store.replace(changes(), upto=upto)
            for change in self.history[upto + 1 :]:  # of an edge told twice, the first was what hid the second
                await self.store.apply(change)
            return found

        told = Told(self.history[: upto + 1])
        assert self.world.run(rebuild()) == (len(told.records), len(told.edges))

    @rule(data=st.data(), requirements=st.lists(REQUIREMENTS, max_size=3), limit=st.integers(1, 3))
    def is_asked_by_labels(self, data: st.DataObject, requirements: list[Requirement], limit: int) -> None:
        graph, told = self.some_time(data)
        selector = LabelSelector(tuple(requirements))
        kind = data.draw(st.sampled_from([None, "Task", "Node"]))
        expected = [each for each in told.newest() if selector.matches(each.labels) and kind in (None, each.kind)]
        assert self.world.run(_paged(graph, selector, kind, limit)) == expected

    @rule(data=st.data(), start=ENDS, route=ROUTES)
    def is_traversed(self, data: st.DataObject, start: str, route: Route) -> None:
        graph, told = self.some_time(data)
        assert self.world.run(_walked(graph, start, route)) == told.walked(start, route)

    @rule(data=st.data())
    def is_asked_what_there_was(self, data: st.DataObject) -> None:
        graph, told = self.some_time(data)
        assert self.world.run(graph.list()) == told.newest()
        newest = {each.uid: each for each in told.newest()}
        assert self.world.run(graph.get_many(UIDS)) == newest
        for uid in UIDS[:2]:
            assert self.world.run(graph.get(uid)) == newest.get(uid)

    @rule(data=st.data(), ids=st.lists(ENDS, unique=True), kinds=SOME_KINDS)
    def is_asked_for_edges(self, data: st.DataObject, ids: list[str], kinds: frozenset[str]) -> None:
        graph, told = self.some_time(data)
        some = [edge for edge in told.edges.values() if edge.source in ids and (not kinds or edge.kind in kinds)]
        some.sort(key=lambda edge: (edge.seq, edge.kind, edge.target, edge.source, edge.key))
        assert self.world.run(graph.edges_of(ids, kinds=kinds)) == some

    def some_time(self, data: st.DataObject) -> tuple[GraphReader, Told]:
        seq = data.draw(st.none() | st.integers(-1, len(self.history)))
        if seq is None:
            return self.store, Told(self.history)
        return self.store.as_of(seq), Told(self.history[: seq + 1])

    @invariant()
    def lists_what_it_was_told(self) -> None:
        newest = Told(self.history).newest()
        assert self.world.run(self.store.list()) == newest
        assert self.world.run(self.store.generations()) == {each.uid: (each.generation, each.gone) for each in newest}


async def _paged(graph: GraphReader, selector: LabelSelector, kind: str | None, limit: int) -> list[ResourceRecord]:
    found: list[ResourceRecord] = []
    after = None
    while page := await graph.query_by_labels(selector, kind=kind, after=after, limit=limit):
        assert len(page) <= limit
        found += page
        after = page[-1].kind, page[-1].namespace, page[-1].name, page[-1].uid
    return found


async def _walked(graph: GraphReader, start: str, route: Route) -> list[Hop]:
    return [hop async for hop in graph.traverse(start, route)]


@pytest.mark.parametrize("opens", WORLDS)
def test_any_history_of_operations(opens: Opens, request: pytest.FixtureRequest) -> None:
    with opens(request) as world:
        chosen: dict[str, Any] = {"max_examples": EXAMPLES, "stateful_step_count": 25, "deadline": None}
        run_state_machine_as_test(
            lambda: StoreAndModel(world),  # type: ignore[arg-type]
            settings=settings(**chosen, suppress_health_check=list(HealthCheck)),
        )
