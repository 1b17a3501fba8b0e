"""What the session store in memory tells without changing anything; twin of Postgres'."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from triplane.adapters.memory.sessionline import KeptSession, open_ones
from triplane.adapters.memory.sessionmemory import SessionMemory
from triplane.audit.plainjson import json_copy
from triplane.domain.session import LiveRun, OpenSession, Outstanding, RunState, RunView, SessionView


class Reading(SessionMemory):
    """The parts of ``SessionStore`` that only read."""

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """See ``SessionStore.next_permit_counter``."""
        view = self._run(session_uid, run)
        return 1 if view is None else view.permit_counter + 1

    async def outstanding(self, graph_uid: str) -> Outstanding:
        """See ``SessionStore.outstanding``."""
        return self._line.outstanding(graph_uid, self._clock.now())

    async def revocation_revision(self) -> int:
        """See ``SessionStore.revocation_revision``."""
        return self._revision

    async def now(self) -> datetime:
        """See ``SessionStore.now``."""
        return self._clock.now()

    async def get(self, session_uid: str, *, records: bool = False) -> SessionView | None:
        """See ``SessionStore.get``."""
        return self._view(session_uid, records=records)

    async def get_many(self, session_uids: Sequence[str], *, records: bool = False) -> Mapping[str, SessionView]:
        """See ``SessionStore.get_many``."""
        views = {uid: self._view(uid, records=records) for uid in session_uids}
        return {uid: view for uid, view in views.items() if view is not None}

    async def live(self) -> list[LiveRun]:
        """See ``SessionStore.live``."""
        return [session.live_run() for session in self._sessions.values() if session.live]

    async def wanted(self) -> list[str]:
        """See ``SessionStore.wanted``."""
        return [uid for uid, session in self._sessions.items() if session.wanted]

    async def open_sessions(self, task_uid: str | None = None) -> list[OpenSession]:
        """See ``SessionStore.open_sessions``."""
        return open_ones(self._sessions.values(), task_uid)

    def _view(self, session_uid: str, *, records: bool = False) -> SessionView | None:
        session = self._sessions.get(session_uid)
        if session is None:
            return None
        return SessionView(
            offer=replace(session.offer, work_order=json_copy(session.offer.work_order)),
            runs=tuple(self._run_view(session, view) for view in session.runs),
            revoked=session.revoked,
            closed=session.closed,
            record_digests=tuple((run, seq, digest) for (run, seq), digest in sorted(session.digests.items()))
            if records
            else (),
            wanted=session.wanted,
            held_by=self._line.held(session),
            passed_over=session.claimable and not session.waiting,
        )

    def _run_view(self, session: KeptSession, view: RunView) -> RunView:
        return replace(
            view,
            permit_expired=view.state is RunState.PERMITTED
            and not session.permits[view.run].usable(self._line.bar_of(session).revision, self._clock.now()),
            facts=json_copy(view.facts),
            run_inputs=json_copy(view.run_inputs),
        )
