"""The batched sequencer: many callers, one append transaction at a time.

The log is one total order, so the head row is locked to the end of each commit and group commit cannot help.
The only lever is the batch. There is no linger: the next batch is what queued while the last commit ran.

What is queued is bounded. While the database is slow or absent, callers wait for a place before their entries are even
encoded, first come first served; who has waited for ``PATIENCE_SECONDS`` is told that nothing was appended.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from triplane.audit.entry import Prepared
from triplane.audit.model import Receipt
from triplane.errors import IdReused, TriplaneError, Unavailable

LARGEST_BATCH = 256
LARGEST_BATCH_OCTETS = 4 * 1024 * 1024
LARGEST_QUEUE = 8192
"""Entries; further callers wait outside. One call may be larger, alone."""
LARGEST_QUEUE_OCTETS = 32 * 1024 * 1024
PATIENCE_SECONDS = 30.0
"""How long a call waits until its batch is sent. What is sent is waited for until its outcome is known, or
``appender.RETRY_SECONDS`` of trying are over."""
Call = Sequence[Prepared]
Outcomes = Sequence[list[Receipt] | IdReused]
Commit = Callable[[list[Call]], Awaitable[Outcomes]]
Ahead = Callable[[list[Call]], None]


@dataclass(slots=True)
class _Waiting:
    bodies: Call
    octets: int
    since: float
    outcome: "asyncio.Future[list[Receipt]]"


@dataclass(slots=True)
class _Batch:
    waiting: list[_Waiting]
    calls: list[Call]
    entries: int


@dataclass(slots=True)
class Load:
    """How much waits and what was done, for metrics."""

    queued_entries: int = 0
    """In the queue or with the server."""
    queued_octets: int = 0
    outside: int = 0
    """Callers that wait for a place in the queue."""
    batches: int = 0
    entries: int = 0
    """Committed, or found to be recorded already, in all batches."""
    largest_batch: int = 0
    refused: int = 0
    """Callers whose patience ended before anything of theirs was sent."""


class Sequencer:
    """Collects calls and hands them to ``commit`` in batches of at most 256 bodies (one larger call goes
    alone). ``ahead`` is told the batch that follows while one is under way."""

    def __init__(self, commit: Commit, ahead: Ahead = lambda _: None) -> None:
        self._commit = commit
        self._ahead = ahead
        self._queue: deque[_Waiting] = deque()
        self._outside: deque[asyncio.Future[None]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._queued = 0
        """Entries in the queue that no batch has taken."""
        self.load = Load()

    async def place(self) -> None:
        """Wait until there is a place in the queue; ``submit`` at once afterwards. Raises ``Unavailable`` when there
        is none for ``PATIENCE_SECONDS``: nothing was appended."""
        if self._closed:
            raise Unavailable("the log is closed: open it again")
        if self._outside or self._full():
            await self._wait_outside()

    async def submit(self, bodies: Call) -> list[Receipt]:
        """The receipts, once durable; raises what ``commit`` raised or decided for this call, and ``Unavailable`` when
        its turn has not come for ``PATIENCE_SECONDS``."""
        if self._closed:
            raise Unavailable("the log is closed: open it again")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(bodies, sum([body.size for body in bodies]), loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._queued += len(bodies)
        self.load.queued_entries += len(bodies)
        self.load.queued_octets += waiting.octets
        if self._task is None:
            self._task = loop.create_task(self._drain(), name="log sequencer")
        return await waiting.outcome

    async def close(self) -> None:
        """Refuse new calls, finish what is queued."""
        self._closed = True
        for place in self._outside:
            if not place.done():
                place.set_exception(Unavailable("the log is closed, nothing was appended: open it again"))
        if self._task is not None:
            await self._task

    # The queue

    def _full(self) -> bool:
        return self.load.queued_entries >= LARGEST_QUEUE or self.load.queued_octets >= LARGEST_QUEUE_OCTETS

    async def _wait_outside(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outside.append(place)
        self.load.outside += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await place
        except TimeoutError:
            self.load.refused += 1
            raise self._impatient() from None
        finally:
            self.load.outside -= 1
            if place in self._outside:
                self._outside.remove(place)
            # Whether or not this one takes its place: the next may come in, too, if there is room. Its turn comes
            # after this one's submit, which follows without a pause.
            asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        """Give the first caller outside a place, if there is one; it calls this again."""
        if self._full():
            return
        while self._outside:
            place = self._outside[0]
            if not place.done():
                place.set_result(None)
                return
            if not place.cancelled():
                return  # it has its place, and has not run yet
            self._outside.popleft()

    def _impatient(self) -> Unavailable:
        return Unavailable(
            f"the log has had no room for {PATIENCE_SECONDS:g} s ({self.load.queued_entries} entries wait before this "
            "one): the database is slow or absent. Nothing was appended; try again later"
        )

    def _next_batch(self) -> _Batch | None:
        waiting: list[_Waiting] = []
        entries = octets = 0
        late = time.monotonic() - PATIENCE_SECONDS
        while self._queue:
            first = self._queue[0]
            if first.outcome.done():  # its caller has been cancelled
                self._leave(first)
            elif first.since < late:
                self._leave(first)
                self.load.refused += 1
                first.outcome.set_exception(self._impatient())
            elif waiting and (
                entries + len(first.bodies) > LARGEST_BATCH or octets + first.octets > LARGEST_BATCH_OCTETS
            ):
                break
            else:
                waiting.append(first)
                entries += len(first.bodies)
                octets += first.octets
                self._queue.popleft()
                self._queued -= len(first.bodies)
        return _Batch(waiting, [item.bodies for item in waiting], entries) if waiting else None

    def _leave(self, waiting: _Waiting) -> None:
        """Take the first of the queue out of it, unsent."""
        self._queue.popleft()
        self._queued -= len(waiting.bodies)
        self._done(waiting)

    def _done(self, waiting: _Waiting) -> None:
        self.load.queued_entries -= len(waiting.bodies)
        self.load.queued_octets -= waiting.octets

    # Batches

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        following: _Batch | None = None
        try:
            batch = self._next_batch()
            while batch is not None:
                commit = asyncio.ensure_future(self._commit(batch.calls))
                try:
                    await asyncio.sleep(0)  # it is sent
                    if self._queued >= LARGEST_BATCH and (following := self._next_batch()) is not None:
                        # A whole batch waits already: it is prepared while the server works, and sent before the
                        # callers of this one are answered.
                        self._ahead(following.calls)
                    await asyncio.wait([commit])
                finally:
                    if not commit.done():
                        commit.cancel()
                        await asyncio.wait([commit])
                    if following is None:
                        self._settle(batch, commit)
                    else:
                        # Behind the first step of the next commit, which the event loop is told of first.
                        loop.call_soon(loop.call_soon, self._settle, batch, commit)
                if following is None:
                    # Callers that have just been answered get to queue their next entry before the batch closes;
                    # without this, closed loops split into two halves that alternate.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    batch = self._next_batch()
                else:
                    batch, following = following, None
        finally:
            self._task = None
            # Only when cancelled with the event loop:
            for waiting in (*(following.waiting if following is not None else ()), *self._queue):
                waiting.outcome.cancel()

    def _settle(self, batch: _Batch, commit: "asyncio.Future[Outcomes]") -> None:
        for waiting in batch.waiting:
            self._done(waiting)
        self._let_in()
        if commit.cancelled():
            for waiting in batch.waiting:
                waiting.outcome.cancel()
            return
        error = commit.exception()
        if error is None:
            self.load.batches += 1
            self.load.entries += batch.entries
            self.load.largest_batch = max(self.load.largest_batch, batch.entries)
            for waiting, outcome in zip(batch.waiting, commit.result(), strict=True):
                if isinstance(outcome, IdReused):
                    _refuse(waiting, outcome, None)
                elif not waiting.outcome.done():
                    waiting.outcome.set_result(outcome)
        elif isinstance(error, TriplaneError):
            for waiting in batch.waiting:
                # One instance each: a traceback belongs to one caller.
                _refuse(waiting, type(error)(*error.args), error)
        else:  # a defect; its callers must not wait for ever
            for waiting in batch.waiting:
                if not waiting.outcome.done():
                    waiting.outcome.set_exception(error)


def _refuse(waiting: _Waiting, error: TriplaneError, cause: BaseException | None) -> None:
    error.__cause__ = cause
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error)
