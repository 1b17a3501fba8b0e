"""The line before the workers: first come, first served, in two lanes.

What can wait (finished work that is looked at once more after a start) stands behind new work, but not for
ever: one key in eight is taken from behind while both lanes are full.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BEHIND_EVERY = 8
"""While keys wait in both lanes, every so-manieth comes from the lane behind."""


class Line(Generic[K]):
    """Keys in line, each once. One event loop, many getters."""

    def __init__(self) -> None:
        self._ahead: OrderedDict[K, float] = OrderedDict()
        self._behind: OrderedDict[K, float] = OrderedDict()
        self._taken = 0
        self._waiting = asyncio.Semaphore(0)

    def put(self, key: K, *, behind: bool = False) -> None:
        """Stand in line; the key must not be there already."""
        (self._behind if behind else self._ahead)[key] = time.monotonic()
        self._waiting.release()

    def promote(self, key: K) -> None:
        """To the end of the lane ahead, if it stands in the one behind."""
        if self._behind.pop(key, None) is not None:
            self._ahead[key] = time.monotonic()

    async def get(self) -> K:
        """The next key, as soon as there is one."""
        while True:
            await self._waiting.acquire()
            if self:  # it may have been cleared since
                break
        self._taken += 1
        first, second = self._ahead, self._behind
        if self._taken % BEHIND_EVERY == 0:
            first, second = second, first
        key, _ = (first or second).popitem(last=False)
        return key

    def clear(self) -> list[K]:
        """Send everybody away; returns who stood here."""
        keys = [*self._ahead, *self._behind]
        self._ahead.clear()
        self._behind.clear()
        return keys

    @property
    def oldest_seconds(self) -> float:
        """How long the first of either lane has waited; 0 when nobody waits."""
        fronts = [next(iter(lane.values())) for lane in (self._ahead, self._behind) if lane]
        return time.monotonic() - min(fronts) if fronts else 0.0

    def __len__(self) -> int:
        return len(self._ahead) + len(self._behind)
