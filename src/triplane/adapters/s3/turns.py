"""Who in this process works on which blob: writers of one take turns, and nobody collects what is in use."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Turns:
    """A lock per blob, kept only while somebody wants it."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._uses: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, digits: str) -> AsyncIterator[None]:
        """One at a time per blob."""
        with self.used(digits):
            async with self._locks.setdefault(digits, asyncio.Lock()):
                yield

    @contextmanager
    def used(self, digits: str) -> Iterator[None]:
        """Somebody reads or writes it."""
        self._uses[digits] += 1
        try:
            yield
        finally:
            self._uses[digits] -= 1
            if not self._uses[digits]:
                del self._uses[digits]
                self._locks.pop(digits, None)

    def in_use(self, digits: str) -> bool:
        """Whether anybody does."""
        return digits in self._uses
