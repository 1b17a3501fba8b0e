"""Content into a temporary blob: read here, written in one lane and hashed in another, in threads.

Neither lane waits for the other, nor the source for either until so much is under way that memory must be minded. A
lane holds a thread only while it has work: a slow sender costs none.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Final

from triplane.adapters.filesystem.temporary import TemporaryBlob
from triplane.adapters.uncancelled import uncancelled

WRITE_SIZE: Final = 2 << 20
"""Octets gathered from a stream before they are handed to the lanes."""
DEPTH: Final = 4
"""Hands of that size that may be in each lane; the same octets are in both. One more is being gathered."""

_Chunks = Sequence[bytes]


async def fill(temporary: TemporaryBlob, content: bytes | AsyncIterable[bytes]) -> None:
    """All of it, written and hashed. Raises what ``TemporaryBlob.write`` and the source raise.

    Nothing is abandoned: what is under way when the source or the caller gives up is waited for.
    """
    lanes = _Lane(temporary.write), _Lane(temporary.hash)
    try:
        async for chunks in _gathered(content):
            for lane in lanes:
                await lane.give(chunks)
        for lane in lanes:
            await lane.end()
    finally:
        for lane in lanes:
            await uncancelled(asyncio.create_task(lane.stop()))


class _Lane:
    """Work on one hand of chunks after another, in a thread that goes on while there is more."""

    def __init__(self, work: Callable[[_Chunks], None]) -> None:
        self._work = work
        self._waiting: deque[_Chunks] = deque()
        self._room = asyncio.Semaphore(DEPTH)
        self._loop = asyncio.get_running_loop()
        self._thread: asyncio.Task[None] | None = None
        self._failed: BaseException | None = None

    async def give(self, chunks: _Chunks) -> None:
        """Once there is room. Raises what the work before it has raised."""
        await self._room.acquire()
        if self._failed is not None:
            raise self._failed
        self._waiting.append(chunks)
        if self._thread is None:
            self._start()

    async def end(self) -> None:
        """Wait until all is done; raises what the work has raised."""
        await self._idle()
        if self._failed is not None:
            raise self._failed

    async def stop(self) -> None:
        """Forget what waits, and wait for what is under way."""
        self._waiting.clear()
        await self._idle()

    async def _idle(self) -> None:
        while self._thread is not None:
            await asyncio.wait([self._thread])

    def _start(self) -> None:
        self._thread = asyncio.create_task(asyncio.to_thread(self._drain))
        self._thread.add_done_callback(self._ended)

    def _drain(self) -> None:
        while True:
            try:
                chunks = self._waiting.popleft()
            except IndexError:
                return
            self._work(chunks)
            self._loop.call_soon_threadsafe(self._room.release)

    def _ended(self, thread: asyncio.Task[None]) -> None:
        self._thread = None
        if thread.cancelled():  # with the event loop
            self._failed = asyncio.CancelledError()
        elif (error := thread.exception()) is not None:
            self._failed = error
        if self._failed is not None:
            self._waiting.clear()
            self._room.release()  # who waits for room is told
        elif self._waiting:  # given after the thread had looked
            self._start()


async def _gathered(content: bytes | AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """The content in pieces worth a thread each, without copying it."""
    if isinstance(content, bytes | bytearray | memoryview):
        whole = memoryview(bytes(content))
        for start in range(0, len(whole), WRITE_SIZE):
            yield [bytes(whole[start : start + WRITE_SIZE])]
        return
    pending: list[bytes] = []
    octets = 0
    async for chunk in content:
        pending.append(chunk)
        octets += len(chunk)
        if octets >= WRITE_SIZE:
            yield pending
            pending, octets = [], 0
    if pending:
        yield pending
