"""The event log in Postgres: reading, waiting, verifying, and the queue before the appender.

Bodies are checked, encoded and hashed in their caller's task; the sequencer batches them, the appender commits.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString, Self

import orjson
from psycopg import sql

from triplane.adapters.joined import Joined
from triplane.adapters.postgres.appender import Appender, Outcomes
from triplane.adapters.postgres.bell import Bell, stopped
from triplane.adapters.postgres.connection import make_pool, open_pool, translated
from triplane.adapters.postgres.sequencer import Call, Sequencer
from triplane.adapters.postgres.sweep import sweep
from triplane.audit.entry import prepare
from triplane.audit.model import EventBody, EventFilter, Receipt, Recorded, Verification
from triplane.errors import Corrupt, Fenced, InvalidInput, Unavailable

CHANNEL = "triplane_log"
"""NOTIFY channel; rings after commits, without payload."""
LARGEST_QUERY = 10_000
POLL_SECONDS = 1.0
"""Streams look on their own this often, in case a wake-up was lost."""
_PAGE = 500
_REMEMBERED = 2048
"""Entries found by their ids that are kept in memory."""
_STREAM_PAUSE_SECONDS = 0.02
"""What is appended within this time of a wake-up is read with one statement."""
_NOTIFY_PAUSE_SECONDS = 0.01
"""Under load, one wake-up for several batches."""

# OFFSET 0 keeps the inner query whole, so that it is planned as the lookup of one entry. As a plain join it was
# planned, while the tables were empty, to go through all entries of the origin for each id, and that plan is kept.
_GET = """
    SELECT e.seq, e.octets, e.leaf
    FROM log.entry_ids i CROSS JOIN LATERAL (
        SELECT seq, octets, leaf FROM log.entries WHERE origin = i.origin AND seq = i.seq OFFSET 0) e
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
        self._pool = make_pool(conninfo, name=f"triplane log {writer}", largest=4)
        self._appender: Appender | None = None
        self._sequencer = Sequencer(self._commit)
        self._bell = Bell(conninfo, CHANNEL)
        self._found: dict[str, Recorded] = {}
        self._epoch_checks = Joined(self._check_epoch)
        self._news = False
        self._notifier: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Connect, check the schema's revision, learn the origin. Raises ``Unavailable``."""
        await open_pool(self._pool)
        rows = await self._rows("read the log's origin", "SELECT origin FROM log.heads WHERE current", ())
        if not rows:
            raise Unavailable("the database holds no log: run `triplane migrate`")
        self._origin = str(rows[0][0])
        self._appender = Appender(self._conninfo, self._origin, self._writer, self._now)
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
        """See ``EventLog.get_many``. What is recorded stands for ever, so what was found is not asked again."""
        found = {id_: recorded for id_ in event_ids if (recorded := self._found.get(id_)) is not None}
        if asked := [id_ for id_ in event_ids if id_ not in found]:
            rows = await self._rows("read the log", _GET, (self.origin, asked))
            new = {str(recorded.entry["id"]): recorded for recorded in map(_recorded, rows)}
            self._remember(new)
            found |= new
        return found

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
            raise self._headless()
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
                    # Everything before the head is committed: what does not match is passed for good.
                    size, page = await self._page(where, after)
                except Unavailable:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                for recorded in page:
                    yield recorded
                    after = recorded.seq
                if len(page) < _PAGE:
                    after = max(after, size - 1)
                    await waiter.wait(POLL_SECONDS)
                    await asyncio.sleep(_STREAM_PAUSE_SECONDS)

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
        self._opened().epoch = epoch = rows[0][0]
        return int(epoch)

    async def check_epoch(self) -> None:
        """See ``EventLog.check_epoch``."""
        await self._epoch_checks(self._writer)

    async def _check_epoch(self, writer: str) -> None:
        rows = await self._rows("check the epoch", _EPOCH, (writer,))
        epoch = self._opened().epoch
        if rows[0][0] != epoch:
            raise Fenced(
                f"writer {writer} is at epoch {rows[0][0]}, this process holds {epoch}: a newer process has taken over"
            )

    async def close(self) -> None:
        """Finish what is queued and disconnect."""
        await self._sequencer.close()
        await self._bell.close()
        if self._notifier is not None:
            await stopped(self._notifier)
        if self._appender is not None:
            await self._appender.close()
        await self._pool.close()

    # Reading

    async def _rows(
        self, action: str, statement: LiteralString | sql.Composed, values: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        with translated(action):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement, values, binary=True)
                return await cursor.fetchall()

    async def _page(self, where: EventFilter, after: int) -> tuple[int, list[Recorded]]:
        """The log's size, and what matches after ``after``, in one snapshot."""
        statement, values = _select(self.origin, where, after=after)
        page = sql.SQL(
            "SELECT h.size, e.seq, e.octets, e.leaf FROM log.heads h"
            " LEFT JOIN LATERAL ({} AND seq < h.size ORDER BY seq LIMIT %s) e ON h.size - 1 > %s WHERE h.origin = %s"
        ).format(statement)
        rows = await self._rows("stream the log", page, (*values, _PAGE, after, self.origin))
        if not rows:
            raise self._headless()
        return rows[0][0], [_recorded(row[1:]) for row in rows if row[1] is not None]

    def _headless(self) -> Corrupt:
        return Corrupt(f"the head row of {self.origin} is gone: verify the log, restore it from a backup")

    def _remember(self, new: Mapping[str, Recorded]) -> None:
        self._found.update(new)
        while len(self._found) > _REMEMBERED:
            del self._found[next(iter(self._found))]  # the oldest: dictionaries keep their order

    # Appending

    async def _commit(self, calls: list[Call]) -> Outcomes:
        outcomes = await self._opened().commit(calls)
        self._tell()
        return outcomes

    def _opened(self) -> Appender:
        if self._appender is None:
            raise Unavailable("the log is not open: await its open() first")
        return self._appender

    def _tell(self) -> None:
        """Wake the streams: here at once, elsewhere by NOTIFY, outside the append transaction, where it would
        take a lock that every notifying commit shares."""
        self._bell.ring()
        self._news = True
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.create_task(self._notify(), name="log notifier")

    async def _notify(self) -> None:
        while self._news:  # ends by itself: a process that exits without close() must not wait for it
            self._news = False
            with contextlib.suppress(Unavailable), translated("notify"):
                async with self._pool.connection() as connection:
                    await connection.execute(f"NOTIFY {CHANNEL}")
            await asyncio.sleep(_NOTIFY_PAUSE_SECONDS)


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
    if where.before is not None:
        conditions.append("seq < %s")
        values.append(where.before)
    if where.uids:
        conditions.append("uid = ANY (%s)")
        values.append(sorted(where.uids))
    if where.types:
        conditions.append("type = ANY (%s)")
        values.append(sorted(where.types))
    wanted = sql.SQL(" AND ").join(map(sql.SQL, conditions))
    return sql.SQL("SELECT seq, octets, leaf FROM log.entries WHERE {}").format(wanted), values


def _recorded(row: tuple[Any, ...]) -> Recorded:
    seq, octets, leaf = row
    return Recorded(seq, octets, leaf.hex(), orjson.loads(octets))
