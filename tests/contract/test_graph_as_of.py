"""The graph as of an entry is the graph made of the log up to that entry: every entry of any history, every backend.

``TRIPLANE_GRAPH_EXAMPLES`` asks for more histories than the few of a usual run.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from tests.contract.graph_world import BLOBS, UIDS, WORLDS, GraphWorld, History, histories

from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.domain.selector import parse_selector
from triplane.ports import GraphReader, Route

EXAMPLES = int(os.environ.get("TRIPLANE_GRAPH_EXAMPLES", "5"))
SELECTORS = ["", "env", "!env", "env=x", "env!=x", "env in (x, y),tier", "env notin (y),!tier"]
ROUTES = [
    Route(None, None, every=True),
    Route(frozenset({"owns", "produces"}), frozenset({"derivedFrom"}), frozenset({"dependsOn"}), every=True),
    Route(None, None, namespaces=frozenset({"team"}), max_depth=2, every=True),
]


class Opens(Protocol):
    def __call__(self, request: pytest.FixtureRequest) -> AbstractContextManager[GraphWorld]: ...


async def told(graph: GraphReader) -> dict[str, Any]:
    """Everything that can be asked of it."""
    ids: Sequence[str] = (*UIDS, *BLOBS)
    return {
        "list": [*await graph.list()],
        "kinds": [[*await graph.list(kind, namespace)] for kind in ("Task", "Node") for namespace in ("team", None)],
        "get": [await graph.get(uid, generation) for uid in UIDS for generation in (None, 1, 2, 3)],
        "get_many": dict(await graph.get_many(UIDS)),
        "find": [[*await graph.find("Task", "team", f"name-{uid}")] for uid in UIDS],
        "labels": [[*await graph.query_by_labels(parse_selector(each))] for each in SELECTORS],
        "edges": [[*await graph.edges_of(ids, outgoing=way)] for way in (True, False)],
        "walks": [[hop async for hop in graph.traverse(start, route)] for start in ("a", BLOBS[0]) for route in ROUTES],
    }


@pytest.mark.parametrize("opens", WORLDS)
def test_as_of_is_what_the_log_up_to_there_makes(opens: Opens, request: pytest.FixtureRequest) -> None:
    with opens(request) as world:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(histories())
        def holds(history: History) -> None:
            world.run(_compare(world, history))

        holds()


async def _compare(world: GraphWorld, history: History) -> None:
    store = world.fresh()
    for seq in range(len(history.entries)):
        await store.apply(history.change(seq))
    prefix = MemoryGraphStore()
    assert (await store.as_of(-1).list(), await told(store)) == ([], await told(store.as_of(len(history.entries))))
    for seq in range(len(history.entries)):
        await prefix.apply(history.change(seq))
        assert await told(store.as_of(seq)) == await told(prefix), f"as of entry {seq}"
