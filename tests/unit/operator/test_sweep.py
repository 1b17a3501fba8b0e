"""The sweep: repairs, spots late watches, and refuses to act on the past."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.operator.objects import make

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.errors import Forbidden
from triplane.operator.index import Change, Index
from triplane.operator.rewind import HighWater, Rewound
from triplane.operator.sweep import LATE_SECONDS, Overdue, Sweep
from triplane.ports import Page


class Lists:
    """A cluster that answers LIST from a dictionary, one object a page; ``during`` runs while a LIST is under way."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.version = 100
        self.during: Any = lambda kind: None
        self.broken_off: dict[str, list[dict[str, Any]]] = {}
        """First pages of LISTs that then had to begin again."""

    async def pages(self, kind: str, namespace: str | None = None) -> AsyncIterator[Page]:
        items, version = list(self.objects.get(kind, [])), str(self.version)
        half = self.broken_off.get(kind)
        if half is not None:
            yield Page(half, version, first=True)
        self.during(kind)
        yield Page(items[:1], version, first=True)
        for item in items[1:]:
            yield Page([item], version, first=False)

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        return {"metadata": {"uid": "this-cluster"}}


def sweep(index: Index, lists: Lists, high_water: HighWater | None = None) -> Sweep:
    return Sweep(lists, index, SystemClock(), high_water=high_water)  # type: ignore[arg-type]


async def test_what_only_the_list_shows_is_taken_in_and_noted_as_late() -> None:
    index, lists = Index(), Lists()
    lists.objects["Task"] = [make("Task", "t", rv=5)]
    it = sweep(index, lists)
    assert await it.once() == 1
    assert index.get("Task", "team", "t") is not None
    assert it.overdue.stuck(SystemClock().monotonic() + LATE_SECONDS + 1) == {"Task"}
    assert await it.once() == 0


async def test_what_the_first_sweep_shows_is_not_late() -> None:
    index, lists = Index(), Lists()
    lists.objects["Task"] = [make("Task", "t", rv=5)]
    it = sweep(index, lists)
    await it.once(first=True)
    assert it.overdue.stuck(SystemClock().monotonic() + 3600) == frozenset()


async def test_what_the_list_lacks_is_gone() -> None:
    changes: list[Change] = []
    index, lists = Index(changes.append), Lists()
    index.put(make("Task", "t", rv=5))
    assert await sweep(index, lists).once() == 1
    assert index.get("Task", "team", "t") is None
    assert changes[-1].after is None


async def test_what_is_on_a_later_page_is_not_gone() -> None:
    index, lists = Index(), Lists()
    lists.objects["Task"] = [make("Task", f"t{number}", uid=f"u{number}", rv=5) for number in range(3)]
    assert await sweep(index, lists).once() == 3
    assert await sweep(index, lists).once() == 0
    assert index.counts()["Task"] == 3


async def test_what_was_deleted_before_a_list_began_again_is_gone() -> None:
    index, lists = Index(), Lists()
    index.put(make("Task", "t", rv=5))
    lists.broken_off["Task"] = [make("Task", "t", rv=5)]
    assert await sweep(index, lists).once() == 1
    assert index.get("Task", "team", "t") is None


async def test_what_appears_while_the_list_is_under_way_is_not_mistaken_for_deleted() -> None:
    index, lists = Index(), Lists()

    def appear(kind: str) -> None:
        if kind == "Task":
            lists.version = 101  # of the LISTs after this one
            index.put(make("Task", "t", rv=101))

    lists.during = appear
    await sweep(index, lists).once()
    assert index.get("Task", "team", "t") is not None


async def test_a_list_from_the_past_deletes_nothing() -> None:
    index, lists = Index(), Lists()
    index.put(make("Task", "t", rv=500))
    with pytest.raises(Rewound, match="500 was seen before"):
        await sweep(index, lists).once()
    assert index.get("Task", "team", "t") is not None


async def test_a_restore_is_noticed_by_a_new_process_and_accepted_when_told_to() -> None:
    sessions = MemorySessionStore(SystemClock())
    lists = Lists()
    lists.version = 1000

    def process(*, accept: bool = False) -> Sweep:
        return sweep(Index(), lists, HighWater(lists, sessions, accept_restore=accept))  # type: ignore[arg-type]

    await process().once(first=True)
    lists.version = 400
    lists.objects["Task"] = [make("Task", "t", rv=300)]
    with pytest.raises(Rewound):
        await process().once(first=True)
    accepting = process(accept=True)
    await accepting.once(first=True)
    lists.version = 450
    await accepting.once()
    await process().once(first=True)
    lists.version = 420
    with pytest.raises(Rewound):
        await process().once(first=True)


def test_a_delivery_clears_what_was_late_only_when_it_is_as_new() -> None:
    overdue = Overdue()
    overdue.listed("Task", "u", 7, 0.0)
    overdue.delivered("u", 6, gone=False)
    assert overdue.stuck(LATE_SECONDS + 1) == {"Task"}
    overdue.delivered("u", 7, gone=False)
    assert overdue.stuck(LATE_SECONDS + 1) == frozenset()


def test_lateness_counts_from_the_first_list_that_showed_it() -> None:
    overdue = Overdue()
    overdue.listed("Task", "u", 7, 0.0)
    overdue.listed("Task", "u", 8, LATE_SECONDS)
    assert overdue.stuck(LATE_SECONDS + 1) == {"Task"}
    overdue.delivered("u", 0, gone=True)
    assert overdue.stuck(LATE_SECONDS + 1) == frozenset()


async def test_what_ended_a_sweep_is_kept_until_one_is_complete() -> None:
    """Readiness tells it: rights that were withdrawn, say."""
    lists = Lists()
    it = sweep(Index(), lists)

    def refuse(kind: str) -> None:
        raise Forbidden(f"listing {kind}: the operator may not list {kind}")

    lists.during = refuse
    with pytest.raises(Forbidden):
        await it.once()
    assert "may not list" in it.problem
    lists.during = lambda kind: None
    await it.once()
    assert it.problem == ""
