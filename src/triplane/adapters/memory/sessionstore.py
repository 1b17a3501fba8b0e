"""Session store in memory: the twin of Postgres', for tests and for trying things out.

No operation awaits between reading and writing, so each is one transaction as far as the event loop is
concerned.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from triplane.adapters.wakeup import Wakeup
from triplane.audit.model import JsonObject
from triplane.audit.plainjson import json_copy, json_text
from triplane.domain.blob import check_blob_owner
from triplane.domain.launch import (
    ClaimRefusal,
    StoredPermit,
    check_permit,
    claim_of,
    decide_claim,
    decide_permit,
)
from triplane.domain.run import (
    INSTANCE_REPLACED,
    decide_finish,
    decide_record,
    decide_renewal,
    decide_start,
)
from triplane.domain.session import (
    LIVE_RUN_STATES,
    Claim,
    Offer,
    Permit,
    RecordReceipt,
    RunResult,
    RunState,
    RunView,
    SessionView,
)
from triplane.errors import NotFound, PermitRefused
from triplane.ports import Clock, Wakeups


@dataclass(slots=True)
class _Session:
    offer: Offer
    runs: list[RunView] = field(default_factory=list)
    permits: dict[int, StoredPermit] = field(default_factory=dict)
    digests: dict[tuple[int, int], str] = field(default_factory=dict)
    revoked: str | None = None
    closed: bool = False
    wanted: bool = False


class MemorySessionStore:
    """``triplane.ports.SessionStore`` in this process; gone with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._revision = 0
        self._cursors: dict[str, int] = {}
        self._bells: set[Wakeup] = set()
        self._blob_owners: set[tuple[str, str]] = set()

    async def offer(self, offer: Offer) -> bool:
        """See ``SessionStore.offer``."""
        kept = replace(offer, work_order=json_copy(offer.work_order))
        if offer.session_uid in self._sessions:
            return False
        self._sessions[offer.session_uid] = _Session(kept)
        self._ring()
        return True

    async def permit(self, permit: Permit) -> bool:
        """See ``SessionStore.permit``."""
        check_permit(permit)
        run_inputs = json_copy(permit.run_inputs)
        if not decide_permit(self._view(permit.session_uid), permit):
            return False
        session = self._sessions[permit.session_uid]
        session.permits[permit.run] = StoredPermit(
            permit.counter,
            permit.revocation_revision,
            min(permit.decided_at or self._clock.now(), self._clock.now()),
            permit.seconds,
        )
        session.runs[permit.run - 1 :] = [
            RunView(permit.run, RunState.PERMITTED, permit.counter, permit_expired=False, run_inputs=run_inputs)
        ]
        session.wanted = False
        self._ring()
        return True

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """See ``SessionStore.next_permit_counter``."""
        view = self._run(session_uid, run)
        return 1 if view is None else view.permit_counter + 1

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """See ``SessionStore.claim``. One claim marks at most one session as wanted: one was asked for."""
        stale = None
        for session in self._sessions.values():
            if not session.runs:
                continue
            run = session.runs[-1].run
            refusal = self._refusal(session, run)
            if refusal is None:
                return self._take(session, run, runner, instance)
            if refusal.wanted and not session.wanted and stale is None:
                stale = session
        if stale is not None:
            stale.wanted = True
            self._ring()
        return None

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """See ``SessionStore.claim_run``."""
        session = self._sessions.get(session_uid)
        refusal = self._refusal(session, run)
        if refusal is None and session is not None:
            return self._take(session, run, runner, instance)
        if refusal is not None and refusal.wanted and session is not None:
            session.wanted = True
            self._ring()
        why = refusal.why if refusal else "it was never offered"
        raise PermitRefused(f"run {run} of session {session_uid} cannot be claimed: {why}")

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """See ``SessionStore.start``. Raises ``Conflict`` when the run is not live, ``NotFound``."""
        kept = json_copy(facts)
        view = self._known(session_uid, run)
        if not decide_start(session_uid, view):
            return False
        self._put(session_uid, replace(view, state=RunState.STARTED, facts=kept, started_at=self._now()))
        self._ring()
        return True

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """See ``SessionStore.renew``. Raises ``Conflict`` when nobody claimed the run, ``NotFound``."""
        view = self._known(session_uid, run)
        ended = decide_renewal(session_uid, view)
        if view.state in LIVE_RUN_STATES:
            self._put(session_uid, replace(view, counter=max(view.counter, counter)))
        return ended

    async def record(self, session_uid: str, run: int, sequence: int, digest: str) -> RecordReceipt:
        """See ``SessionStore.record``. Raises ``Conflict`` for a new segment of a run not live, ``NotFound``."""
        view = self._known(session_uid, run)
        session = self._sessions[session_uid]
        receipt = decide_record(session_uid, view, sequence, digest, session.digests.get((run, sequence)))
        if receipt.first:
            session.digests[run, sequence] = digest
            self._put(session_uid, replace(view, records=sequence))
        return receipt

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """See ``SessionStore.finish``. Raises ``NotFound``."""
        json_text(result.message)
        view = self._known(session_uid, run)
        if not decide_finish(session_uid, view, result):
            return False
        self._put(session_uid, replace(view, state=RunState.FINISHED, result=result, ended_at=self._now()))
        self._ring()
        return True

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        """See ``SessionStore.lose``."""
        view = self._run(session_uid, run)
        if view is None or view.state not in LIVE_RUN_STATES or view.counter != counter:
            return False
        self._end(session_uid, view, RunState.LOST, reason)
        self._ring()
        return True

    async def lose_instances(self, runner: str, keep_instance: str) -> list[tuple[str, int]]:
        """See ``SessionStore.lose_instances``."""
        lost = [
            (uid, view) for uid, view in self._live_runs() if view.runner == runner and view.instance != keep_instance
        ]
        for uid, view in lost:
            self._end(uid, view, RunState.LOST, INSTANCE_REPLACED)
        if lost:
            self._ring()
        return sorted((uid, view.run) for uid, view in lost)

    async def revoke(self, session_uid: str, reason: str) -> bool:
        """See ``SessionStore.revoke``."""
        session = self._sessions.get(session_uid)
        if session is None or session.revoked is not None:
            return False
        self._revision += 1
        session.revoked = reason
        session.wanted = False
        if session.runs and session.runs[-1].state in LIVE_RUN_STATES:
            self._end(session_uid, session.runs[-1], RunState.REVOKED, reason)
        self._ring()
        return True

    async def revocation_revision(self) -> int:
        """See ``SessionStore.revocation_revision``."""
        return self._revision

    async def now(self) -> datetime:
        """See ``SessionStore.now``."""
        return self._clock.now()

    async def get(self, session_uid: str) -> SessionView | None:
        """See ``SessionStore.get``."""
        return self._view(session_uid)

    async def get_many(self, session_uids: Sequence[str]) -> Mapping[str, SessionView]:
        """See ``SessionStore.get_many``."""
        views = {uid: self._view(uid) for uid in session_uids}
        return {uid: view for uid, view in views.items() if view is not None}

    async def live(self) -> list[SessionView]:
        """See ``SessionStore.live``."""
        return self._views(self._sessions[uid] for uid, _ in self._live_runs())

    async def wanted(self) -> list[str]:
        """See ``SessionStore.wanted``."""
        return [uid for uid, session in self._sessions.items() if session.wanted]

    async def open_sessions(self) -> list[SessionView]:
        """See ``SessionStore.open_sessions``."""
        return self._views(
            session for session in self._sessions.values() if session.revoked is None and not session.closed
        )

    async def close_session(self, session_uid: str) -> None:
        """See ``SessionStore.close_session``."""
        session = self._sessions.get(session_uid)
        if session is not None:
            session.closed = True
            session.wanted = False

    async def own_blob(self, namespace: str, digest: str) -> None:
        """See ``SessionStore.own_blob``."""
        check_blob_owner(namespace, digest)
        self._blob_owners.add((namespace, digest))

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """See ``SessionStore.owns_blob``."""
        return (namespace, digest) in self._blob_owners

    async def disown_blob(self, digest: str) -> None:
        """See ``SessionStore.disown_blob``."""
        self._blob_owners = {owner for owner in self._blob_owners if owner[1] != digest}

    async def cursor(self, name: str) -> int:
        """See ``SessionStore.cursor``."""
        return self._cursors.get(name, -1)

    async def set_cursor(self, name: str, seq: int) -> None:
        """See ``SessionStore.set_cursor``."""
        self._cursors[name] = max(seq, self._cursors.get(name, -1))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[Wakeups]:
        """See ``SessionStore.changes``."""
        bell = Wakeup()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    async def close(self) -> None:
        """Nothing to close."""

    def _ring(self) -> None:
        for bell in self._bells:
            bell.ring()

    def _now(self) -> str:
        return self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _refusal(self, session: _Session | None, run: int) -> ClaimRefusal | None:
        return decide_claim(
            self._view(session.offer.session_uid) if session else None,
            run,
            session.permits.get(run) if session else None,
            revision=self._revision,
            now=self._clock.now(),
        )

    def _take(self, session: _Session, run: int, runner: str, instance: str) -> Claim:
        view = replace(
            session.runs[run - 1],
            state=RunState.CLAIMED,
            runner=runner,
            instance=instance,
            claimed_at=self._now(),
        )
        session.runs[run - 1] = view
        self._ring()
        offer = replace(session.offer, work_order=json_copy(session.offer.work_order))
        return claim_of(offer, replace(view, run_inputs=json_copy(view.run_inputs)), runner, instance)

    def _end(self, session_uid: str, view: RunView, state: RunState, reason: str) -> None:
        self._put(session_uid, replace(view, state=state, end_reason=reason, ended_at=self._now()))

    def _put(self, session_uid: str, view: RunView) -> None:
        self._sessions[session_uid].runs[view.run - 1] = view

    def _run(self, session_uid: str, run: int) -> RunView | None:
        session = self._sessions.get(session_uid)
        return session.runs[run - 1] if session and 1 <= run <= len(session.runs) else None

    def _known(self, session_uid: str, run: int) -> RunView:
        view = self._run(session_uid, run)
        if view is None:
            raise NotFound(f"session {session_uid} has no run {run}: it was never permitted")
        return view

    def _live_runs(self) -> Iterator[tuple[str, RunView]]:
        for uid, session in self._sessions.items():
            if session.runs and session.runs[-1].state in LIVE_RUN_STATES:
                yield uid, session.runs[-1]

    def _view(self, session_uid: str) -> SessionView | None:
        session = self._sessions.get(session_uid)
        if session is None:
            return None
        return SessionView(
            offer=replace(session.offer, work_order=json_copy(session.offer.work_order)),
            runs=tuple(self._run_view(session, view) for view in session.runs),
            revoked=session.revoked,
            closed=session.closed,
            record_digests=tuple((run, seq, digest) for (run, seq), digest in sorted(session.digests.items())),
        )

    def _views(self, sessions: Iterable[_Session]) -> list[SessionView]:
        views = [self._view(session.offer.session_uid) for session in list(sessions)]
        return [view for view in views if view is not None]

    def _run_view(self, session: _Session, view: RunView) -> RunView:
        return replace(
            view,
            permit_expired=view.state is RunState.PERMITTED
            and not session.permits[view.run].usable(self._revision, self._clock.now()),
            facts=json_copy(view.facts),
            run_inputs=json_copy(view.run_inputs),
        )
