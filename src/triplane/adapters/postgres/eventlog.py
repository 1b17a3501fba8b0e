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
from triplane.adapters.postgres import archivedreferences
from triplane.adapters.postgres.appender import Appender, Outcomes
from triplane.adapters.postgres.bell import Bell, stopped
from triplane.adapters.postgres.connection import Pool, make_pool, open_pool, translated
from triplane.adapters.postgres.heldlog import HELD, current_origin
from triplane.adapters.postgres.sequencer import Call, Load, Sent, Sequencer
from triplane.adapters.postgres.sweep import Range, sweep
from triplane.audit.entry import prepare
from triplane.audit.model import EventBody, EventFilter, Receipt, Recorded, Verification
from triplane.audit.types import STAYING
from triplane.audit.verifying import Given
from triplane.domain.collection import ArchivedReferences
from triplane.errors import Archived, Corrupt, Fenced, InvalidInput, NotFound, Unavailable

CHANNEL = "triplane_log"
"""NOTIFY channel; rings after commits, without payload."""
LARGEST_QUERY = 10_000
POLL_SECONDS = 1.0
"""Streams look on their own this often, in case a wake-up was lost."""
_PAGE = 500
_REMEMBERED = 2048
"""Entries found by their ids that are kept in memory, as octets: parsed, each would take four times as much, and to
parse it takes microseconds."""
_STREAM_PAUSE_SECONDS = 0.02
"""What is appended within this time of a wake-up is read with one statement."""
_NOTIFY_PAUSE_SECONDS = 0.01
"""Under load, one wake-up for several batches."""

# Planned as so many look-ups of one UID, whatever the planner believes of the table: with `uid = ANY (…)` it read all
# of one that had not been analysed yet.
_OF_EACH: LiteralString = """
    SELECT seq, octets, leaf FROM unnest(%s::text[]) AS wanted (uid) CROSS JOIN LATERAL (
        SELECT seq, octets, leaf FROM log.entries AS e WHERE e.uid = wanted.uid AND {} OFFSET 0) AS found"""
# OFFSET 0 keeps the inner query whole, so that it is planned as the lookup of one entry. As a plain join it was
# planned, while the tables were empty, to go through all entries of the origin for each id, and that plan is kept.
_GET = """
    SELECT e.seq, e.octets, e.leaf, i.seq, i.id
    FROM log.entry_ids i LEFT JOIN LATERAL (
        SELECT seq, octets, leaf FROM log.entries WHERE origin = i.origin AND seq = i.seq OFFSET 0) e ON true
    WHERE i.origin = %s AND i.id = ANY (%s)"""
_ARCHIVE = "SELECT upto_seq, place FROM log.archives WHERE origin = %s ORDER BY upto_seq DESC LIMIT 1"
_TIME = """
    SELECT time FROM log.entries WHERE origin = %(origin)s AND seq = %(seq)s
    UNION ALL SELECT time FROM log.archived_entries WHERE origin = %(origin)s AND seq = %(seq)s LIMIT 1"""
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
        self._pool = self._new_pool()
        self._appender: Appender | None = None
        self._sequencer = Sequencer(self._commit, self._ahead)
        self._bell = Bell(conninfo, CHANNEL)
        self._found: dict[str, tuple[Any, ...]] = {}
        self._epoch_checks = Joined(self._check_epoch)
        self._news = False
        self._notifier: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Connect, check the schema's revision, learn the origin. Raises ``Unavailable``: then open it again later; and
        ``Corrupt`` when there is a log without its head."""
        try:
            await open_pool(self._pool)
            self._origin = current_origin(await self._rows("read the log's origin", HELD, ()))
            if self._origin is None:
                raise Unavailable("the database holds no log: run `triplane migrate`")
        except BaseException:
            await self._pool.close()
            self._pool = self._new_pool()  # a pool that was closed stays closed
            raise
        self._appender = Appender(self._conninfo, self._origin, self._writer, self._now)
        return self

    def _new_pool(self) -> Pool:
        return make_pool(self._conninfo, name=f"triplane log {self._writer}", largest=4)

    @property
    def origin(self) -> str:
        """``<host>/<install id>``."""
        if self._origin is None:
            raise Unavailable("the log is not open: await its open() first")
        return self._origin

    @property
    def load(self) -> Load:
        """What waits to be appended, and what was."""
        return self._sequencer.load

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``. While the database is slow or absent callers wait, first come first served, and what
        they wait with is bounded; ``Unavailable`` says whether something may have been appended."""
        await self._sequencer.place()
        prepared = [prepare(self.origin, body) for body in bodies]
        return await self._sequencer.submit(prepared) if prepared else []

    async def get(self, event_id: str) -> Recorded | None:
        """See ``EventLog.get``."""
        return (await self.get_many([event_id])).get(event_id)

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """See ``EventLog.get_many``. What is recorded stands for ever, so what was found is not asked again."""
        found = {id_: _recorded(row) for id_ in event_ids if (row := self._found.get(id_)) is not None}
        if asked := [id_ for id_ in event_ids if id_ not in found]:
            rows = await self._rows("read the log", _GET, (self.origin, asked))
            for _, octets, _, seq, id_ in rows:
                if octets is None:
                    await self._refuse_archived(seq, f"{id_} is entry {seq}, and")
            new = {str(row[4]): row[:3] for row in rows if row[1] is not None}
            found |= {id_: _recorded(row) for id_, row in new.items()}
            self._remember(new)
        return found

    async def query(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """See ``EventLog.query``. Without a subject it is the log that is read: raises ``Archived`` where that begins
        before what is here. The history of a subject begins with what is here."""
        if not 1 <= limit <= LARGEST_QUERY:
            raise InvalidInput(f"limit {limit} is not from 1 to {LARGEST_QUERY}: page with `after`")
        staying = where.types and where.types <= STAYING
        if not newest_first and not (staying or where.uid or where.uids or where.name):
            await self._refuse_archived(after + 1)
        statement, values = _select(self.origin, where, after=after)
        order = sql.SQL(" ORDER BY seq DESC LIMIT %s" if newest_first else " ORDER BY seq LIMIT %s")
        return [_recorded(row) for row in await self._rows("query the log", statement + order, (*values, limit))]

    async def head(self) -> tuple[int, str]:
        """See ``EventLog.head``."""
        rows = await self._rows("read the log's head", _HEAD, (self.origin,))
        if not rows:
            raise self._headless()
        return rows[0][0], rows[0][1].hex()

    async def time_at(self, seq: int) -> str:
        """See ``EventLog.time_at``."""
        rows = await self._rows("read the time of an entry", _TIME, {"origin": self.origin, "seq": seq})
        if not rows:
            raise NotFound(f"there is no entry {seq} in {self.origin}: if it has more, verify the log")
        return str(rows[0][0])

    async def archived_references(self) -> ArchivedReferences:
        """See ``EventLog.archived_references``."""
        with translated("read what is archived"):
            async with self._pool.connection() as connection:
                found = await archivedreferences.read(connection, self.origin)
        if found is None:
            raise Unavailable(
                f"what archived entries of {self.origin} name is not known: an earlier version archived them. Nothing "
                "is collected, and whether a blob is lost that only they need cannot be told"
            )
        return found

    async def stream(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
    ) -> AsyncIterator[Recorded]:
        """See ``EventLog.stream``; outlasts the server's absence. Raises ``Archived`` where what is to come next is not
        here: it was archived, before the stream began or because it is that far behind."""
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

    async def verify_chain(
        self,
        *,
        first: int = 0,
        last: int | None = None,
        given: Given = Given(),  # frozen
    ) -> Verification:
        """See ``EventLog.verify_chain``. Without ``last`` it goes on to the head, entries appended meanwhile
        included, and compares with the head row."""
        with translated("verify the log"):
            async with self._pool.connection() as connection:
                return await sweep(connection, self._conninfo, Range(self.origin, first, last, given))

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
                f"writer {writer} is at epoch {rows[0][0]}, this process holds {epoch}: "
                "a newer process has taken over: stop this one"
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
        self, action: str, statement: LiteralString | sql.Composed, values: Sequence[Any] | Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        with translated(action):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement, values, binary=True)
                return await cursor.fetchall()

    async def _page(self, where: EventFilter, after: int) -> tuple[int, list[Recorded]]:
        """The log's size, and what matches after ``after``, in one snapshot."""
        statement, values = _select(self.origin, where, after=after)
        page = sql.SQL(
            "SELECT h.size, (SELECT max(a.upto_seq) FROM log.archives a WHERE a.origin = h.origin),"
            " e.seq, e.octets, e.leaf FROM log.heads h"
            " LEFT JOIN LATERAL ({} AND seq < h.size ORDER BY seq LIMIT %s) e ON h.size - 1 > %s WHERE h.origin = %s"
        ).format(statement)
        rows = await self._rows("stream the log", page, (*values, _PAGE, after, self.origin))
        if not rows:
            raise self._headless()
        if after + 1 < (rows[0][1] or 0) and not (where.types and where.types <= STAYING):
            await self._refuse_archived(after + 1)
        return rows[0][0], [_recorded(row[2:]) for row in rows if row[2] is not None]

    async def _refuse_archived(self, seq: int, what: str = "") -> None:
        rows = await self._rows("read what is archived", _ARCHIVE, (self.origin,))
        if rows and seq < rows[0][0]:
            upto, place = rows[0]
            raise Archived(
                f"{what or f'entry {seq} is asked for, and'} entries 0 to {upto - 1} of {self.origin} are archived at "
                f"{place}: read them there; here the log begins at entry {upto}",
                upto=upto,
            )

    def _headless(self) -> Corrupt:
        return Corrupt(f"the head row of {self.origin} is gone: verify the log, restore it from a backup")

    def _remember(self, new: Mapping[str, tuple[Any, ...]]) -> None:
        self._found.update(new)
        while len(self._found) > _REMEMBERED:
            del self._found[next(iter(self._found))]  # the oldest: dictionaries keep their order

    # Appending

    async def _commit(self, calls: list[Call], sent: Sent) -> Outcomes:
        outcomes = await self._opened().commit(calls, sent)
        self._tell()
        return outcomes

    def _ahead(self, calls: list[Call]) -> None:
        self._opened().ahead(calls)

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
    if where.types:
        conditions.append("type = ANY (%s)")
        values.append(sorted(where.types))
    wanted = sql.SQL(" AND ").join(map(sql.SQL, conditions))
    if where.uids:
        return sql.SQL(_OF_EACH).format(wanted), [sorted(where.uids), *values]
    return sql.SQL("SELECT seq, octets, leaf FROM log.entries WHERE {}").format(wanted), values


def _recorded(row: tuple[Any, ...]) -> Recorded:
    seq, octets, leaf = row
    try:
        entry = orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        raise Corrupt(f"entry {seq} is not JSON ({error}): verify the log") from error
    return Recorded(seq, octets, leaf.hex(), entry)
