"""Session store in memory: the twin of Postgres', for tests and for trying things out.

No operation awaits between reading and writing, so each is one transaction as far as the event loop is
concerned.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from triplane.adapters.memory.sessionline import KeptSession
from triplane.adapters.memory.sessionnotes import Notes
from triplane.adapters.memory.sessionquestions import Questions
from triplane.adapters.memory.sessionreading import Reading
from triplane.adapters.memory.sessionspending import Spending
from triplane.adapters.wakeup import Wakeup
from triplane.audit.model import JsonObject
from triplane.audit.plainjson import json_copy, json_text
from triplane.domain.launch import (
    Bar,
    ClaimRefusal,
    StoredPermit,
    check_limit,
    check_permit,
    check_void,
    claim_of,
    decide_claim,
    decide_permit,
    lookahead,
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
)
from triplane.domain.spending import larger
from triplane.errors import PermitRefused
from triplane.ports import Wakeups


class MemorySessionStore(Reading, Spending, Questions, Notes):
    """``triplane.ports.SessionStore`` in this process; gone with it."""

    async def offer(self, offer: Offer) -> bool:
        """See ``SessionStore.offer``."""
        kept = replace(offer, work_order=json_copy(offer.work_order))
        if offer.session_uid in self._sessions:
            return False
        self._sessions[offer.session_uid] = KeptSession(kept, len(self._sessions))
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
        session.wanted, session.waiting = False, True
        decided_at = session.permits[permit.run].since
        self._line.limit(session.offer.agent_uid, permit.agent_limit, decided_at)
        self._ring()
        return True

    async def limit(self, agent_uid: str | None, most: int | None) -> None:
        """See ``SessionStore.limit``."""
        check_limit(most)
        if self._line.limit(agent_uid or "", most, self._clock.now()):
            self._ring()

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """See ``SessionStore.claim``."""
        now = self._clock.now()
        pace, session = self._line.pace(now), self._line.next(now)
        claim = None if session is None else self._take(session, session.runs[-1].run, runner, instance)
        if self._line.want_ahead(lookahead(pace, waiting=claim is None), now, taken=claim is not None):
            self._ring()
        return claim

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """See ``SessionStore.claim_run``."""
        session = self._sessions.get(session_uid)
        refusal = self._refusal(session, run)
        if refusal is None and session is not None:
            return self._take(session, run, runner, instance)
        if refusal is not None and refusal.wanted and session is not None:
            session.want(self._clock.now())
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

    async def record(
        self, session_uid: str, run: int, sequence: int, digest: str, *, held_seconds: float = 0.0
    ) -> RecordReceipt:
        """See ``SessionStore.record``. Raises ``Conflict`` for a new segment of a run not live, ``NotFound``."""
        view = self._known(session_uid, run)
        session = self._sessions[session_uid]
        receipt = decide_record(session_uid, view, sequence, digest, session.digests.get((run, sequence)))
        if receipt.first:
            session.digests[run, sequence] = digest
            heard = self._text(self._clock.now() - timedelta(seconds=max(0.0, held_seconds)))
            first = view.first_record_at or max(heard, view.started_at or view.claimed_at or "")
            self._put(session_uid, replace(view, records=sequence, first_record_at=first))
        return receipt

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """See ``SessionStore.finish``. Raises ``NotFound``."""
        json_text(result.message)
        view = self._known(session_uid, run)
        if not decide_finish(session_uid, view, result):
            return False
        used = larger(view.usage, result.usage)
        self._put(session_uid, replace(view, state=RunState.FINISHED, result=result, usage=used, ended_at=self._now()))
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
        session.leave()
        self._line.revoked(session, self._revision)
        if session.runs and session.runs[-1].state in LIVE_RUN_STATES:
            self._end(session_uid, session.runs[-1], RunState.REVOKED, reason)
        self._ring()
        return True

    async def void_permits(self, namespace: str | None, reason: str) -> int:
        """See ``SessionStore.void_permits``. Raises ``InvalidInput`` for an empty namespace or reason."""
        check_void(namespace, reason)
        self._revision += 1
        self._line.void(namespace or "", Bar(self._revision, reason), self._clock.now())
        self._ring()
        return self._revision

    async def pass_over(self, session_uid: str) -> None:
        """See ``SessionStore.pass_over``."""
        session = self._sessions.get(session_uid)
        if session is not None and (session.wanted or (session.waiting and session.claimable and session.runs)):
            session.leave()

    async def line_up(self, session_uid: str) -> None:
        """See ``SessionStore.line_up``."""
        session = self._sessions.get(session_uid)
        if session is not None and session.claimable and not session.waiting:
            session.waiting = True
            self._ring()

    async def close_session(self, session_uid: str) -> None:
        """See ``SessionStore.close_session``."""
        session = self._sessions.get(session_uid)
        if session is not None:
            session.closed = True
            session.leave()

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

    def _refusal(self, session: KeptSession | None, run: int) -> ClaimRefusal | None:
        return decide_claim(
            self._view(session.offer.session_uid) if session else None,
            run,
            session.permits.get(run) if session else None,
            bar=self._line.bar_of(session) if session else Bar(),
            now=self._clock.now(),
        )

    def _take(self, session: KeptSession, run: int, runner: str, instance: str) -> Claim:
        view = replace(
            session.runs[run - 1],
            state=RunState.CLAIMED,
            runner=runner,
            instance=instance,
            claimed_at=self._now(),
        )
        session.runs[run - 1] = view
        session.leave()
        self._line.pace(self._clock.now(), claims=1)
        self._ring()
        offer = replace(session.offer, work_order=json_copy(session.offer.work_order))
        return claim_of(offer, replace(view, run_inputs=json_copy(view.run_inputs)), runner, instance)

    def _end(self, session_uid: str, view: RunView, state: RunState, reason: str) -> None:
        self._put(session_uid, replace(view, state=state, end_reason=reason, ended_at=self._now()))
