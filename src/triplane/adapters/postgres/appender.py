"""One append transaction after another, on a connection of its own.

A batch first tries in a single statement behind the head as this process left it. Where another writer came in
between, or an id is recorded already, it takes the head row, looks, and appends in that transaction: then it cannot be
overtaken. Everything is idempotent by event id, so an append whose commit may or may not have happened is simply run
again: what is recorded answers.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from triplane.adapters.postgres.connection import CONNECT_SECONDS, NOT_A_CONTINUATION, translated
from triplane.adapters.postgres.sequencer import Call
from triplane.audit.arrangement import Arrangement, Known, arrange
from triplane.audit.entry import Sealed, format_time, seal_all
from triplane.audit.model import Receipt
from triplane.errors import Corrupt, IdReused, Unavailable
from triplane.failpoint import failpoint

RETRY_SECONDS = 5.0
"""How long an append outlasts a lost connection before its callers get ``Unavailable``."""
TRANSACTION_SECONDS = 10.0
"""A server that answers no sooner counts as unreachable."""
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
_OPTIONS = "-c idle_in_transaction_session_timeout=5s -c synchronous_commit=on"
"""A process that is stopped while it holds the head lock must not stop the others."""

_LOCK = "SELECT size, leaf, last_time, known_ids FROM log.log_lock_head(%b, %b, %b::bigint, %b::text[])"
_APPEND = "SELECT log.log_append(%b, %b, %b::bigint, %b::bigint, %b::text[], %b::bytea[], %b::bytea[])"
# OFFSET 0: as in ``eventlog``.
_KNOWN = """
    SELECT i.id, i.seq, i.body_sha256, e.leaf, e.time
    FROM log.entry_ids i CROSS JOIN LATERAL (
        SELECT leaf, time FROM log.entries WHERE origin = i.origin AND seq = i.seq OFFSET 0) e
    WHERE i.origin = %s AND i.id = ANY (%s)"""

Outcomes = Sequence[list[Receipt] | IdReused]
_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Head:
    """Where the log ends."""

    size: int
    leaf: bytes
    time: str


class Appender:
    """Commits batches for one writer of one origin. Not for concurrent use: the sequencer calls it."""

    def __init__(self, conninfo: str, origin: str, writer: str, now: Callable[[], datetime]) -> None:
        self.epoch = 0
        self._conninfo = conninfo
        self._origin = origin
        self._writer = writer
        self._now = now
        self._connection: _Connection | None = None
        self._head: _Head | None = None

    async def commit(self, calls: list[Call]) -> Outcomes:
        """Append what is new of the calls, durably. Outlasts a lost connection for ``RETRY_SECONDS``.

        Raises ``Fenced``, ``Unavailable``, and ``Corrupt`` when the log's end is not what its head row says.
        """
        deadline = time.monotonic() + RETRY_SECONDS
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(TRANSACTION_SECONDS):
                    return await self._try(calls)
            except (Unavailable, TimeoutError) as error:
                await self.close()
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"could not append to the log of {self._origin}: {error or 'no answer'}; try again"
                    ) from error
            except BaseException:
                await self.close()
                raise
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def close(self) -> None:
        """Disconnect; the next batch connects again."""
        connection, self._connection = self._connection, None
        self._head = None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def _try(self, calls: list[Call]) -> Outcomes:
        with translated("append to the log"):
            connection = await self._connected()
            if self._head is not None:
                arrangement = arrange(calls, {})
                receipts = await self._append(connection, arrangement, self._head, transaction=False)
                if receipts is not None:
                    return arrangement.outcomes(receipts)
            return await self._locked(connection, calls)

    async def _locked(self, connection: _Connection, calls: list[Call]) -> Outcomes:
        """Take the head row, then decide what is new: nothing can change until the commit."""
        ids = list({body.id for call in calls for body in call})
        async with connection.pipeline():
            await connection.execute("BEGIN")
            cursor = await connection.execute(
                _LOCK, (self._origin, self._writer, self.epoch, ids), prepare=True, binary=True
            )
            row = await cursor.fetchone()
        assert row is not None
        *head, known_ids = row
        known = await self._known(connection, known_ids) if known_ids else {}
        arrangement = arrange(calls, known)
        receipts = await self._append(connection, arrangement, _Head(*head), transaction=True)
        if receipts is None:
            raise Corrupt(f"the head of {self._origin} moved under its lock: verify the log")
        return arrangement.outcomes(receipts)

    async def _append(
        self, connection: _Connection, arrangement: Arrangement, head: _Head, *, transaction: bool
    ) -> list[Receipt] | None:
        """Receipts of the fresh bodies behind ``head``, committed; None when the log does not end there."""
        fresh = arrangement.fresh
        if not fresh:
            if transaction:
                await connection.execute("ROLLBACK")
            return []
        moment = max(format_time(self._now()), head.time)
        sealed = seal_all(fresh, head.size, head.leaf.hex(), moment)
        failpoint("log.append.before_commit")
        if not await self._send(connection, [body.id for body in fresh], head, sealed, transaction=transaction):
            self._head = None
            return None
        failpoint("log.append.after_commit")
        self._head = _Head(head.size + len(sealed), sealed[-1].leaf, moment)
        return [
            Receipt(body.id, seq, entry.leaf.hex(), moment)
            for seq, (body, entry) in enumerate(zip(fresh, sealed, strict=True), head.size)
        ]

    async def _send(
        self, connection: _Connection, ids: list[str], head: _Head, sealed: list[Sealed], *, transaction: bool
    ) -> bool:
        octets, bodies = [entry.octets for entry in sealed], [entry.body_sha256 for entry in sealed]
        values = (self._origin, self._writer, self.epoch, head.size, ids, octets, bodies)
        try:
            if not transaction:
                row = await (await connection.execute(_APPEND, values, prepare=True, binary=True)).fetchone()
            else:
                async with connection.pipeline():
                    cursor = await connection.execute(_APPEND, values, prepare=True, binary=True)
                    await connection.execute("COMMIT")
                    row = await cursor.fetchone()
        except psycopg.Error as error:
            if error.sqlstate == NOT_A_CONTINUATION:
                raise Corrupt(f"the log of {self._origin} refuses its continuation ({error}): verify it") from error
            raise
        return row == (True,)

    async def _known(self, connection: _Connection, ids: list[str]) -> dict[str, Known]:
        cursor = await connection.execute(_KNOWN, (self._origin, ids), binary=True)
        return {row[0]: Known(Receipt(row[0], row[1], row[3].hex(), row[4]), row[2]) for row in await cursor.fetchall()}

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            self._head = None
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                options=_OPTIONS,
                application_name=f"triplane log {self._writer} append",
            )
        return self._connection
