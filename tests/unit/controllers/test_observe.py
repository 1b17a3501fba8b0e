"""Two workers that see one generation at the same moment record it once, and neither is disturbed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.api.text import REQUESTER
from triplane.audit.model import EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.projection import GraphProjector, ProjectedLog
from triplane.domain.task_facts import Placement
from triplane.domain.task_log import task_placed
from triplane.errors import IdReused, Unavailable
from triplane.ports import GraphChange

OBSERVED = EventFilter(types=frozenset({"resource.observed"}))


class LateLog(MemoryEventLog):
    """A log in which the entry of another worker is not there yet at the first look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._blind = looks

    async def get(self, event_id: str) -> Recorded | None:
        return (await self.get_many([event_id])).get(event_id)

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        self._blind -= 1
        return {} if self._blind >= 0 else await super().get_many(event_ids)


def _context(log: MemoryEventLog, graph: MemoryGraphStore, content: MemoryContentStore | None = None) -> Context:
    async def principal(username: str, uid: str) -> str:
        return f"p-{username}"

    nothing: Any = None
    return Context(
        cluster=nothing,
        index=nothing,
        log=log,
        sessions=MemorySessionStore(SystemClock()),
        graph=graph,
        content=content or MemoryContentStore(),
        expressions=nothing,
        policies=nothing,
        contracts=nothing,
        signing=nothing,
        principal=principal,
        clock=SystemClock(),
        enqueue=lambda key, delay: None,
    )


def _review() -> dict[str, Any]:
    metadata = {"namespace": "demo", "name": "r", "uid": "u-1", "generation": 1}
    return {"kind": "Review", "metadata": metadata, "spec": {"verdict": "Approve"}}


async def test_a_generation_that_another_worker_just_recorded_in_another_stream_stands() -> None:
    log = LateLog(looks=2)
    first, second = MemoryGraphStore(), MemoryGraphStore()
    await Observer(_context(log, first)).observe(_review(), stream="graph/g-1")
    await Observer(_context(log, second)).observe(_review())
    (entry,) = await log.query(OBSERVED)
    assert entry.entry["stream"] == "graph/g-1"
    for graph in (first, second):
        kept = await graph.get("u-1")
        assert kept is not None
        assert kept.seq == entry.seq


async def test_what_is_still_being_recorded_is_asked_for_again_later() -> None:
    log = LateLog(looks=3)
    await Observer(_context(log, MemoryGraphStore())).observe(_review(), stream="graph/g-1")
    with pytest.raises(IdReused):
        await Observer(_context(log, MemoryGraphStore())).observe(_review())


def _task(number: int = 1, generation: int = 1, **metadata: Any) -> dict[str, Any]:
    meta = {"namespace": "demo", "name": f"t-{number}", "uid": f"t-{number}", "generation": generation, **metadata}
    return {"kind": "Task", "metadata": meta, "spec": {"objective": f"do {number}"}}


class Counted:
    """Counts the calls of a store."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._inner, name)


async def test_many_are_observed_with_one_look_one_append_and_one_write() -> None:
    log, graph = Counted(MemoryEventLog()), Counted(MemoryGraphStore())
    observer = Observer(_context(log, graph))  # type: ignore[arg-type]
    agent = {**_task(), "kind": "Agent", "metadata": {"namespace": "demo", "name": "a", "uid": "a-1", "generation": 1}}
    await observer.observe_many([_task(1), _task(2), agent, _task(1)], stream="graph/g-1")
    assert (log.calls, graph.calls) == (["get_many", "append"], ["apply"])
    await observer.observe_many([_task(1), _task(2)], stream="graph/g-1")
    assert (log.calls, graph.calls) == (["get_many", "append"], ["apply"])
    streams = {entry.entry["subject"]["uid"]: entry.entry["stream"] for entry in await log.query(OBSERVED)}
    assert streams == {"t-1": "graph/g-1", "t-2": "graph/g-1", "a-1": "system"}
    assert [edge.target for edge in await graph.edges("g-1")] == ["t-1", "t-2"]


async def test_what_the_graph_keeps_is_all_in_the_entry_and_its_documents() -> None:
    log, content = MemoryEventLog(), MemoryContentStore()
    live, again = MemoryGraphStore(), MemoryGraphStore()
    labels = {"triplane.dev/graph": "g", "team": "red", "app.kubernetes.io/name": "x"}
    owners = [
        {"uid": "n-1", "kind": "Node", "name": "n", "controller": True},
        {"uid": "else", "kind": "X", "name": "x"},
    ]
    obj = _task(labels=labels, ownerReferences=owners, annotations={REQUESTER: "alice"}, generation=3)
    await Observer(_context(log, live, content)).observe(obj, stream="graph/g-1")
    await GraphProjector(_context(log, again, content)).catch_up()
    for graph in (live, again):
        kept = await graph.get("t-1")
        assert kept is not None
        assert (kept.labels, kept.spec, kept.requester) == (labels, {"objective": "do 1"}, "p-alice")
        assert [(edge.source, edge.kind) for edge in await graph.edges("t-1", outgoing=False)] == [("n-1", "owns")]
    assert await live.page_records() == await again.page_records()
    (entry,) = await log.query(OBSERVED)
    assert (entry.entry["data"]["skippedFrom"], entry.entry["data"]["skippedTo"]) == (1, 2)
    assert entry.entry["actor"] == "system"
    assert b"red" not in entry.octets


async def test_the_next_generation_skips_nothing_that_was_kept() -> None:
    log, graph = MemoryEventLog(), MemoryGraphStore()
    await Observer(_context(log, graph)).observe(_task())
    other = Observer(_context(log, graph))
    await other.observe(_task(generation=2))
    await other.observe(_task(generation=5))
    skipped = [entry.entry["data"].get("skippedFrom") for entry in await log.query(OBSERVED)]
    assert skipped == [None, None, 3]


async def test_what_was_recorded_and_not_applied_is_made_up_for() -> None:
    log, content, graph = MemoryEventLog(), MemoryContentStore(), MemoryGraphStore()
    observer = Observer(_context(log, MemoryGraphStore(), content))
    await observer.observe(_task(), stream="graph/g-1")
    await observer.gone(_task())
    context = _context(log, graph, content)
    projector = GraphProjector(context)
    assert await projector.catch_up() == 2
    kept = await graph.get("t-1")
    assert kept is not None
    assert kept.gone
    assert len(await graph.edges("g-1")) == 1
    assert await projector.catch_up() == 0
    assert await GraphProjector(replace(context, graph=MemoryGraphStore())).catch_up() == 0, "the cursor is durable"


async def test_a_generation_whose_document_was_erased_holds_nothing_up() -> None:
    log, content, graph = MemoryEventLog(), MemoryContentStore(), MemoryGraphStore()
    observer = Observer(_context(log, MemoryGraphStore(), content))
    await observer.observe_many([_task(1), _task(2)])
    (first, _) = await log.query(OBSERVED)
    await content.delete(first.entry["data"]["specDigest"])
    await GraphProjector(_context(log, graph, content)).catch_up()
    assert [record.uid for record in await graph.list()] == ["t-2"]


async def test_an_append_shows_in_the_graph_and_failing_to_is_not_forgotten() -> None:
    class Away(MemoryGraphStore):
        away = True

        async def apply(self, change: GraphChange) -> None:
            if self.away:
                raise Unavailable("the graph store is away")
            await super().apply(change)

    inner, graph = MemoryEventLog(), Away()
    log = ProjectedLog(inner, graph)
    placement = Placement("producer", 1, 0, "a-1", "agent", None, None)
    body = task_placed(subject_of(_task()), "graph/g-1", placement, owner_uid="n-1", depends_on=["t-0"])
    with pytest.raises(Unavailable):
        await log.append([body])
    assert log.behind
    assert await inner.get(body.id) is not None
    graph.away = False
    await log.append([body])
    assert [(edge.kind, edge.target) for edge in await graph.edges("t-1")] == [("dependsOn", "t-0")]
    assert [edge.source for edge in await graph.edges("t-1", outgoing=False)] == ["n-1"]


async def test_more_labels_than_an_entry_holds_lose_none_and_keep_no_object_out_of_the_log() -> None:
    labels = {f"triplane.dev/a{number:03}-{'x' * 50}": "v" * 63 for number in range(600)}
    labels |= {"triplane.dev/graph": "g", "example.org/team": "blue"}
    log, graph = MemoryEventLog(), MemoryGraphStore()
    await Observer(_context(log, graph)).observe(_task(labels=labels))
    (entry,) = await log.query(OBSERVED)
    said = dict(entry.entry["subject"]["labels"])
    assert len(said) == 32
    assert said["triplane.dev/graph"] == "g"
    kept = await graph.get("t-1")
    assert kept is not None
    assert dict(kept.labels) == labels
