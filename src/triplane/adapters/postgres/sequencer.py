"""The batched sequencer: many callers, one append transaction at a time.

The log is one total order, so the head row is locked to the end of each commit and group commit cannot help.
The levers are the batch, and that callers and server work at the same time. There is no linger: the next batch is what
queued while the last commit ran.

What is queued is bounded. While the database is slow or absent, callers wait for a place before their entries are even
encoded, first come first served; who has waited for ``PATIENCE_SECONDS`` is told that nothing was appended.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from triplane.audit.entry import Prepared
from triplane.audit.model import Receipt
from triplane.errors import IdReused, TriplaneError, Unavailable

LARGEST_BATCH = 256
WORTH_FOLLOWING = 16
"""Entries that are sent as soon as the batch before is answered, and prepared before that if they are there: from so
many on, what callers and server do at the same time is worth more than one larger batch."""
LARGEST_BATCH_OCTETS = 4 * 1024 * 1024
LARGEST_QUEUE = 8192
"""Entries; further callers wait outside. One call may be larger, alone."""
LARGEST_QUEUE_OCTETS = 32 * 1024 * 1024
PATIENCE_SECONDS = 30.0
"""How long a call waits until its batch is sent. What is sent is waited for until its outcome is known, or
``appender.RETRY_SECONDS`` of trying are over."""
Call = Sequence[Prepared]
Outcomes = Sequence[list[Receipt] | IdReused]
Sent = Callable[[], None]
Commit = Callable[[list[Call], Sent], Awaitable[Outcomes]]
"""Calls its second argument when the batch has been sent, once or more often."""
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
    alone). ``ahead`` is told the batch that follows once one has been sent."""

    def __init__(self, commit: Commit, ahead: Ahead = lambda _: None) -> None:
        self._commit = commit
        self._ahead = ahead
        self._queue: deque[_Waiting] = deque()
        self._outside: deque[asyncio.Future[None]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._queued = 0
        """Entries in the queue that no batch has taken."""
        self._following: _Batch | None = None
        """What is sent as soon as the batch under way is answered."""
        self._at_work = False
        """A batch is with the server."""
        self._before: Callable[[], None] | None = None
        """Answers the callers of the batch before the one under way."""
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

    def _next_batch(self, most: int = LARGEST_BATCH) -> _Batch | None:
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
            elif waiting and (entries + len(first.bodies) > most or octets + first.octets > LARGEST_BATCH_OCTETS):
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
        try:
            batch = self._next_batch()
            while batch is not None:
                outcomes = await self._outcomes(batch)
                settle = partial(self._settle, batch, outcomes)
                self._answer_before()  # if it failed before it was sent
                batch = None if isinstance(outcomes, Exception) else self._hurried()
                if batch is not None:
                    self._before = settle
                    continue
                settle()
                self._give_back()
                # Callers that have just been answered get to queue their next entry before the batch closes; without
                # this, a few closed loops split into two halves that alternate. Many of them do better that way.
                await asyncio.sleep(0)
                halves = self._queued >= 3 * WORTH_FOLLOWING
                batch = self._next_batch(min(-(-self._queued // 2), LARGEST_BATCH) if halves else LARGEST_BATCH)
        finally:
            self._task = None
            self._answer_before()
            # Only when cancelled with the event loop:
            for waiting in (*(self._following.waiting if self._following is not None else ()), *self._queue):
                waiting.outcome.cancel()

    def _hurried(self) -> _Batch | None:
        """What is sent before the callers of the batch that has just succeeded are answered."""
        batch, self._following = self._following, None
        return self._next_batch() if batch is None and self._queued >= WORTH_FOLLOWING else batch

    def _give_back(self) -> None:
        """What was to follow a batch that failed waits its turn again, as long as its patience lasts."""
        if self._following is not None:
            self._queue.extendleft(reversed(self._following.waiting))
            self._queued += self._following.entries
            self._following = None

    async def _outcomes(self, batch: _Batch) -> Outcomes | Exception:
        try:
            try:
                return await self._commit(batch.calls, self._sent)
            finally:
                self._at_work = False
        except Exception as error:
            return error
        except BaseException:  # the event loop ends
            for waiting in batch.waiting:
                waiting.outcome.cancel()
            raise

    def _sent(self) -> None:
        """The server works: the callers before can be answered, and what they and others send next be prepared."""
        self._at_work = True
        if self._queued >= LARGEST_BATCH:
            self._prepare_following()
        self._answer_before()
        asyncio.get_running_loop().call_soon(self._prepare_following)  # behind those who have just been answered

    def _prepare_following(self) -> None:
        if self._at_work and self._following is None and self._queued >= WORTH_FOLLOWING:
            self._following = self._next_batch()
            if self._following is not None:
                self._ahead(self._following.calls)

    def _answer_before(self) -> None:
        if self._before is not None:
            self._before()
            self._before = None

    def _settle(self, batch: _Batch, outcomes: Outcomes | Exception) -> None:
        for waiting in batch.waiting:
            self._done(waiting)
        self._let_in()
        if isinstance(outcomes, TriplaneError):
            for waiting in batch.waiting:
                # One instance each: a traceback belongs to one caller.
                _refuse(waiting, type(outcomes)(*outcomes.args), outcomes)
        elif isinstance(outcomes, Exception):  # a defect; its callers must not wait for ever
            for waiting in batch.waiting:
                if not waiting.outcome.done():
                    waiting.outcome.set_exception(outcomes)
        else:
            self.load.batches += 1
            self.load.entries += batch.entries
            self.load.largest_batch = max(self.load.largest_batch, batch.entries)
            for waiting, outcome in zip(batch.waiting, outcomes, strict=True):
                if isinstance(outcome, IdReused):
                    _refuse(waiting, outcome, None)
                elif not waiting.outcome.done():
                    waiting.outcome.set_result(outcome)


def _refuse(waiting: _Waiting, error: TriplaneError, cause: BaseException | None) -> None:
    error.__cause__ = cause
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error)
