"""Fairness between Graphs as a property: on the backend in memory, for it takes thousands of claims."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.session_world import ManualClock

from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.conformance.sessions import DONE
from triplane.conformance.sessionsubject import offer, permitted
from triplane.domain.session import Claim


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 4))
async def test_no_graph_gets_a_slot_while_one_with_fewer_waits(graphs: list[int], slots: int) -> None:
    """Whatever waits, a claim goes to a Graph that has the fewest live runs among those waiting; all get done."""
    store = MemorySessionStore(ManualClock())
    for number, graph in enumerate(graphs):
        assert await store.offer(offer(f"s{number}", graph=f"g{graph}", task=f"t{number}"))
        await permitted(store, f"s{number}")
    waiting = Counter(f"g{graph}" for graph in graphs)
    live: list[Claim] = []
    for _ in range(2 * len(graphs)):
        if len(live) < slots and (claim := await store.claim("runner", "i1")) is not None:
            at_work = Counter(item.graph_uid for item in live)
            assert at_work[claim.graph_uid] == min(at_work[graph] for graph, n in waiting.items() if n)
            waiting[claim.graph_uid] -= 1
            live.append(claim)
        elif live:
            done = live.pop(0)
            await store.finish(done.session_uid, done.run, DONE)
    assert not waiting.total()
