"""A channel to an MCP server that runs as a process of its own sandbox: one JSON message per line.

Standard followed: MCP 2025-11-25, "Transports", stdio. A server that floods, or sends a line without end, is killed
before it costs more than a few megabytes.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable

from triplane.session.execution import Execution
from triplane.session.harness.exec import lines as text_lines
from triplane.session.tools import rpc
from triplane.session.tools.peer import ServerFailed, ServerSlow, hear

_CHUNK = 64 * 1024
_UNSOLICITED = 10_000
"""Messages a server may send that answer nothing."""
_UNSOLICITED_OCTETS = 4 * rpc.MAX_MESSAGE
"""And their size: each is parsed where all runs of this runner are served."""
_KEPT_LINES = 200
"""Lines of its standard error that go into the journal."""

Say = Callable[[str], Awaitable[None]]


class StdioChannel:
    """Owns the execution: closing the one ends the other."""

    def __init__(self, execution: Execution, stdin: int, say: Say, changed: Callable[[], None]) -> None:
        """``stdin`` is the write end of its standard input, from now on the channel's. ``say`` takes a line of its
        standard error. Call it within the event loop."""
        self._execution = execution
        self._stdin = stdin
        self._say = say
        self._changed = changed
        self._waiting: dict[rpc.RequestId, asyncio.Future[rpc.Response]] = {}
        self._writing = asyncio.Lock()
        self._problem: str | None = None
        self._last_words = ""
        self._unsolicited = self._unsolicited_octets = 0
        os.set_blocking(stdin, False)
        self._listening = asyncio.create_task(self._listen(), name="tool stdout")
        self._complaining = asyncio.create_task(self._complain(), name="tool stderr")

    def settled(self, version: str) -> None:
        """Nothing of a pipe depends on it."""

    async def exchange(self, id_: int, octets: bytes, seconds: float) -> rpc.Response:
        """See ``Channel``."""
        answer: asyncio.Future[rpc.Response] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        try:
            async with asyncio.timeout(seconds):
                await self._write(octets)
                return await answer
        except TimeoutError as error:
            raise ServerSlow(f"it did not answer within {seconds:g} s") from error
        finally:
            self._waiting.pop(id_, None)

    async def notify(self, octets: bytes) -> None:
        """See ``Channel``."""
        with contextlib.suppress(ServerFailed, TimeoutError):
            async with asyncio.timeout(5):
                await self._write(octets)

    async def close(self) -> None:
        """Close its standard input, and kill what is left."""
        # First who may be waiting to write an answer: its descriptor must not become another's while it is watched.
        self._listening.cancel()
        self._complaining.cancel()
        await asyncio.gather(self._listening, self._complaining, return_exceptions=True)
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        self._fail("its run is over")
        await self._execution.end()

    async def _write(self, octets: bytes) -> None:
        """The whole line, or nothing of the next: a message that was half written when its time ended would garble
        what follows, so the server is given up then."""
        line = memoryview(octets + b"\n")
        async with self._writing:
            if self._problem is not None or self._stdin < 0:
                raise ServerFailed(self._problem or "its run is over")
            try:
                while line:
                    try:
                        line = line[os.write(self._stdin, line) :]
                    except BlockingIOError:
                        await writable(self._stdin)
            except OSError as error:
                raise ServerFailed(self._ended()) from error
            except BaseException:
                self._fail("it did not read what was sent to it")
                raise

    async def _listen(self) -> None:
        buffer = bytearray()
        try:
            while chunk := await self._execution.stdout.read(_CHUNK):
                buffer += chunk
                *whole, rest = bytes(buffer).split(b"\n") if b"\n" in chunk else (bytes(buffer),)
                buffer = bytearray(rest)
                for line in whole:
                    if line.strip():
                        await self._heard(line)
                if len(buffer) > rpc.MAX_MESSAGE:
                    raise ServerFailed(f"it sent a message of more than {rpc.MAX_MESSAGE} octets")
            await asyncio.wait({self._complaining}, timeout=1)
            self._fail(self._ended())
        except (ServerFailed, rpc.BadMessage) as error:
            self._fail(f"it broke the protocol: {error}")
            await self._execution.kill()

    async def _heard(self, line: bytes) -> None:
        messages = rpc.read(line)
        for message in messages:
            if isinstance(message, rpc.Response):
                waiting = self._waiting.get(message.id) if message.id is not None else None
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                    continue
            self._unsolicited += 1
            self._unsolicited_octets += len(line) // len(messages)
            if self._unsolicited > _UNSOLICITED or self._unsolicited_octets > _UNSOLICITED_OCTETS:
                limit = f"{_UNSOLICITED} messages or {_UNSOLICITED_OCTETS} octets"
                raise ServerFailed(f"more than {limit} nobody asked for")
            if isinstance(message, rpc.Request) and (answer := hear(message, self._changed)) is not None:
                await self.notify(answer)

    async def _complain(self) -> None:
        kept = 0
        async for line, _ in text_lines(self._execution.stderr):
            self._last_words = line.decode("utf-8", "replace")[:500]
            kept += 1
            if kept <= _KEPT_LINES:
                await self._say(self._last_words)

    def _ended(self) -> str:
        said = f"; it last wrote to standard error: {self._last_words}" if self._last_words else ""
        return f"its process has ended{said}"

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ServerFailed(self._problem))
                waiting.exception()  # whoever waits hears it; if nobody does, asyncio need not complain


async def writable(descriptor: int) -> None:
    """Wait until this pipe takes more; it must stay open meanwhile."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
