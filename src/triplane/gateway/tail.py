"""The end of the log, kept once for all who follow it.

One reader per process takes entries from the store as they are committed; every stream reads from what it keeps. A
stream that falls behind costs nothing here: what it has missed it reads from the store by number, when it gets there.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog

from triplane.audit.model import Recorded
from triplane.errors import TriplaneError
from triplane.gateway.answers import Refusal
from triplane.ports import EventLog

_log = structlog.get_logger()
ENTRIES: Final = 1024
OCTETS: Final = 4 << 20
"""At most so much is kept."""
_RETRY_SECONDS: Final = 1.0
MOST: Final = 64
MOST_EACH: Final = 8
"""Streams of this process, and of one person."""


class Tail:
    """The last entries of one log. Reads while anyone follows."""

    def __init__(self, *, entries: int = ENTRIES, octets: int = OCTETS) -> None:
        self._most = (entries, octets)
        self._kept: deque[Recorded] = deque()
        self._octets = 0
        self._first = 0
        self._live = False
        self._news = asyncio.Event()
        self._followers = 0
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def followed(self, log: EventLog) -> AsyncIterator[None]:
        """Read the log's end while the body runs."""
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._read(log), name="tail of the log")
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._task is not None:
                task, self._task = self._task, None
                self._drop()
                task.cancel()  # whoever follows next begins another; this one ends when it can

    @property
    def news(self) -> asyncio.Event:
        """Set as soon as there is more than now; each is for one waiting."""
        return self._news

    def since(self, after: int) -> tuple[list[Recorded], int] | None:
        """All entries behind ``after`` that are there, and the number of the last; None when they reach further back
        than what is kept, or nothing is known now, not even of entry ``after``."""
        last = self._first + len(self._kept) - 1
        if not self._live or not self._first <= after + 1 <= last + 1:
            return None
        return list(islice(self._kept, after + 1 - self._first, None)), last

    async def _read(self, log: EventLog) -> None:
        while self._task is asyncio.current_task():
            try:
                size, _ = await log.head()
                if self._task is not asyncio.current_task():
                    return  # given up, though the cancellation was swallowed: another one reads
                self._first, self._live = size, True
                self._ring()
                async with aclosing(log.stream(after=size - 1)) as source:  # type: ignore[type-var]
                    async for recorded in source:
                        if self._task is not asyncio.current_task():
                            return
                        self._add(recorded)
            except TriplaneError as error:
                if self._task is not asyncio.current_task():
                    return
                _log.warning("the end of the log cannot be read; trying again", error=str(error))
                self._drop()
                await asyncio.sleep(_RETRY_SECONDS)

    def _add(self, recorded: Recorded) -> None:
        self._kept.append(recorded)
        self._octets += len(recorded.octets)
        entries, octets = self._most
        while len(self._kept) > entries or self._octets > octets:
            self._octets -= len(self._kept.popleft().octets)
            self._first += 1
        self._ring()

    def _drop(self) -> None:
        self._kept.clear()
        self._octets = 0
        self._live = False
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(slots=True)
class Streams:
    """Who has streams open."""

    of: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def one_more(self, name: str) -> Iterator[None]:
        """Count one while the body runs; 429 when there are as many as there may be."""
        if self.of.total() >= MOST or self.of[name] >= MOST_EACH:
            whose = f"{name} has {MOST_EACH}" if self.of[name] >= MOST_EACH else f"there are {MOST}"
            raise Refusal(429, "TooManyStreams", f"{whose} streams of the log open, no more are served: close one")
        self.of[name] += 1
        try:
            yield
        finally:
            self.of[name] -= 1
            self.of += Counter()  # forget who has none
