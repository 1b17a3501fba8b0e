"""The work queue: each key at most once in line and at most once at work, retried with backoff.

A key added while it is at work is done again afterwards, so nothing that happened meanwhile is missed. A key
that fails waits longer each time, with jitter so that keys which failed together do not return together; a
new event does not wait. What is kept grows with the number of distinct keys, never with the number of events.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from triplane.errors import Conflict, Fenced, TriplaneError, Unavailable
from triplane.operator.later import Later
from triplane.operator.line import Line

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay after the n-th failure in a row: ``base · factor^(n-1)``, at most ``cap``, ± ``jitter`` of it.
    Seconds."""

    base: float = 0.2
    factor: float = 2.0
    cap: float = 30.0
    jitter: float = 0.2

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after ``failures`` (≥ 1) failures in a row."""
        exponent = min(failures - 1, 64)
        return min(self.cap, self.base * self.factor**exponent) * rng.uniform(1 - self.jitter, 1 + self.jitter)


OUTAGE_CAP = 5.0
"""Longest wait while a backend is away: its return must be noticed soon, and asking is cheap."""
CONFLICT_DELAY = 0.05
"""After a lost race only the mirror needs a moment to catch up."""


@dataclass(slots=True)
class Counters:
    """What the queue has done, for metrics and probes."""

    added: int = 0
    processed: int = 0
    failed: int = 0
    overflowed: int = 0


@dataclass(slots=True)
class _Entry:
    """What is known of one key; entries of idle keys without failures are dropped."""

    queued: bool = False
    running: bool = False
    dirty: bool = False
    failures: int = 0


class WorkQueue(Generic[K]):
    """Runs ``work(key)`` for every key added, ``workers`` at a time, never two at once for one key.

    ``work`` returns the seconds after which it wants to be called again, or None. What it raises is logged
    and retried; ``Fenced`` alone is final: ``run`` ends and raises it (in an ``ExceptionGroup``). Log lines
    written while a key is at work carry what ``describe`` says of it; ``failed`` hears of every failure.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 8,
        backoff: Backoff = Backoff(),
        timeout_seconds: float = 120.0,
        limit: int = 200_000,
        rng: random.Random | None = None,
        describe: Callable[[K], Mapping[str, object]] = lambda key: {"key": str(key)},
        failed: Callable[[K, Exception], None] = lambda key, error: None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._backoff = backoff
        self._timeout = timeout_seconds
        self._limit = limit
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._describe = describe
        self._failed_hook = failed
        self._entries: dict[K, _Entry] = {}
        self._line: Line[K] = Line()
        self._later: Later[K] = Later(self._ring)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.running = 0
        """Keys at work now."""
        self.counters = Counters()
        self.overflowed = False
        """A key was refused since somebody last set this to False: everything must be looked at again."""

    def add(self, key: K, delay: float = 0.0, *, behind: bool = False) -> None:
        """Have ``key`` worked on, after ``delay`` seconds; an earlier wish for the same key stands. ``behind``:
        it can wait until the line of everything else is short (see ``Line``)."""
        if self._closing:
            return
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._limit:
                self.counters.overflowed += 1
                self.overflowed = True
                return
            entry = self._entries[key] = _Entry()
        self.counters.added += 1
        if delay > 0:
            if not entry.queued:
                self._later.add(key, delay)
        elif entry.running:
            entry.dirty = True
        elif not entry.queued:
            self._enqueue(key, entry, behind=behind)
        elif not behind:
            self._line.promote(key)

    def forget(self, key: K) -> None:
        """Drop the key's failures and pending wishes; work under way ends as it would."""
        entry = self._entries.get(key)
        if entry is None:
            return
        self._later.discard(key)
        entry.failures = 0
        entry.dirty = False
        if not entry.running and not entry.queued:
            del self._entries[key]

    async def run(self) -> None:
        """Work until cancelled or fenced (raises ``Fenced``)."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._worker())
        finally:
            self._later.clear()

    async def drain(self, grace_seconds: float) -> bool:
        """Accept nothing more and wait for what is at work; False if it did not end within the grace."""
        self._closing = True
        self._later.clear()
        for key in self._line.clear():
            self._entries[key].queued = False
        self._note_idle()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_seconds)
        return self._idle.is_set()

    @property
    def depth(self) -> int:
        """Keys in line now."""
        return len(self._line)

    @property
    def oldest_seconds(self) -> float:
        """How long the key that has waited longest is in line; 0 when none is."""
        return self._line.oldest_seconds

    def failures(self, key: K) -> int:
        """Failures in a row of that key."""
        entry = self._entries.get(key)
        return entry.failures if entry else 0

    def __len__(self) -> int:
        return len(self._entries)

    def _ring(self, key: K) -> None:
        entry = self._entries[key]
        if entry.running:
            entry.dirty = True
        elif not entry.queued:
            self._enqueue(key, entry)

    def _enqueue(self, key: K, entry: _Entry, *, behind: bool = False) -> None:
        self._later.discard(key)
        entry.queued = True
        self._idle.clear()
        self._line.put(key, behind=behind)

    async def _worker(self) -> None:
        while True:
            key = await self._line.get()
            entry = self._entries[key]
            entry.queued, entry.running, entry.dirty = False, True, False
            self.running += 1
            again: float | None = None
            try:
                with structlog.contextvars.bound_contextvars(**self._describe(key)):
                    again = await self._attempt(key, entry)
            finally:
                entry.running = False
                self.running -= 1
                self._settle(key, entry, again)

    async def _attempt(self, key: K, entry: _Entry) -> float | None:
        try:
            async with asyncio.timeout(self._timeout):
                again = await self._work(key)
        except Fenced:
            raise
        except TriplaneError as error:
            return self._failed(key, entry, error)
        except TimeoutError as error:
            return self._failed(key, entry, error)
        except Exception as error:
            log.exception("work failed unexpectedly")
            return self._failed(key, entry, error)
        self.counters.processed += 1
        entry.failures = 0
        return again

    def _failed(self, key: K, entry: _Entry, error: Exception) -> float:
        self.counters.failed += 1
        entry.failures += 1
        self._failed_hook(key, error)
        delay = self._backoff.delay(entry.failures, self._rng)
        if isinstance(error, Conflict) and entry.failures == 1:
            delay = CONFLICT_DELAY
        elif isinstance(error, Unavailable):
            delay = min(delay, OUTAGE_CAP)
        # The first failures of a race or an outage are expected; what persists must be seen.
        level = "info" if isinstance(error, Conflict | Unavailable) and entry.failures <= 3 else "warning"
        getattr(log, level)(
            "work will be retried",
            error=f"{type(error).__name__}: {error}",
            failures=entry.failures,
            seconds=round(delay, 3),
        )
        return delay

    def _settle(self, key: K, entry: _Entry, again: float | None) -> None:
        if self._closing:
            entry.dirty = False
            self._later.discard(key)
        elif entry.dirty:
            self._enqueue(key, entry)
        elif again is not None:
            self._later.add(key, max(again, 0.001))
        if not entry.queued and key not in self._later and entry.failures == 0:
            self._entries.pop(key, None)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._line and not self.running:
            self._idle.set()
