"""One append transaction after another, on a connection of its own.

A batch first tries in a single statement behind the head as this process left it. Where another writer came in
between, or an id is recorded already, it takes the head row, looks, and appends in that transaction: then it cannot be
overtaken. Everything is idempotent by event id, so an append whose commit may or may not have happened is simply run
again: what is recorded answers.

A server that is at work leaves this process time: ``ahead`` hashes and encodes the batch that will follow, on the
guess that the one under way succeeds, so that it is sent as soon as that has been answered.
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
from triplane.adapters.postgres.endcheck import LAST_ENTRY, Head, check_end
from triplane.adapters.postgres.exchange import execute_prepared, prepare
from triplane.adapters.postgres.newentries import encode_entries, encode_hashes
from triplane.adapters.postgres.sequencer import Call, Sent
from triplane.audit.arrangement import Arrangement, Known, arrange
from triplane.audit.entry import chain_leaves, format_time
from triplane.audit.model import Receipt
from triplane.errors import Corrupt, IdReused, Unavailable
from triplane.failpoint import failpoint

RETRY_SECONDS = 5.0
"""How long an append outlasts a lost connection before its callers get ``Unavailable``."""
TRANSACTION_SECONDS = 10.0
"""A server that answers no sooner counts as unreachable."""
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
_OPTIONS = (
    "-c idle_in_transaction_session_timeout=5s -c synchronous_commit=on"
    " -c default_transaction_isolation=read\\ committed"
)
"""A process that is stopped while it holds the head lock must not stop the others. Who waited for the head must see an
epoch that was begun meanwhile: at a stricter isolation, as a server may have by default, it would not."""

_LOCK = "SELECT size, leaf, last_time, known_ids FROM log.log_lock_head(%b, %b, %b::bigint, %b::text[])"
_STATEMENT = b"triplane_append"
_APPEND = b"SELECT log.log_append($1, $2, $3, $4, $5, $6, $7)"
_TYPE = "SELECT 'log.new_entry'::regtype::oid::bigint"
# OFFSET 0: as in ``eventlog``. What is archived keeps its receipt.
_KNOWN = """
    SELECT i.id, i.seq, i.body_sha256, e.leaf, e.time
    FROM log.entry_ids i CROSS JOIN LATERAL (
        (SELECT leaf, time FROM log.entries WHERE origin = i.origin AND seq = i.seq)
        UNION ALL (SELECT leaf, time FROM log.archived_entries WHERE origin = i.origin AND seq = i.seq) LIMIT 1) e
    WHERE i.origin = %s AND i.id = ANY (%s)"""

Outcomes = Sequence[list[Receipt] | IdReused]
_Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_TRUE = b"\x01"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Calls, sealed behind a head and encoded."""

    calls: Sequence[Call]
    arrangement: Arrangement
    behind: Head
    head: Head
    """Where the log ends once these are in it."""
    leaves: list[bytes]
    entries: bytes


class Appender:
    """Commits batches for one writer of one origin. Not for concurrent use: the sequencer calls it."""

    def __init__(self, conninfo: str, origin: str, writer: str, now: Callable[[], datetime]) -> None:
        self.epoch = 0
        self._conninfo = conninfo
        self._origin = origin
        self._writer = writer
        self._now = now
        self._connection: _Connection | None = None
        self._head: Head | None = None
        self._checked = False
        """Whether the head, as this connection first took it, was held against the last entry."""
        self._oid = 0
        self._sent = False
        self._under_way: _Batch | None = None
        self._ahead: _Batch | None = None

    def ahead(self, calls: list[Call]) -> None:
        """Prepare the batch that ``commit`` will be called with next, while the one under way is with the server."""
        if self._under_way is not None:
            arrangement = arrange(calls, {})
            if arrangement.fresh:
                self._ahead = self._sealed(calls, arrangement, self._under_way.head)

    async def commit(self, calls: list[Call], sent: Sent = lambda: None) -> Outcomes:
        """Append what is new of the calls, durably; calls ``sent`` each time the server has been sent them. Outlasts a
        lost connection for ``RETRY_SECONDS``.

        Raises ``Fenced``, ``Unavailable``, and ``Corrupt`` when the log's end is not what its head row says.
        """
        deadline = time.monotonic() + RETRY_SECONDS
        self._sent = False
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(TRANSACTION_SECONDS):
                    return await self._try(calls, sent)
            except (Unavailable, TimeoutError) as error:
                await self.close()
                if time.monotonic() > deadline:
                    known = (
                        "Whether it was appended is unknown: append the same again to find out"
                        if self._sent
                        else "Nothing was appended; try again later"
                    )
                    raise Unavailable(
                        f"could not append to the log of {self._origin}: {error or 'no answer'}. {known}"
                    ) from error
            except BaseException:
                await self.close()
                raise
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def close(self) -> None:
        """Disconnect; the next batch connects again."""
        connection, self._connection = self._connection, None
        self._head = self._under_way = self._ahead = None
        self._checked = False
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def _try(self, calls: list[Call], sent: Sent) -> Outcomes:
        with translated("append to the log"):
            connection = await self._connected()
            ahead, self._ahead = self._ahead, None
            if self._head is not None:
                if ahead is not None and ahead.calls is calls and ahead.behind == self._head:
                    batch = ahead
                else:
                    batch = self._sealed(calls, arrange(calls, {}), self._head)
                receipts = await self._append(connection, batch, sent)
                if receipts is not None:
                    return batch.arrangement.outcomes(receipts)
            return await self._locked(connection, calls, sent)

    async def _locked(self, connection: _Connection, calls: list[Call], sent: Sent) -> Outcomes:
        """Take the head row, then decide what is new: nothing can change until the commit."""
        ids = list({body.id for call in calls for body in call})
        async with connection.pipeline():
            await connection.execute("BEGIN")
            cursor = await connection.execute(
                _LOCK, (self._origin, self._writer, self.epoch, ids), prepare=True, binary=True
            )
            row = await cursor.fetchone()
        assert row is not None
        *fields, known_ids = row
        head = Head(*fields)
        if not self._checked or head.time > format_time(self._now()):
            last = await (await connection.execute(LAST_ENTRY, (self._origin, head.size - 1), binary=True)).fetchone()
            check_end(self._origin, head, last)
            self._checked = True
        known = await self._known(connection, known_ids) if known_ids else {}
        arrangement = arrange(calls, known)
        if not arrangement.fresh:
            await connection.execute("COMMIT")  # of nothing; after a ROLLBACK psycopg gives up prepared statements
            return arrangement.outcomes([])
        batch = self._sealed(calls, arrangement, head)
        receipts = await self._append(connection, batch, sent, transaction=True)
        if receipts is None:
            raise Corrupt(f"the head of {self._origin} moved under its lock: verify the log")
        return arrangement.outcomes(receipts)

    def _sealed(self, calls: Sequence[Call], arrangement: Arrangement, behind: Head) -> _Batch:
        fresh = arrangement.fresh
        moment = max(format_time(self._now()), behind.time)
        leaves = chain_leaves(fresh, behind.size, behind.leaf, moment)
        head = Head(behind.size + len(leaves), leaves[-1], moment) if leaves else behind
        return _Batch(calls, arrangement, behind, head, leaves, encode_entries(fresh, self._oid))

    async def _append(
        self, connection: _Connection, batch: _Batch, sent: Sent, *, transaction: bool = False
    ) -> list[Receipt] | None:
        """Receipts of the batch, committed; None when the log does not end where it was sealed, or holds an id of
        it."""
        if not batch.arrangement.fresh:
            return []
        self._under_way, self._sent = batch, True
        failpoint("log.append.before_commit")
        try:
            appended = await self._send(connection, batch, sent, transaction=transaction)
        finally:
            self._under_way = None
        if not appended:
            self._head = None
            return None
        failpoint("log.append.after_commit")
        self._head = batch.head
        moment = batch.head.time
        return [
            Receipt(body.id, seq, leaf.hex(), moment)
            for seq, (body, leaf) in enumerate(
                zip(batch.arrangement.fresh, batch.leaves, strict=True), batch.behind.size
            )
        ]

    async def _send(self, connection: _Connection, batch: _Batch, sent: Sent, *, transaction: bool) -> bool:
        values = (
            self._origin.encode(),
            self._writer.encode(),
            self.epoch.to_bytes(8),
            batch.behind.size.to_bytes(8),
            batch.head.time.encode(),
            batch.entries,
            encode_hashes(batch.leaves),
        )
        try:
            done = await execute_prepared(connection, _STATEMENT, values, sent, then_commit=transaction)
        except psycopg.errors.UniqueViolation:
            if transaction:
                raise
            return False  # an id of it is in the log already: looked up under the lock
        except psycopg.Error as error:
            if error.sqlstate == NOT_A_CONTINUATION:
                raise Corrupt(f"the log of {self._origin} refuses its continuation ({error}): verify it") from error
            raise
        return done == _TRUE

    async def _known(self, connection: _Connection, ids: list[str]) -> dict[str, Known]:
        cursor = await connection.execute(_KNOWN, (self._origin, ids), binary=True)
        return {row[0]: Known(Receipt(row[0], row[1], row[3].hex(), row[4]), row[2]) for row in await cursor.fetchall()}

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            self._head, self._checked = None, False
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                options=_OPTIONS,
                application_name=f"triplane log {self._writer} append",
            )
            row = await (await self._connection.execute(_TYPE)).fetchone()
            assert row is not None
            await prepare(self._connection, _STATEMENT, _APPEND)
            self._oid = row[0]
        return self._connection
