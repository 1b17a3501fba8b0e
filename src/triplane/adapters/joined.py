"""Reads that several want at the same moment, made once for all of them.

Nobody gets an answer older than the question: a read serves only those who asked before it began. So it may stand
wherever a read of one's own may, uncached reads before a launch included.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Joined(Generic[K, T]):
    """``await joined(key)`` is ``await read(key)``, shared by those who wait for its beginning. One read of a key is
    under way at a time. The result is one object for all: nobody may change it."""

    def __init__(self, read: Callable[[K], Awaitable[T]]) -> None:
        self._read = read
        self._under_way: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def __call__(self, key: K) -> T:
        """Raises what the read raises. Cancelling one caller leaves the read to the others."""
        waited_for = self._next.get(key)
        if waited_for is None:
            waited_for = self._next[key] = asyncio.create_task(self._in_turn(key, self._under_way.get(key)))
            waited_for.add_done_callback(_seen)
        return await asyncio.shield(waited_for)

    async def _in_turn(self, key: K, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        # From here on the read has begun: who asks now has to wait for another.
        mine = self._under_way[key] = self._next.pop(key)
        try:
            return await self._read(key)
        finally:
            if self._under_way.get(key) is mine:
                del self._under_way[key]


def _seen(task: "asyncio.Task[T]") -> None:
    """Every caller may have been cancelled: then nobody else looks at how it ended."""
    if not task.cancelled():
        task.exception()
