"""Who checks chunks: a thread of this process, or worker processes of their own, which use as many cores.

Hashing and parsing hold the interpreter's lock for most of their time, so threads would not help. A worker serves its
pipe and ends with it: when the process that asked is killed, nothing is left behind.
"""

import asyncio
import gc
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from triplane.adapters.postgres.chunks import Checker, Chunk
from triplane.audit.verifying import Segment
from triplane.errors import TriplaneError, Unavailable

_END_SECONDS: Final = 5.0
Check = Callable[[Chunk], Segment | None]


class Checkers:
    """``count`` checkers of one origin, begun when they are first needed."""

    def __init__(self, conninfo: str, origin: str, processes: int) -> None:
        self.count = max(processes, 1)
        self._make: Callable[[], _Thread | _Process] = (
            (lambda: _Process(conninfo, origin)) if processes else (lambda: _Thread(conninfo, origin))
        )
        self._made: list[_Thread | _Process] = []
        self._idle: asyncio.LifoQueue[_Thread | _Process] = asyncio.LifoQueue()

    async def check(self, chunk: Chunk) -> Segment | None:
        """See ``Checker.check``; waits for a free checker."""
        if self._idle.empty() and len(self._made) < self.count:
            one = self._make()
            self._made.append(one)
        else:
            one = await self._idle.get()
        # A thread cannot be cancelled: what it has begun it ends, before the checker is free again.
        checking = asyncio.create_task(asyncio.to_thread(one.check, chunk))
        try:
            return await asyncio.shield(checking)
        finally:
            if not checking.done():
                await asyncio.wait({checking})
            self._idle.put_nowait(one)

    async def aclose(self) -> None:
        """End them."""
        for one in self._made:
            await asyncio.to_thread(one.close)


class _Thread:
    """A checker in whatever thread asks."""

    def __init__(self, conninfo: str, origin: str) -> None:
        self._conninfo, self._origin = conninfo, origin
        self._checker: Checker | None = None

    def check(self, chunk: Chunk) -> Segment | None:
        if self._checker is None:
            self._checker = Checker(self._conninfo, self._origin)
        return self._checker.check(chunk)

    def close(self) -> None:
        if self._checker is not None:
            self._checker.close()


class _Process:
    """A checker in a process of its own."""

    def __init__(self, conninfo: str, origin: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, conninfo, origin), name="triplane verify", daemon=True
        )
        self._process.start()
        theirs.close()

    def check(self, chunk: Chunk) -> Segment | None:
        try:
            self._pipe.send(chunk)
            answer: Any = self._pipe.recv()
        except (OSError, EOFError) as error:
            raise Unavailable(
                f"the worker that checked entries {chunk.first} to {chunk.end - 1} has ended: verify again, "
                "with fewer processes if memory is short"
            ) from error
        if isinstance(answer, TriplaneError):
            raise answer
        assert answer is None or isinstance(answer, Segment)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, conninfo: str, origin: str) -> None:
    """A worker: answers until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asked, and reaches this one as the pipe's end
    gc.disable()  # no cycles are made here, and rows by the thousand would keep the collector busy
    checker: Checker | None = None
    while True:
        try:
            chunk = pipe.recv()
        except (OSError, EOFError):
            return
        answer: Segment | TriplaneError | None
        try:
            checker = checker or Checker(conninfo, origin)
            answer = checker.check(chunk)
        except TriplaneError as error:
            answer = error
        try:
            pipe.send(answer)
        except OSError:
            return
