"""Keys that want to be worked on some time: one heap and one timer for all of them, however many there are."""

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SLACK = 1024
"""Superseded wishes that may stay in the heap beyond one per key before it is made anew."""
TICK_SECONDS = 0.001
"""An event loop rings up to one tick of its clock early."""


class Later(Generic[K]):
    """At most one wish per key. ``ring`` is called with each key when its time has come."""

    def __init__(self, ring: Callable[[K], None]) -> None:
        self._ring = ring
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._wishes = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def add(self, key: K, delay: float) -> None:
        """Ring after ``delay`` seconds, unless it will ring earlier anyway."""
        due = asyncio.get_running_loop().time() + delay
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._wishes += 1  # keys need not be comparable
        heapq.heappush(self._heap, (due, self._wishes, key))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [item for item in self._heap if self._stands(item)]
            heapq.heapify(self._heap)
        self._set_alarm()

    def discard(self, key: K) -> None:
        """Take the key's wish back, if it has one."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Take all wishes back."""
        self._due.clear()
        self._heap.clear()
        self._set_alarm()

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)

    def _stands(self, item: tuple[float, int, K]) -> bool:
        """Whether this wish is still its key's own: superseded ones stay in the heap until they come up."""
        return self._due.get(item[2]) == item[0]

    def _set_alarm(self) -> None:
        while self._heap and not self._stands(self._heap[0]):
            heapq.heappop(self._heap)
        due = self._heap[0][0] if self._heap else None
        if self._alarm is not None:
            if due is not None and self._alarm_at <= due:
                return  # it rings early enough, and is set again then
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._alarm = asyncio.get_running_loop().call_at(due, self._wake)
            self._alarm_at = due

    def _wake(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time() + TICK_SECONDS
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)
            if self._stands(item):
                del self._due[item[2]]
                self._ring(item[2])
        self._set_alarm()
