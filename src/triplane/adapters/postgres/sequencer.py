"""The batched sequencer: many callers, one append transaction at a time.

The log is one total order, so the head row is locked to the end of each commit and group commit cannot help.
The only lever is the batch. There is no linger: the next batch is what queued while the last commit ran.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from triplane.audit.entry import Prepared
from triplane.audit.model import Receipt
from triplane.errors import IdReused, TriplaneError, Unavailable

LARGEST_BATCH = 256
Call = Sequence[Prepared]
Commit = Callable[[list[Call]], Awaitable[Sequence[list[Receipt] | IdReused]]]


@dataclass(slots=True)
class _Waiting:
    bodies: Call
    outcome: asyncio.Future[list[Receipt]]


class Sequencer:
    """Collects calls and hands them to ``commit`` in batches of at most 256 bodies (one larger call goes
    alone)."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, bodies: Call) -> list[Receipt]:
        """The receipts, once durable; raises what ``commit`` raised or decided for this call."""
        if self._closed:
            raise Unavailable("the log is closed: open it again")
        waiting = _Waiting(bodies, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="log sequencer")
        return await waiting.outcome

    async def close(self) -> None:
        """Refuse new calls, finish what is queued."""
        self._closed = True
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
                # Callers that have just been answered get to queue their next entry before the batch closes;
                # without this, closed loops split into two halves that alternate.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            self._task = None
            for waiting in self._queue:  # only when cancelled with the event loop
                waiting.outcome.cancel()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].bodies) <= LARGEST_BATCH):
            waiting = self._queue.popleft()
            if not waiting.outcome.done():  # its caller has been cancelled
                batch.append(waiting)
                size += len(waiting.bodies)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._commit([waiting.bodies for waiting in batch])
        except TriplaneError as error:
            for waiting in batch:
                # One instance each: a traceback belongs to one caller.
                _settle(waiting, type(error)(*error.args), error)
            return
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.outcome.cancel()
            raise
        except Exception as error:  # a defect; its callers must not wait for ever
            for waiting in batch:
                if not waiting.outcome.done():
                    waiting.outcome.set_exception(error)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, IdReused):
                _settle(waiting, outcome, None)
            elif not waiting.outcome.done():
                waiting.outcome.set_result(outcome)


def _settle(waiting: _Waiting, error: TriplaneError, cause: BaseException | None) -> None:
    error.__cause__ = cause
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error)
