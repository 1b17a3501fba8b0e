"""Wake-ups by LISTEN: one connection per channel and process, any number of waiters.

A notification says only "look again": it may be lost with the connection, so waiters also look on their own
from time to time. The connection is remade for ever; remaking it rings.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql

from triplane.adapters.postgres.connection import CONNECT_SECONDS
from triplane.adapters.wakeup import Wakeup

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_LOOK_UP_SECONDS = 5.0
"""How often a listener looks whether anyone still waits."""


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel until it has ended. Once is not enough: on Python 3.11 ``asyncio.wait_for``, which psycopg waits with,
    swallows a cancellation that meets its result."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)


class Bell:
    """Listens on ``channel`` while anyone waits."""

    def __init__(self, conninfo: str, channel: str) -> None:
        self._conninfo = conninfo
        self._channel = channel
        self._waiters: set[Wakeup] = set()
        self._task: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """Wake this process's waiters without the database."""
        for waiter in self._waiters:
            waiter.ring()

    @contextlib.contextmanager
    def waiter(self) -> Iterator[Wakeup]:
        """Subscribe; returns at once, whether or not the database is there."""
        waiter = Wakeup()
        self._waiters.add(waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name=f"listen {self._channel}")
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)

    async def close(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        if task is not None:
            await stopped(task)

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while self._waiters:  # ends by itself: a process that exits without close() must not wait for it
            try:
                async with self._listening() as connection:
                    pause = _FIRST_PAUSE_SECONDS
                    self.ring()  # what happened while nobody listened
                    while self._waiters:
                        async for _ in connection.notifies(timeout=_LOOK_UP_SECONDS):
                            self.ring()
            except psycopg.Error:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="triplane bell"
        )
        async with connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            yield connection
