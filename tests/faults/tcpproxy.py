"""A fault proxy before Postgres: it listens on a socket of its own and knows enough of the wire protocol to cut a
connection at a chosen statement.

PostgreSQL's frontend/backend protocol 3 ("Message Formats" in its manual). What a client sends up to a Query or a
Sync is a *unit*; the server ends its answers to a unit with ReadyForQuery, so when that has come, what the unit
committed is committed.
"""

import asyncio
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.faults.loopthread import LoopThread
from tests.faults.rules import Action, Rule

_READY, _SYNC, _QUERY, _PARSE, _BIND, _EXECUTE = b"ZSQPBE"


@dataclass(slots=True)
class Unit:
    """What a client sent up to a Sync."""

    statements: tuple[str, ...] = ()
    answered: bytes = b""
    actions: list[Action] = field(default_factory=list)
    status: str = ""
    """``I`` idle, ``T`` in a transaction, ``E`` in a failed one: how the server answered."""


@dataclass(slots=True)
class _Session:
    """One connection's prepared statements, portals and units under way."""

    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, str] = field(default_factory=dict)
    unit: Unit = field(default_factory=Unit)
    sent: deque[Unit] = field(default_factory=deque)


def statement(pattern: str) -> Callable[[Unit], bool]:
    """A condition for rules: a unit that executes a statement in which ``pattern`` is found."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda unit: any(compiled.search(text) for text in unit.statements)


class DatabaseProxy:
    """Listens as ``.s.PGSQL.5432`` in ``folder`` and forwards to the socket in ``server``."""

    def __init__(self, server: Path, folder: Path) -> None:
        self._server = server / ".s.PGSQL.5432"
        self.folder = folder
        self._loop: LoopThread | None = None
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.rules: list[Rule] = []
        self.refusing = False
        """New connections end at once."""
        self.frozen = False
        """Nothing passes either way; nobody is told."""

    def start(self) -> Self:
        """Listen."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._loop = LoopThread("database proxy")
        self._loop.run(self._listen())
        return self

    def stop(self) -> None:
        """Listen no more; what is open is cut."""
        self.frozen = False
        assert self._loop is not None
        assert self._listener is not None
        self._listener.close()
        self.cut()
        self._loop.close()
        (self.folder / ".s.PGSQL.5432").unlink(missing_ok=True)

    def cut(self) -> None:
        """Cut every connection."""
        assert self._loop is not None
        self._loop.run(self._cut())

    @contextmanager
    def rule(
        self, when: Callable[[Unit], bool], do: Action, *, first: int = 1, times: int | None = 1
    ) -> Iterator[Rule]:
        """A rule for the time of the block."""
        made = Rule(when, do, first, times)
        self.rules.append(made)
        try:
            yield made
        finally:
            self.rules.remove(made)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_unix_server(self._serve, self.folder / ".s.PGSQL.5432")

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sides = [writer]
        self._writers.add(writer)
        try:
            if self.refusing:
                return
            inward, outward = await asyncio.open_unix_connection(self._server)
            sides.append(outward)
            self._writers.add(outward)
            outward.write(await _frame(reader, tagged=False))
            session = _Session()
            directions = {
                asyncio.create_task(self._forward(session, reader, outward)),
                asyncio.create_task(self._answer(session, inward, writer)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in directions:
                    task.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except (OSError, EOFError):
            pass  # either side has gone
        finally:
            for side in sides:
                side.transport.abort()
                self._writers.discard(side)

    async def _forward(self, session: _Session, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(reader)
            _note(session, frame)
            unit = session.unit
            if frame[0] in {_QUERY, _SYNC}:
                session.unit = Unit()
                unit.actions = [rule.do for rule in list(self.rules) if rule.applies(unit)]
                for action in unit.actions:
                    await action.before()
                session.sent.append(unit)
            # What leads up to a Sync is passed on as it comes: without the Sync the server commits nothing of it.
            await self._thaw()
            server.write(frame)
            await server.drain()

    async def _answer(self, session: _Session, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(server)
            unit = session.sent[0] if session.sent else None
            if unit is not None and unit.actions:
                unit.answered += frame  # kept back until it is known whether the reply is lost
                if frame[0] != _READY:
                    continue
                unit.status = chr(frame[5])
                for action in unit.actions:
                    await action.after()
                frame = unit.answered
                session.sent.popleft()
            elif frame[0] == _READY and unit is not None:
                session.sent.popleft()
            await self._thaw()
            writer.write(frame)
            await writer.drain()

    async def _thaw(self) -> None:
        while self.frozen:
            await asyncio.sleep(0.02)


async def _frame(reader: asyncio.StreamReader, *, tagged: bool = True) -> bytes:
    """One message: its type (but for the first of a connection), its length, its content."""
    head = await reader.readexactly(5 if tagged else 4)
    (length,) = struct.unpack("!i", head[-4:])
    return head + await reader.readexactly(length - 4)


def _note(session: _Session, frame: bytes) -> None:
    """Which statement a message parses, binds or executes."""
    kind, content = frame[0], frame[5:]
    if kind == _QUERY:
        session.unit.statements += (content.rstrip(b"\0").decode(errors="replace"),)
    elif kind == _PARSE:
        name, text, _ = content.split(b"\0", 2)
        session.statements[name] = text.decode(errors="replace")
    elif kind == _BIND:
        portal, name, _ = content.split(b"\0", 2)
        session.portals[portal] = session.statements.get(name, "")
    elif kind == _EXECUTE:
        session.unit.statements += (session.portals.get(content.split(b"\0", 1)[0], ""),)
