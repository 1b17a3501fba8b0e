"""The graph stores under test, and histories to fill them with."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.audit.digest import digest_of_json
from triplane.audit.model import SYSTEM_ACTOR, EventSubject, JsonObject
from triplane.domain.projection import LogEntry, documents_of, project
from triplane.domain.resourcegraph import GraphChange
from triplane.ports import GraphStore

T = TypeVar("T")
UIDS = ("a", "b", "c", "d", "e")
BLOBS = tuple(f"sha256:{digit * 64}" for digit in "12")
KINDS = ("Task", "Node", "Artifact")
NAMESPACES = ("team", "other")
TYPES = ("resource.observed", "resource.observed", "task.placed", "task.placed", "resource.gone", "input.composed")


@dataclass
class GraphWorld:
    """A loop of its own, and an empty store for each example."""

    runner: asyncio.Runner
    fresh: Callable[[], GraphStore]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


@contextmanager
def memory_world(request: pytest.FixtureRequest) -> Iterator[GraphWorld]:
    with asyncio.Runner() as runner:
        yield GraphWorld(runner, MemoryGraphStore)


@contextmanager
def postgres_world(request: pytest.FixtureRequest) -> Iterator[GraphWorld]:
    database = new_database(request.getfixturevalue("postgres_server"))
    pool = make_pool(database.dsn("operator"), name="graph")

    def fresh() -> GraphStore:
        with database.superuser() as anyone:
            anyone.execute("TRUNCATE graph.resources, graph.edges, graph.gone")
        return PostgresGraphStore(pool)

    with asyncio.Runner() as runner:
        try:
            runner.run(open_pool(pool))
            yield GraphWorld(runner, fresh)
        finally:
            runner.run(pool.close())
            drop_database(database)


WORLDS = [pytest.param(memory_world, id="memory"), pytest.param(postgres_world, id="postgres")]


@dataclass(frozen=True)
class History:
    """Entries of a log, their documents, and what each says of the graph."""

    entries: Sequence[LogEntry]
    documents: dict[str, JsonObject]

    def change(self, seq: int) -> GraphChange:
        entry = self.entries[seq]
        return project(entry, {digest: self.documents[digest] for digest in documents_of(entry)})


@st.composite
def histories(draw: st.DrawFn, largest: int = 14) -> History:
    """Any entries in any order, but of each generation one: what no log can hold is left out, what an odd one may hold
    (an end before the beginning, an edge told twice, generations out of order) is not."""
    entries: list[LogEntry] = []
    documents: dict[str, JsonObject] = {}
    seen: set[tuple[str, int]] = set()
    for _ in range(draw(st.integers(min(6, largest), largest))):
        uid = draw(st.sampled_from(UIDS[:3]))  # few, that much happens to each
        number = UIDS.index(uid)
        kind, namespace = KINDS[number % len(KINDS)], NAMESPACES[number % len(NAMESPACES)]
        generation = draw(st.integers(1, 3))
        type_ = draw(st.sampled_from(TYPES))
        data: dict[str, Any] = {}
        labels: tuple[tuple[str, str], ...] = ()
        other = st.sampled_from(UIDS)
        if type_ == "resource.observed":
            if (uid, generation) in seen:
                continue
            seen.add((uid, generation))
            spec = {"name": "out", "digest": draw(st.sampled_from(BLOBS)), "round": draw(st.integers(1, 2))}
            user = draw(st.dictionaries(st.sampled_from(["env", "tier"]), st.sampled_from(["x", "y"]), max_size=2))
            labels = (("triplane.dev/graph", draw(st.sampled_from(["g", "h"]))),)
            data = {"specDigest": digest_of_json(spec), "labelsDigest": digest_of_json(user), "ownerUid": draw(other)}
            documents |= {data["specDigest"]: spec, data["labelsDigest"]: user}
        elif type_ == "task.placed":
            data = {"ownerUid": draw(other), "dependsOn": draw(st.lists(other, max_size=3))}
        elif type_ == "input.composed":
            part = {"digest": BLOBS[0], "path": draw(st.sampled_from(["/a", "/b"])), "to": "/c"}
            data = {"digest": BLOBS[1], "input": "in", "merge": "JsonObject", "edges": [part]}
        subject = EventSubject(
            kind=kind, namespace=namespace, name=f"name-{uid}", uid=uid, generation=generation, labels=labels
        )
        # One place composes an input once; the same place told again is the same edge.
        id_ = f"{type_}/{uid}/{draw(st.integers(1, 2))}"
        entries.append(LogEntry(id_, type_, "graph/g-1", SYSTEM_ACTOR, subject, data, len(entries)))
    return History(entries, documents)
