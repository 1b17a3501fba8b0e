"""The ``exec`` harness: run a program once, hear what it says, and leave nothing running.

Standard followed: docs/reference/exec-protocol.md.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from triplane.domain.session import Usage
from triplane.session.budget import Meter, Spent
from triplane.session.execution import Execution
from triplane.session.harness.protocol import MAX_LINE, Record, Reflection, parse, printed

_CUT = " […cut at 64 KiB]"
_DRAIN_SECONDS = 10.0


@dataclass(slots=True)
class Heard:
    """What the harness said that is not a journal record."""

    meter: Meter = field(default_factory=Meter)
    reflection: Reflection | None = None

    @property
    def usage(self) -> Usage:
        """What it used, as the host counts."""
        return self.meter.usage


class Overtime(StrEnum):
    """Which limit a program was killed at."""

    WHOLE = "whole"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds a program may take in all, and may be silent on standard output."""

    whole: float
    idle: float | None = None
    waits: Callable[[], bool] = lambda: False
    """Whether it waits for us now (for a tool, or a person): then it is not idle."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the program ended."""

    exit_code: int
    overtime: Overtime | None
    heard: Heard
    spent: Spent | None = None
    """The amount of its budget that was spent, for which it was killed."""


class _Silence:
    """How long the program has said nothing. Time in which nobody listened to it does not count."""

    def __init__(self) -> None:
        self._listening = True
        self.since = _now()

    def broken(self) -> None:
        self.since = _now()

    def since_when(self) -> float:
        return self.since if self._listening else _now()

    async def unheard(self, work: Awaitable[None]) -> None:
        """Do something that keeps us from listening."""
        self._listening = False
        try:
            await work
        finally:
            self._listening = True
            self.broken()


async def attend(
    execution: Execution,
    limits: TimeLimits,
    record: Callable[[Record], Awaitable[None]],
    meter: Meter | None = None,
) -> Ended:
    """Listen until the program exits, its time is over or its budget spent, then kill what is left of its process tree.

    ``record`` gets every journal record in the order of its stream and may wait: then so does the program, and its
    silence is not counted. When this returns, or is cancelled, no process of the tree is left.
    """
    meter = meter or Meter()
    meter.start()
    heard, silence = Heard(meter), _Silence()
    listeners = asyncio.gather(
        _hear_stdout(execution.stdout, heard, record, silence), _hear_stderr(execution.stderr, record)
    )
    try:
        overtime, spent = await _overtime(execution, limits, silence, meter)
        if overtime is not None or spent is not None:
            await execution.kill()
        exit_code = await execution.wait()
        await execution.kill()
        await _drain(listeners, execution)
    finally:
        listeners.cancel()
        await asyncio.gather(listeners, return_exceptions=True)
        await execution.end()
    # What it said with its last breath counts too.
    return Ended(exit_code, overtime, heard, spent or (meter.overspent() if overtime is None else None))


async def _overtime(
    execution: Execution, limits: TimeLimits, silence: _Silence, meter: Meter
) -> tuple[Overtime | None, Spent | None]:
    """Wait for the program; the limit it reached, neither when it has ended."""
    ending = asyncio.ensure_future(execution.wait())
    spending = asyncio.ensure_future(meter.until_spent())
    deadline = _now() + limits.whole
    try:
        while True:
            due, limit = deadline, Overtime.WHOLE
            if limits.idle is not None and (idle := silence.since_when() + limits.idle) < deadline:
                due, limit = idle, Overtime.IDLE
            await asyncio.wait({ending, spending}, timeout=max(0.0, due - _now()), return_when=asyncio.FIRST_COMPLETED)
            if spending.done():
                return None, spending.result()
            if ending.done():
                return None, None
            if limit is Overtime.IDLE and limits.waits():
                silence.broken()
            elif limit is Overtime.WHOLE or (limits.idle is not None and _now() - silence.since_when() >= limits.idle):
                return limit, None
    finally:
        ending.cancel()
        spending.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _drain(listeners: "asyncio.Future[tuple[None, None]]", execution: Execution) -> None:
    """Hear what is left in the pipes. In a sandbox every writer is dead, so the end of file comes; a process that
    escaped an unisolated run could hold it back for ever, and is given ten seconds."""
    if execution.isolated:
        await listeners
    else:
        await asyncio.wait({listeners}, timeout=_DRAIN_SECONDS)


async def _hear_stdout(
    stream: asyncio.StreamReader, heard: Heard, record: Callable[[Record], Awaitable[None]], silence: _Silence
) -> None:
    async for line, cut in lines(stream, silence.broken):
        said = printed("stdout", _text(line) + _CUT) if cut else parse(line)
        if isinstance(said, Usage):
            heard.meter.reported(said)
        elif isinstance(said, Reflection):
            heard.reflection = said
        else:
            await silence.unheard(record(said))


async def _hear_stderr(stream: asyncio.StreamReader, record: Callable[[Record], Awaitable[None]]) -> None:
    async for line, cut in lines(stream):
        await record(printed("stderr", _text(line) + (_CUT if cut else "")))


async def lines(
    stream: asyncio.StreamReader, heard: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[bytes, bool]]:
    """``(line without its end, was it cut)`` for each line that is not blank; none is longer than 64 KiB.

    ``heard`` is called for whatever arrives, be it a line or not.
    """
    buffer, cut = bytearray(), False
    while chunk := await stream.read(MAX_LINE):
        heard()
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
