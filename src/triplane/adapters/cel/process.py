"""The worker process behind an evaluator of CEL: started when it is first needed, and again when it was killed."""

import asyncio
import contextlib
import mmap
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Final

from triplane.adapters.cel.limits import ANSWER_SECONDS, MAX_ANSWER
from triplane.errors import Unavailable

TIMED_OUT: Final = -signal.SIGPROF
"""Exit code of a worker that used up its CPU time."""
NOWHERE: Final = 0xFFFFFFFF
"""``place`` before the worker has begun with anything."""
_OCTETS: Final = 4


class WorkerProcess:
    """One line there, one line back. Use it in one event loop, one exchange at a time (hold ``turn``).

    The worker notes where it is in memory it shares with us (``place``), so that we know what killed it: what it
    was at when the kernel ended it cannot tell us any more.
    """

    def __init__(self, module: str, what: str) -> None:
        """``module`` is run as the worker; ``what`` it is for, in words (``conditions``)."""
        self.turn = asyncio.Lock()
        self._module = module
        self._what = what
        self._process: Process | None = None
        self._shared: mmap.mmap | None = None
        self.starts = 0
        """How often a worker was started: what an earlier one knew is lost."""

    @property
    def place(self) -> int:
        """Where the worker is, or was when it died: an ordinal of the last request, or ``NOWHERE``."""
        return NOWHERE if self._shared is None else int.from_bytes(self._shared[:_OCTETS], "little")

    async def ready(self) -> None:
        """Have a worker that was running a moment ago. Raises ``Unavailable`` when none can be started."""
        try:
            await self._running()
        except OSError as error:
            await self.kill()
            raise Unavailable(f"no worker for {self._what} can be started: {error}") from error

    async def exchange(self, request: bytes) -> tuple[bytes, int | None]:
        """The answer's line; an empty one and the exit code when the worker died. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._exchange(request)
        except TimeoutError as error:
            await self.kill()
            raise Unavailable(
                f"the worker for {self._what} did not answer within {ANSWER_SECONDS:.0f} s; it is tried again"
            ) from error
        except OSError as error:
            await self.kill()
            raise Unavailable(f"no worker for {self._what} can be started: {error}") from error
        except BaseException:
            await self.kill()  # its answer would be taken for that of the next request
            raise

    async def close(self) -> None:
        """End the worker."""
        async with self.turn:
            await self.kill()

    async def kill(self) -> None:
        """End the worker now; ``place`` stays readable until the next starts."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()

    async def _exchange(self, request: bytes) -> tuple[bytes, int | None]:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        assert self._shared is not None
        self._shared[:_OCTETS] = NOWHERE.to_bytes(_OCTETS, "little")
        with contextlib.suppress(ConnectionError):
            process.stdin.write(request + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if line.endswith(b"\n"):
            return line, None
        code = await process.wait()
        await self.kill()
        return b"", code

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            await self.kill()
            shared = os.memfd_create(f"cel-{self._what}")
            try:
                os.ftruncate(shared, _OCTETS)
                self._shared = mmap.mmap(shared, _OCTETS)
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-m", self._module, str(shared),
                    stdin=PIPE, stdout=PIPE, env={}, cwd="/", start_new_session=True, pass_fds=(shared,),
                    limit=MAX_ANSWER,
                )  # fmt: skip
            finally:
                os.close(shared)
            self.starts += 1
        return self._process
