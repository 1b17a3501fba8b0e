"""The ``exec`` harness: run a program once, hear what it says, and leave nothing running.

Standard followed: docs/reference/exec-protocol.md.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from triplane.domain.session import Usage
from triplane.session.execution import Execution
from triplane.session.harness.protocol import MAX_LINE, Record, Reflection, parse, printed

_CUT = " […cut at 64 KiB]"
_DRAIN_SECONDS = 10.0


@dataclass(slots=True)
class Heard:
    """What the harness said that is not a journal record."""

    usage: Usage = field(default_factory=Usage)
    reflection: Reflection | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How the program ended."""

    exit_code: int
    timed_out: bool
    heard: Heard


async def attend(execution: Execution, *, timeout_seconds: float, record: Callable[[Record], Awaitable[None]]) -> Ended:
    """Listen until the program exits or its time is over, then kill what is left of its process tree.

    ``record`` gets every journal record in the order of its stream and may wait: then so does the program. When
    this returns, or is cancelled, no process of the tree is left.
    """
    heard = Heard()
    listeners = asyncio.gather(_hear_stdout(execution.stdout, heard, record), _hear_stderr(execution.stderr, record))
    timed_out = False
    try:
        try:
            exit_code = await asyncio.wait_for(execution.wait(), timeout_seconds)
        except TimeoutError:
            timed_out = True
            await execution.kill()
            exit_code = await execution.wait()
        await execution.kill()
        await _drain(listeners, execution)
    finally:
        listeners.cancel()
        await asyncio.gather(listeners, return_exceptions=True)
        await execution.end()
    return Ended(exit_code, timed_out, heard)


async def _drain(listeners: "asyncio.Future[tuple[None, None]]", execution: Execution) -> None:
    """Hear what is left in the pipes. In a sandbox every writer is dead, so the end of file comes; a process that
    escaped an unisolated run could hold it back for ever, and is given ten seconds."""
    if execution.isolated:
        await listeners
    else:
        await asyncio.wait({listeners}, timeout=_DRAIN_SECONDS)


async def _hear_stdout(stream: asyncio.StreamReader, heard: Heard, record: Callable[[Record], Awaitable[None]]) -> None:
    async for line, cut in lines(stream):
        said = printed("stdout", _text(line) + _CUT) if cut else parse(line)
        if isinstance(said, Usage):
            heard.usage = said
        elif isinstance(said, Reflection):
            heard.reflection = said
        else:
            await record(said)


async def _hear_stderr(stream: asyncio.StreamReader, record: Callable[[Record], Awaitable[None]]) -> None:
    async for line, cut in lines(stream):
        await record(printed("stderr", _text(line) + (_CUT if cut else "")))


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """``(line without its end, was it cut)`` for each line that is not blank; none is longer than 64 KiB."""
    buffer, cut = bytearray(), False
    while chunk := await stream.read(MAX_LINE):
        for number, piece in enumerate(chunk.split(b"\n")):
            if number:  # a line ended before this piece
                if buffer.strip():
                    yield bytes(buffer), cut
                buffer, cut = bytearray(), False
            room = MAX_LINE - len(buffer)
            cut = cut or len(piece) > room
            buffer += piece[:room]
    if buffer.strip():
        yield bytes(buffer), cut


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
