"""A process that appends, or reads, and writes down what it sees, each line before it goes on: a SIGKILL loses nothing
that was written down.

Started by ``tests.faults.crowd``. Every line has the time of CLOCK_MONOTONIC, which all processes share.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tests.contract.test_event_log import body
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.model import EventBody
from triplane.errors import Fenced, IdReused, InvalidEntry, TriplaneError, Unavailable

T = TypeVar("T")
PATIENCE_SECONDS = 120.0
"""How long a scribe waits for a server that is killed again and again."""
VALUE = "count"
"""The member of ``data`` that tells two bodies of one id apart."""
SHARED = 1
"""Every writer begins with this same event: whoever comes first records it, all get one receipt."""
OTHER = 10_000_000
"""Added to ``data.count`` for another body of an id that is taken."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one writer process does."""

    dsn: str
    writer: str
    number: int
    """Of the process: its events have numbers from ``number`` × 100,000 on."""
    seed: int
    lanes: int
    appends: int
    """By each lane, one after the other."""
    leads: bool
    """Whether it begins an epoch, and another one when it was fenced."""
    notes: Path
    retry_seconds: float
    durable: bool
    """False: the server acknowledges commits that it has not synced. To see that this is found."""


class Notes:
    """Lines of a file, each written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, what: str, **more: Any) -> None:
        """One event, now."""
        os.write(self._file, orjson.dumps({"what": what, "at": time.monotonic(), **more}) + b"\n")


def value_of(event: EventBody) -> str:
    """What tells it from another body of its id."""
    return str(event.data[VALUE])


def write(task: Task) -> None:
    """A writer's life; for a process of its own."""
    from triplane.adapters.postgres import appender  # set for this process alone

    appender.RETRY_SECONDS = task.retry_seconds
    if not task.durable:
        appender._OPTIONS += " -c synchronous_commit=off"
    asyncio.run(_Writer(task).run())


class _Writer:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._notes = Notes(task.notes)
        self._next = task.number * 100_000
        self._attempt = 0
        self._epoch = 0
        self._log: PostgresEventLog

    async def run(self) -> None:
        self._log = await _opened(self._task.dsn, self._task.writer)
        if self._task.leads:
            await self._lead()
        await self._append([body(SHARED)])
        lanes = range(self._task.lanes)
        await asyncio.gather(*(self._lane(random.Random(f"{self._task.seed}/{lane}")) for lane in lanes))
        with suppress(TriplaneError):
            await self._log.close()
        self._notes.add("done")

    async def _lead(self) -> None:
        began = time.monotonic()
        self._epoch = await _until_there(self._log.begin_epoch)
        self._notes.add("epoch", number=self._epoch, began=began)

    async def _lane(self, chance: random.Random) -> None:
        mine: list[EventBody] = []
        for _ in range(self._task.appends):
            made = [self._new() for _ in range(chance.choice((1, 1, 1, 2, 5)))]
            result = await self._append(made)
            while result == "info" and chance.random() < 0.7:  # as callers do: the same again
                await asyncio.sleep(chance.random() * 0.05)
                result = await self._append(made)
            if result == "ok":
                mine += made
            if mine and chance.random() < 0.1:
                await self._append([chance.choice(mine)])  # once more what is recorded
            if mine and chance.random() < 0.1:
                taken = chance.choice(mine)
                data = {**taken.data, VALUE: taken.data[VALUE] + OTHER}
                await self._append([self._new(), body(int(taken.data[VALUE]), data=data)])
            await asyncio.sleep(chance.random() * 0.02)

    def _new(self) -> EventBody:
        self._next += 1
        return body(self._next)

    async def _append(self, bodies: list[EventBody]) -> str:
        self._attempt += 1
        number = self._attempt
        named = [[event.id, value_of(event)] for event in bodies]
        self._notes.add("invoke", attempt=number, bodies=named, epoch=self._epoch)
        try:
            receipts = await self._log.append(bodies)
        except (IdReused, InvalidEntry) as error:
            self._notes.add("fail", attempt=number, why=str(error))
            return "fail"
        except Fenced as error:
            # An attempt of the same call before this one may have been recorded: its outcome is unknown.
            self._notes.add("info", attempt=number, why=f"Fenced: {error}")
            if self._task.leads:
                await self._lead()
            return "info"
        except Unavailable as error:
            self._notes.add("info", attempt=number, why=str(error))
            return "info"
        told = [[receipt.id, receipt.seq, receipt.leaf_hash] for receipt in receipts]
        self._notes.add("ok", attempt=number, receipts=told)
        return "ok"


def read(dsn: str, notes: Path) -> None:
    """A reader's life: the stream from the first entry on, for ever."""
    asyncio.run(_read(dsn, Notes(notes)))


async def _read(dsn: str, notes: Notes) -> None:
    log = await _opened(dsn, "reader")
    async for recorded in log.stream():
        notes.add("saw", seq=recorded.seq, leaf=recorded.leaf_hash)


async def _opened(dsn: str, writer: str) -> PostgresEventLog:
    """A new log each time: one whose opening failed cannot be opened again."""
    return await _until_there(lambda: PostgresEventLog(dsn, writer=writer).open())


async def _until_there(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await attempt()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
