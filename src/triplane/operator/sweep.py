"""The sweep: an uncached LIST of everything against the mirror, because watches lie by omission.

A deletion can be lost while a watch begins again after 410 Gone, and a watch can be dead without saying so.
The sweep repairs what it finds and reports which watches should have told us.
"""

import random
from collections.abc import Mapping
from typing import Any

import structlog

from triplane.api.kinds import KINDS
from triplane.operator.index import Index, version
from triplane.operator.rewind import HighWater, rewound
from triplane.ports import Clock, Cluster

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 30.0
SWEEP_JITTER = 0.2
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
        self.overdue = Overdue()
        self.completed_at: float | None = None
        """Monotonic time of the last complete sweep."""

    async def once(self, *, first: bool = False) -> int:
        """Sweep every kind; returns how many differences were repaired.

        ``first``: nothing is watched yet, so nothing is late. Raises ``Rewound`` when the server went back in
        time, and what the cluster raises; kinds swept before stay repaired.
        """
        repaired = 0
        self._checked = False
        for kind in KINDS:
            repaired += await self._sweep(kind, first=first)
        self.completed_at = self._clock.monotonic()
        return repaired

    async def _sweep(self, kind: str, *, first: bool) -> int:
        # The snapshot is taken before the LIST: what appears meanwhile is not mistaken for deleted.
        known = dict(self._index.versions(kind))
        floor = self._index.highest_version
        items, listed_at = await self._cluster.list(kind, self._namespace)
        await self._refuse_the_past(int(listed_at), floor)
        repaired = 0
        for item in items:
            uid = item["metadata"]["uid"]
            known.pop(uid, None)
            if self._index.observe(item) is not None:
                repaired += 1
                if not first:
                    self.overdue.listed(kind, uid, version(item), self._clock.monotonic())
        for obj in known.values():
            if self._index.remove(obj) is not None:
                repaired += 1
                log.info("a deletion was seen by the sweep", kind=kind, **_where(obj))
        return repaired

    async def _refuse_the_past(self, listed_at: int, floor: int) -> None:
        """Nothing of a LIST older than what we have seen may be acted on, least of all what it lacks."""
        if listed_at < floor:
            raise rewound(listed_at, floor)
        if self._high_water is not None and not self._checked:
            await self._high_water.check(listed_at)
            self._checked = True


def _where(obj: Mapping[str, Any]) -> dict[str, str]:
    metadata = obj["metadata"]
    return {"namespace": metadata.get("namespace", ""), "name": metadata["name"], "uid": metadata["uid"]}


def pause(rng: random.Random) -> float:
    """Seconds until the next sweep."""
    return SWEEP_SECONDS * rng.uniform(1 - SWEEP_JITTER, 1 + SWEEP_JITTER)
