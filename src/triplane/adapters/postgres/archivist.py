"""The database's side of archiving the log, as its owner: ``triplane.ports.archive.Archivist``."""

import asyncio
from datetime import datetime
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from triplane.adapters.postgres.archivedreferences import (
    AT_ONCE,
    ROWS,
    TOLD,
    UPTO,
    Counted,
    refuse_altered,
    told_in,
    told_values,
)
from triplane.adapters.postgres.connection import CONNECT_SECONDS, translated
from triplane.adapters.postgres.endcheck import LAST_ENTRY, Head, check_end
from triplane.adapters.postgres.ownerappend import append_within
from triplane.adapters.postgres.roles import LOG_OWNER
from triplane.audit.entry import format_time, prepare
from triplane.audit.types import STAYING
from triplane.domain.collection import SPEAKS_OF_BLOBS, ReferencesFacts
from triplane.domain.events import log_archived
from triplane.errors import Conflict, Unavailable
from triplane.failpoint import failpoint
from triplane.ports.archive import Boundary, Cut

NOT_ARCHIVED = "TP006"
_WRITER = "archive"
_OPTIONS = "-c synchronous_commit=on -c default_transaction_isolation=read\\ committed"
_BOUNDARY = "SELECT upto_seq, place FROM log.archives WHERE origin = %s ORDER BY upto_seq DESC LIMIT 1"
_HEAD = "SELECT size, leaf, time FROM log.heads WHERE origin = %s FOR UPDATE"
_RECORD = "SELECT log.log_archive(%s, %s, %s, %s, %s, %s, %s, %s)"
_STAYING = "SELECT count(*) FROM log.entries WHERE origin = %s AND seq >= %s AND seq < %s AND type = ANY (%s)"
_ALONE = "LOCK TABLE log.archives IN SHARE ROW EXCLUSIVE MODE"
_REMOVE = "SELECT log.log_remove_archived(%s, %s, %s)"

Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresArchivist:
    """``conninfo`` is the migrator's: it becomes the log's owner. Use it as a context."""

    def __init__(self, conninfo: str, origin: str) -> None:
        self._conninfo = make_conninfo(conninfo, options=f"-c role={LOG_OWNER} {_OPTIONS}")
        self._origin = origin
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        with translated("open the database"):
            self._connection = await asyncio.to_thread(
                psycopg.connect,
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name="triplane log archive",
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await asyncio.to_thread(self._connection.close)

    async def boundary(self) -> Boundary | None:
        """See ``Archivist.boundary``."""
        row = await asyncio.to_thread(self._one, "read what is archived", _BOUNDARY, (self._origin,))
        return None if row is None else Boundary(*row)

    async def record(self, cut: Cut, now: datetime) -> None:
        """See ``Archivist.record``."""
        await asyncio.to_thread(self._record, cut, now)

    async def remove(self, limit: int) -> int:
        """See ``Archivist.remove``. Raises ``Unavailable`` when readers of a partition keep it from being dropped."""
        failpoint("log.archive.before_removal")
        row = await asyncio.to_thread(
            self._one, "remove archived entries", _REMOVE, (self._origin, sorted(STAYING), limit)
        )
        return 0 if row is None else int(row[0])

    def _record(self, cut: Cut, now: datetime) -> None:
        with translated("record what is archived"), self._opened().transaction():
            # It copies a row for each entry, so before the head is taken: appends go on meanwhile.
            self._opened().execute(_ALONE)
            known = self._known()
            moment = format_time(now)
            values = (self._origin, cut.upto, cut.root, cut.note, cut.size, cut.place, moment, sorted(SPEAKS_OF_BLOBS))
            self._one("record what is archived", _RECORD, values)
            counted = self._opened().execute(_STAYING, (self._origin, cut.first, cut.upto, sorted(STAYING))).fetchone()
            staying = 0 if counted is None else int(counted[0])
            references = self._references()
            head = self._opened().execute(_HEAD, (self._origin,)).fetchone()
            if head is None:
                raise Unavailable(f"no log has the origin {self._origin}")
            end = Head(*head)
            last = self._opened().execute(LAST_ENTRY, (self._origin, end.size - 1)).fetchone()
            check_end(self._origin, end, last)
            moment = max(moment, end.time)
            body = log_archived(
                self._origin, cut.first, cut.upto, cut.root.hex(), cut.size, staying, references if known else None
            )
            entries = [prepare(self._origin, body)]
            epoch = self._epoch()
            if not append_within(
                self._opened(),
                self._origin,
                entries,
                size=end.size,
                leaf=end.leaf,
                time=moment,
                writer=_WRITER,
                epoch=epoch,
            ):
                raise Conflict(f"the head of {self._origin} moved under its lock: verify the log")

    def _known(self) -> bool:
        """Whether all that earlier archived entries name is kept. Raises ``Corrupt`` when it was altered since: the new
        entry would vouch for it."""
        row = self._opened().execute(UPTO, (self._origin,)).fetchone()
        upto = 0 if row is None else int(row[0])
        said = told_in(self._opened().execute(TOLD, told_values(self._origin, upto), binary=True).fetchone(), upto)
        if said is not None:
            refuse_altered(said.problem(self._references()))
        return said is not None

    def _references(self) -> ReferencesFacts:
        found = Counted()
        with self._opened().cursor("archived_references", binary=True) as cursor:
            cursor.execute(ROWS, (self._origin,))
            while page := cursor.fetchmany(AT_ONCE):
                found.add([(row[0], row[1]) for row in page])
        return found.facts

    def _epoch(self) -> int:
        statement = "SELECT epoch FROM log.writers WHERE login = session_user AND writer = %s"
        row = self._opened().execute(statement, (_WRITER,)).fetchone()
        return 0 if row is None else int(row[0])

    def _one(self, action: str, statement: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with translated(action):
            try:
                return self._opened().execute(statement, values).fetchone()
            except psycopg.errors.LockNotAvailable as error:
                raise Unavailable(f"could not {action}: readers hold the partition; run it again") from error
            except psycopg.Error as error:
                if error.sqlstate == NOT_ARCHIVED:
                    raise Conflict(f"could not {action}: {str(error).splitlines()[0]}") from error
                raise

    def _opened(self) -> Connection:
        if self._connection is None:
            raise Unavailable("the archivist is not open: enter it first")
        return self._connection
