"""Two workers that see one generation at the same moment record it once, and neither is disturbed."""

from typing import Any

import pytest

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.audit.model import EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.controllers.observe import Observer
from triplane.errors import IdReused

OBSERVED = EventFilter(types=frozenset({"resource.observed"}))


class LateLog(MemoryEventLog):
    """A log in which the entry of another worker is not there yet at the first look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._blind = looks

    async def get(self, event_id: str) -> Recorded | None:
        self._blind -= 1
        return None if self._blind >= 0 else await super().get(event_id)


def _context(log: MemoryEventLog, graph: MemoryGraphStore) -> Context:
    async def principal(username: str, uid: str) -> str:
        raise AssertionError("nobody was stamped on it")

    nothing: Any = None
    return Context(
        nothing, nothing, log, MemorySessionStore(SystemClock()), graph, MemoryContentStore(), principal, SystemClock(),
        lambda key, delay: None,
    )  # fmt: skip


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
    log = LateLog(looks=4)
    await Observer(_context(log, MemoryGraphStore())).observe(_review(), stream="graph/g-1")
    with pytest.raises(IdReused):
        await Observer(_context(log, MemoryGraphStore())).observe(_review())
