"""The event log in Postgres.

Appending is two round trips in one transaction: lock the head row, then append and commit. Bodies are
checked, encoded and hashed before, outside the lock; only what depends on the sequence number is done under
it. Everything is idempotent by event id, so an append whose commit may or may not have happened is simply run
again: what is recorded answers.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString, Self

import orjson
import psycopg
from psycopg import sql

from triplane.adapters.postgres.bell import Bell, stopped
from triplane.adapters.postgres.connection import (
    CONNECT_SECONDS,
    NOT_A_CONTINUATION,
    make_pool,
    open_pool,
    translated,
)
from triplane.adapters.postgres.sequencer import Call, Sequencer
from triplane.adapters.postgres.sweep import sweep
from triplane.audit.arrangement import Known, arrange
from triplane.audit.entry import format_time, prepare, seal_all
from triplane.audit.model import EventBody, EventFilter, Receipt, Recorded, Verification
from triplane.errors import Corrupt, Fenced, IdReused, InvalidInput, Unavailable
from triplane.failpoint import failpoint

CHANNEL = "triplane_log"
"""NOTIFY channel; rings after commits, without payload."""
LARGEST_QUERY = 10_000
RETRY_SECONDS = 5.0
"""How long an append outlasts a lost connection before its callers get ``Unavailable``."""
TRANSACTION_SECONDS = 10.0
"""A server that answers no sooner counts as unreachable."""
POLL_SECONDS = 1.0
"""Streams look on their own this often, in case a wake-up was lost."""
_PAGE = 500
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
_OPTIONS = "-c idle_in_transaction_session_timeout=5s -c synchronous_commit=on"
"""A process that is stopped while it holds the head lock must not stop the others."""

_LOCK = "SELECT size, leaf, last_time, known_ids FROM log.log_lock_head(%b, %b, %b::bigint, %b::text[])"
_APPEND = "SELECT log.log_append(%b, %b, %b::bigint, %b::bytea[], %b::bytea[])"
_KNOWN = """
    SELECT i.id, i.seq, i.body_sha256, e.leaf, e.time
    FROM log.entry_ids i JOIN log.entries e ON e.origin = i.origin AND e.seq = i.seq
    WHERE i.origin = %s AND i.id = ANY (%s)"""
_GET = """
    SELECT e.seq, e.octets, e.leaf
    FROM log.entry_ids i JOIN log.entries e ON e.origin = i.origin AND e.seq = i.seq
    WHERE i.origin = %s AND i.id = ANY (%s)"""
_HEAD = "SELECT size, leaf FROM log.heads WHERE origin = %s"
_EPOCH = """
    SELECT coalesce((SELECT epoch FROM log.writers WHERE login = session_user AND writer = %s), 0)"""


class PostgresEventLog:
    """``EventLog`` on Postgres. ``writer`` is the name that epochs fence, apart for each login.

    A log object recovers by itself when the server comes back. Call ``open`` first; ``close`` finishes what
    is queued.
    """

    def __init__(self, conninfo: str, *, writer: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._conninfo = conninfo
        self._writer = writer
        self._now = now
        self._origin: str | None = None
        self._epoch = 0
        self._pool = make_pool(conninfo, name=f"triplane log {writer}", largest=4)
        self._appender: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._sequencer = Sequencer(self._commit)
        self._bell = Bell(conninfo, CHANNEL)
        self._news = asyncio.Event()
        self._notifier: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Connect, check the schema's revision, learn the origin. Raises ``Unavailable``."""
        await open_pool(self._pool)
        rows = await self._rows("read the log's origin", "SELECT origin FROM log.heads WHERE current", ())
        if not rows:
            raise Unavailable("the database holds no log: run `triplane migrate`")
        self._origin = str(rows[0][0])
        return self

    @property
    def origin(self) -> str:
        """``<host>/<install id>``."""
        if self._origin is None:
            raise Unavailable("the log is not open: await its open() first")
        return self._origin

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``."""
        prepared = [prepare(self.origin, body) for body in bodies]
        return await self._sequencer.submit(prepared) if prepared else []

    async def get(self, event_id: str) -> Recorded | None:
        """See ``EventLog.get``."""
        return (await self.get_many([event_id])).get(event_id)

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """See ``EventLog.get_many``."""
        rows = await self._rows("read the log", _GET, (self.origin, list(event_ids)))
        return {str(recorded.entry["id"]): recorded for recorded in map(_recorded, rows)}

    async def query(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """See ``EventLog.query``."""
        if not 1 <= limit <= LARGEST_QUERY:
            raise InvalidInput(f"limit {limit} is not from 1 to {LARGEST_QUERY}: page with `after`")
        statement, values = _select(self.origin, where, after=after)
        order = sql.SQL(" ORDER BY seq DESC LIMIT %s" if newest_first else " ORDER BY seq LIMIT %s")
        return [_recorded(row) for row in await self._rows("query the log", statement + order, (*values, limit))]

    async def head(self) -> tuple[int, str]:
        """See ``EventLog.head``."""
        rows = await self._rows("read the log's head", _HEAD, (self.origin,))
        if not rows:
            raise Corrupt(f"the head row of {self.origin} is gone: verify the log, restore it from a backup")
        return rows[0][0], rows[0][1].hex()

    async def stream(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
    ) -> AsyncIterator[Recorded]:
        """See ``EventLog.stream``; outlasts the server's absence."""
        with self._bell.waiter() as waiter:
            while True:
                try:
                    size, _ = await self.head()
                    # Everything before the head is committed: what does not match is passed for good.
                    page = await self._page(where, after, size)
                except Unavailable:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                for recorded in page:
                    yield recorded
                    after = recorded.seq
                if len(page) < _PAGE:
                    after = max(after, size - 1)
                    await waiter.wait(POLL_SECONDS)

    async def verify_chain(self, *, first: int = 0, last: int | None = None) -> Verification:
        """See ``EventLog.verify_chain``. Without ``last`` it goes on to the head, entries appended meanwhile
        included, and compares with the head row."""
        if first < 0 or (last is not None and last < first):
            raise InvalidInput(f"cannot verify from {first} to {last}: a range is 0 <= first <= last")
        with translated("verify the log"):
            async with self._pool.connection() as connection:
                return await sweep(connection, self.origin, first, last)

    async def begin_epoch(self) -> int:
        """See ``EventLog.begin_epoch``."""
        statement = "SELECT log.log_begin_epoch(%s, %s)"
        rows = await self._rows("begin an epoch", statement, (self.origin, self._writer))
        self._epoch = rows[0][0]
        return self._epoch

    async def check_epoch(self) -> None:
        """See ``EventLog.check_epoch``."""
        rows = await self._rows("check the epoch", _EPOCH, (self._writer,))
        if rows[0][0] != self._epoch:
            raise Fenced(
                f"writer {self._writer} is at epoch {rows[0][0]}, this process holds {self._epoch}: "
                "a newer process has taken over"
            )

    async def close(self) -> None:
        """Finish what is queued and disconnect."""
        await self._sequencer.close()
        await self._bell.close()
        if self._notifier is not None:
            await stopped(self._notifier)
        await self._hang_up()
        await self._pool.close()

    # Reading

    async def _rows(
        self, action: str, statement: LiteralString | sql.Composed, values: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        with translated(action):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement, values, binary=True)
                return await cursor.fetchall()

    async def _page(self, where: EventFilter, after: int, before: int) -> list[Recorded]:
        if before - 1 <= after:
            return []
        statement, values = _select(self.origin, where, after=after)
        bound = sql.SQL(" AND seq < %s ORDER BY seq LIMIT %s")
        rows = await self._rows("stream the log", statement + bound, (*values, before, _PAGE))
        return [_recorded(row) for row in rows]

    # Appending: only the sequencer calls these, one batch at a time.

    async def _commit(self, calls: list[Call]) -> Sequence[list[Receipt] | IdReused]:
        deadline = time.monotonic() + RETRY_SECONDS
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(TRANSACTION_SECONDS):
                    return await self._transact(calls)
            except (Unavailable, TimeoutError) as error:
                await self._hang_up()
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"could not append to the log of {self.origin}: {error or 'no answer'}; try again"
                    ) from error
            except BaseException:
                await self._hang_up()
                raise
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _transact(self, calls: list[Call]) -> Sequence[list[Receipt] | IdReused]:
        with translated("append to the log"):
            connection = await self._connected()
            ids = list({body.id for call in calls for body in call})
            async with connection.pipeline():
                await connection.execute("BEGIN")
                cursor = await connection.execute(
                    _LOCK, (self.origin, self._writer, self._epoch, ids), prepare=True, binary=True
                )
                row = await cursor.fetchone()
            assert row is not None
            size, leaf, last_time, known_ids = row
            known = await self._known(connection, known_ids) if known_ids else {}
            arrangement = arrange(calls, known)
            if not arrangement.fresh:
                await connection.execute("ROLLBACK")
                return arrangement.outcomes([])
            moment = max(format_time(self._now()), last_time)
            sealed = seal_all(arrangement.fresh, size, leaf.hex(), moment)
            failpoint("log.append.before_commit")
            octets = [entry.octets for entry in sealed]
            bodies = [entry.body_sha256 for entry in sealed]
            try:
                async with connection.pipeline():
                    await connection.execute(
                        _APPEND, (self.origin, self._writer, self._epoch, octets, bodies), prepare=True
                    )
                    await connection.execute("COMMIT")
            except psycopg.Error as error:
                if error.sqlstate == NOT_A_CONTINUATION:
                    raise Corrupt(f"the log of {self.origin} refuses its continuation ({error}): verify it") from error
                raise
            failpoint("log.append.after_commit")
            self._tell()
            receipts = [
                Receipt(body.id, size + place, entry.leaf.hex(), moment)
                for place, (body, entry) in enumerate(zip(arrangement.fresh, sealed, strict=True))
            ]
            return arrangement.outcomes(receipts)

    async def _known(self, connection: psycopg.AsyncConnection[tuple[Any, ...]], ids: list[str]) -> dict[str, Known]:
        cursor = await connection.execute(_KNOWN, (self.origin, ids), binary=True)
        return {row[0]: Known(Receipt(row[0], row[1], row[3].hex(), row[4]), row[2]) for row in await cursor.fetchall()}

    async def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._appender is None or self._appender.closed:
            self._appender = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                options=_OPTIONS,
                application_name=f"triplane log {self._writer} append",
            )
        return self._appender

    async def _hang_up(self) -> None:
        appender, self._appender = self._appender, None
        if appender is not None:
            with contextlib.suppress(psycopg.Error):
                await appender.close()

    def _tell(self) -> None:
        """Wake the streams: here at once, elsewhere by NOTIFY, outside the append transaction, where it would
        take a lock that every notifying commit shares."""
        self._bell.ring()
        self._news.set()
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.create_task(self._notify(), name="log notifier")

    async def _notify(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            with contextlib.suppress(Unavailable), translated("notify"):
                async with self._pool.connection() as connection:
                    await connection.execute(f"NOTIFY {CHANNEL}")
            await asyncio.sleep(0.01)  # under load, one wake-up for several batches


def _select(origin: str, where: EventFilter, *, after: int) -> tuple[sql.Composed, list[Any]]:
    conditions: list[LiteralString] = ["origin = %s", "seq > %s"]
    values: list[Any] = [origin, after]
    for column, value in (
        ("kind", where.kind),
        ("namespace", where.namespace),
        ("name", where.name),
        ("uid", where.uid),
        ("stream", where.stream),
        ("actor", where.actor),
    ):
        if value is not None:
            conditions.append(column + " = %s")
            values.append(value)
    if where.types:
        conditions.append("type = ANY (%s)")
        values.append(sorted(where.types))
    wanted = sql.SQL(" AND ").join(map(sql.SQL, conditions))
    return sql.SQL("SELECT seq, octets, leaf FROM log.entries WHERE {}").format(wanted), values


def _recorded(row: tuple[Any, ...]) -> Recorded:
    seq, octets, leaf = row
    return Recorded(seq, octets, leaf.hex(), orjson.loads(octets))
