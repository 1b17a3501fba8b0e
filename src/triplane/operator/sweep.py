"""The sweep: an uncached LIST of everything against the mirror, because watches lie by omission.

A deletion can be lost while a watch begins again after 410 Gone, and a watch can be dead without saying so.
The sweep repairs what it finds and reports which watches should have told us.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import structlog

from triplane.api.kinds import KINDS
from triplane.errors import TriplaneError
from triplane.operator.index import Index, version
from triplane.operator.rewind import HighWater, rewound
from triplane.ports import Clock, Cluster, Page

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 30.0
SWEEP_JITTER = 0.2
SWEEP_SHARE = 0.05
SWEEP_LONGEST_SECONDS = 60.0
"""After a sweep that took long the next comes later, so that sweeping takes no larger share of the time; but not later
than this."""
LISTS_AT_START = 3
"""LISTs under way at once while the mirror is filled; later they come one by one, which keeps memory flat."""
LATE_SECONDS = 10.0
"""A watch that has not delivered for so long what a LIST showed is stuck."""


class Overdue:
    """What LISTs have shown and the watches have not delivered yet. Pure."""

    def __init__(self) -> None:
        self._missing: dict[str, tuple[str, int, float]] = {}

    def listed(self, kind: str, uid: str, resource_version: int, now: float) -> None:
        """A LIST showed this version before any watch did."""
        _, _, since = self._missing.get(uid, (kind, 0, now))
        self._missing[uid] = (kind, resource_version, since)

    def delivered(self, uid: str, resource_version: int, *, gone: bool) -> None:
        """A watch delivered this version, or the end of the object."""
        missing = self._missing.get(uid)
        if missing is not None and (gone or missing[1] <= resource_version):
            del self._missing[uid]

    def clear(self) -> None:
        """The watches have been begun again: everything will be delivered anew."""
        self._missing.clear()

    def stuck(self, now: float) -> frozenset[str]:
        """Kinds whose watch is late by more than ``LATE_SECONDS``."""
        return frozenset(kind for kind, _, since in self._missing.values() if now - since > LATE_SECONDS)


class Sweep:
    """Compares LIST and index, kind by kind. The index's change callback does the rest."""

    def __init__(
        self,
        cluster: Cluster,
        index: Index,
        clock: Clock,
        *,
        namespace: str | None = None,
        high_water: HighWater | None = None,
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._clock = clock
        self._namespace = namespace
        self._high_water = high_water
        self._checked = False
        self._checking = asyncio.Lock()
        self.took = 0.0
        """Seconds the last complete sweep took."""
        self.overdue = Overdue()
        self.completed_at: float | None = None
        """Monotonic time of the last complete sweep."""
        self.problem = ""
        """What ended the latest sweep before it was complete; empty when nothing did."""

    async def once(self, *, first: bool = False) -> int:
        """Sweep every kind; returns how many differences were repaired.

        ``first``: nothing is watched yet, so nothing is late. Raises ``Rewound`` when the server went back in
        time, and what the cluster raises; kinds swept before stay repaired.
        """
        began = self._clock.monotonic()
        self._checked = False
        gate = asyncio.Semaphore(LISTS_AT_START if first else 1)
        kinds = [asyncio.create_task(self._gated(gate, kind, first=first)) for kind in KINDS]
        try:
            repaired = sum(await asyncio.gather(*kinds))
        except TriplaneError as error:
            self.problem = str(error)
            raise
        finally:
            for task in kinds:
                task.cancel()
            await asyncio.gather(*kinds, return_exceptions=True)
        self.completed_at = self._clock.monotonic()
        self.problem = ""
        self.took = self.completed_at - began
        return repaired

    async def _gated(self, gate: asyncio.Semaphore, kind: str, *, first: bool) -> int:
        async with gate:
            return await self._sweep(kind, first=first)

    async def _sweep(self, kind: str, *, first: bool) -> int:
        # The snapshot is taken before the LIST: what appears meanwhile is not mistaken for deleted.
        before = self._index.versions(kind)
        floor = self._index.highest_version
        unlisted: dict[str, Any] = {}
        repaired = 0
        async for page in self._cluster.pages(kind, self._namespace):
            await self._refuse_the_past(int(page.version), floor)
            if page.first:
                unlisted = dict(before)
            repaired += self._compare(kind, page, unlisted, first=first)
            del page  # not to be kept while the next one is read
        for obj in unlisted.values():
            if self._index.remove(obj) is not None:
                repaired += 1
                log.info("a deletion was seen by the sweep", kind=kind, **_where(obj))
        return repaired

    def _compare(self, kind: str, page: Page, unlisted: dict[str, Any], *, first: bool) -> int:
        repaired = 0
        for item in page.items:
            uid = item["metadata"]["uid"]
            unlisted.pop(uid, None)
            if self._index.observe(item) is not None:
                repaired += 1
                if not first:
                    self.overdue.listed(kind, uid, version(item), self._clock.monotonic())
        return repaired

    async def _refuse_the_past(self, listed_at: int, floor: int) -> None:
        """Nothing of a LIST older than what we have seen may be acted on, least of all what it lacks."""
        if listed_at < floor:
            raise rewound(listed_at, floor)
        async with self._checking:  # no other LIST may be acted on before the first was checked
            if self._high_water is not None and not self._checked:
                await self._high_water.check(listed_at)
                self._checked = True


def _where(obj: Mapping[str, Any]) -> dict[str, str]:
    metadata = obj["metadata"]
    return {"namespace": metadata.get("namespace", ""), "name": metadata["name"], "uid": metadata["uid"]}


def pause(rng: random.Random, took: float = 0.0) -> float:
    """Seconds until the next sweep, after one that took so long."""
    wait = min(max(SWEEP_SECONDS, took / SWEEP_SHARE), SWEEP_LONGEST_SECONDS)
    return wait * rng.uniform(1 - SWEEP_JITTER, 1 + SWEEP_JITTER)
