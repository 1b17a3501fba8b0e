"""What the session store tells without changing anything."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from triplane.adapters.postgres import sessionsql as sql
from triplane.adapters.postgres.sessiondatabase import SessionDatabase
from triplane.adapters.postgres.sessionrows import (
    LIVE,
    OPEN,
    SESSION,
    SESSION_WITH_RECORDS,
    SessionRow,
    live_run,
    open_session,
)
from triplane.domain.session import LiveRun, OpenSession, Outstanding, SessionView


class Reading(SessionDatabase):
    """The parts of ``SessionStore`` that only read."""

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """See ``SessionStore.next_permit_counter``."""
        return int(await self._value(sql.COUNTER, session_uid, run) or 1)

    async def outstanding(self, graph_uid: str) -> Outstanding:
        """See ``SessionStore.outstanding``."""
        ((permits, of_graph),) = await self._rows(sql.OUTSTANDING, {"graph": graph_uid})
        return Outstanding(permits, of_graph)

    async def revocation_revision(self) -> int:
        """See ``SessionStore.revocation_revision``."""
        return int(await self._value(sql.REVISION))

    async def now(self) -> datetime:
        """See ``SessionStore.now``."""
        found = await self._value("SELECT clock_timestamp()")
        assert isinstance(found, datetime)
        return found

    async def get(self, session_uid: str, *, records: bool = False) -> SessionView | None:
        """See ``SessionStore.get``."""
        return (await self.get_many([session_uid], records=records)).get(session_uid)

    async def get_many(self, session_uids: Sequence[str], *, records: bool = False) -> Mapping[str, SessionView]:
        """See ``SessionStore.get_many``."""
        if not session_uids:
            return {}
        query = (SESSION_WITH_RECORDS if records else SESSION) + sql.THESE
        views = [SessionRow(row).view for row in await self._rows(query, (list(session_uids),))]
        return {view.offer.session_uid: view for view in views}

    async def live(self) -> list[LiveRun]:
        """See ``SessionStore.live``."""
        return [live_run(row) for row in await self._rows(LIVE)]

    async def wanted(self) -> list[str]:
        """See ``SessionStore.wanted``."""
        return [row[0] for row in await self._rows(sql.WANTED)]

    async def open_sessions(self, task_uid: str | None = None) -> list[OpenSession]:
        """See ``SessionStore.open_sessions``."""
        of_task = "" if task_uid is None else "AND s.task_uid = %s "
        values = () if task_uid is None else (task_uid,)
        return [open_session(row) for row in await self._rows(f"{OPEN} {of_task}ORDER BY s.position", values)]
