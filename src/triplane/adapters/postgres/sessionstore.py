"""Session store on Postgres: every operation one transaction, every rule from ``triplane.domain``.

An operation locks what it decides on, reads it, asks the domain, applies. The server's clock is the only one.
Claims and revocations come one after the other (see ``sessionsql``).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from triplane.adapters.postgres import sessionsql as sql
from triplane.adapters.postgres.sessiondatabase import RING, Connection, locked_run, one
from triplane.adapters.postgres.sessionnotes import Notes
from triplane.adapters.postgres.sessionquestions import Questions
from triplane.adapters.postgres.sessionreading import Reading
from triplane.adapters.postgres.sessionrows import (
    SESSION,
    SessionRow,
    result_to_json,
)
from triplane.adapters.postgres.sessionspending import Spending, settle
from triplane.audit.model import JsonObject
from triplane.audit.plainjson import json_text
from triplane.domain.launch import (
    ASKED_SECONDS,
    ClaimRefusal,
    check_limit,
    check_permit,
    check_void,
    claim_of,
    decide_claim,
    decide_permit,
    lookahead,
    pace_after,
)
from triplane.domain.run import INSTANCE_REPLACED, decide_finish, decide_record, decide_renewal, decide_start
from triplane.domain.session import (
    Claim,
    Offer,
    Permit,
    RecordReceipt,
    RunResult,
    SessionView,
)
from triplane.domain.spending import larger
from triplane.errors import PermitRefused
from triplane.ports import Wakeups


class PostgresSessionStore(Reading, Spending, Questions, Notes):
    """``triplane.ports.SessionStore`` in schema ``sessions``."""

    async def offer(self, offer: Offer) -> bool:
        """See ``SessionStore.offer``."""
        values = {
            "session_uid": offer.session_uid,
            "namespace": offer.namespace,
            "name": offer.name,
            "task_uid": offer.task_uid,
            "graph_uid": offer.graph_uid,
            "agent_uid": offer.agent_uid,
            "agent_name": offer.agent_name,
            "role": offer.role,
            "snapshot_digest": offer.snapshot_digest,
            "work_order": json_text(offer.work_order),
            "node_uid": offer.node_uid,
        }
        async with self._transaction(f"offer session {offer.session_uid}") as connection:
            made = (await connection.execute(sql.OFFER, values)).rowcount == 1
            if made:
                await connection.execute(RING)
            return made

    async def permit(self, permit: Permit) -> bool:
        """See ``SessionStore.permit``."""
        check_permit(permit)
        uid = permit.session_uid
        values = {
            "session_uid": uid,
            "run": permit.run,
            "counter": permit.counter,
            "revocation_revision": permit.revocation_revision,
            "authority_digest": permit.authority_digest,
            "policy_digest": permit.policy_digest,
            "seconds": permit.seconds,
            "decided_at": permit.decided_at,
            "run_inputs": json_text(permit.run_inputs),
        }
        async with self._transaction(f"permit run {permit.run} of session {uid}") as connection:
            await connection.execute(sql.LOCK_SESSION, (uid,))
            row = await _session(connection, uid)
            if not decide_permit(row.view if row else None, permit):
                return False
            await connection.execute(sql.PERMIT, values)
            await connection.execute(sql.WAITS, (uid,))
            assert row is not None  # decide_permit has refused it otherwise
            await _limit(connection, row.view.offer.agent_uid, permit.agent_limit, permit.decided_at)
            await connection.execute(RING)
            return True

    async def limit(self, agent_uid: str | None, most: int | None) -> None:
        """See ``SessionStore.limit``."""
        check_limit(most)
        async with self._transaction(f"limit the live runs of {agent_uid or 'all agents'}") as connection:
            if await _limit(connection, agent_uid or "", most, None):
                await connection.execute(RING)

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """See ``SessionStore.claim``."""
        if not await self._value(sql.ANY_WAITING):
            return None  # the usual answer to an idle runner, without locks
        async with self._transaction("claim a run") as connection:
            pace = await _lock(connection)
            picked = await (await connection.execute(sql.PICK)).fetchone()
            claim = None
            if picked is not None:
                row = await _session(connection, picked[0])
                assert row is not None  # locked by the statement before
                claim = await _take(connection, row.view, picked[1], runner, instance, pace)
            ahead = lookahead(pace, waiting=claim is None)
            values = {"ahead": ahead, "taken": claim is not None, "asked_seconds": ASKED_SECONDS}
            if (await connection.execute(sql.WANT_AHEAD, values)).rowcount and claim is None:
                await connection.execute(RING)  # having taken one has rung already
            return claim

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """See ``SessionStore.claim_run``."""
        async with self._transaction(f"claim run {run} of session {session_uid}") as connection:
            pace = await _lock(connection)
            await connection.execute(sql.LOCK_SESSION, (session_uid,))
            await connection.execute(sql.LOCK_RUN, (session_uid, run))
            row = await _session(connection, session_uid)
            refusal = (
                decide_claim(row.view, run, row.permits.get(run), bar=row.bar, now=row.now)
                if row
                else ClaimRefusal("it was never offered")
            )
            if row is not None and refusal is None:
                return await _take(connection, row.view, run, runner, instance, pace)
            if refusal is not None and refusal.wanted:
                await connection.execute(sql.WANT, (session_uid,))
                await connection.execute(RING)
        # Raised outside, so that what was noted as wanted is committed.
        why = refusal.why if refusal else ""
        raise PermitRefused(f"run {run} of session {session_uid} cannot be claimed: {why}")

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """See ``SessionStore.start``. Raises ``Conflict`` when the run is not live, ``NotFound``."""
        kept = json_text(facts)
        async with self._transaction(f"start run {run} of session {session_uid}") as connection:
            if not decide_start(session_uid, await locked_run(connection, session_uid, run)):
                return False
            await connection.execute(sql.START, (kept, session_uid, run))
            await connection.execute(RING)
            return True

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """See ``SessionStore.renew``. Raises ``Conflict`` when nobody claimed the run, ``NotFound``."""
        async with self._transaction(f"renew run {run} of session {session_uid}") as connection:
            if (await connection.execute(sql.RENEW, (counter, session_uid, run))).rowcount:
                return None
            return decide_renewal(session_uid, await locked_run(connection, session_uid, run))

    async def record(
        self, session_uid: str, run: int, sequence: int, digest: str, *, held_seconds: float = 0.0
    ) -> RecordReceipt:
        """See ``SessionStore.record``. Raises ``Conflict`` for a new segment of a run not live, ``NotFound``."""
        async with self._transaction(f"note segment {sequence} of session {session_uid}") as connection:
            view = await locked_run(connection, session_uid, run)
            noted = await one(connection, sql.RECORDED, session_uid, run, sequence)
            receipt = decide_record(session_uid, view, sequence, digest, noted)
            if receipt.first:
                await connection.execute(sql.RECORD, (session_uid, run, sequence, digest))
                await connection.execute(sql.RECORDS, (sequence, held_seconds, session_uid, run))
            return receipt

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """See ``SessionStore.finish``. Raises ``NotFound``."""
        kept = json_text(result_to_json(result))
        async with self._transaction(f"finish run {run} of session {session_uid}") as connection:
            view = await locked_run(connection, session_uid, run)
            if not decide_finish(session_uid, view, result):
                return False
            used = larger(view.usage, result.usage)
            amounts = (used.input_tokens, used.output_tokens, used.cost_minor_units)
            await connection.execute(sql.FINISH, (kept, *amounts, session_uid, run))
            await settle(connection, [(session_uid, run)])
            await connection.execute(RING)
            return True

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        """See ``SessionStore.lose``."""
        async with self._transaction(f"lose run {run} of session {session_uid}") as connection:
            done = (await connection.execute(sql.LOSE, (reason, session_uid, run, counter))).rowcount == 1
            if done:
                await settle(connection, [(session_uid, run)])
                await connection.execute(RING)
            return done

    async def lose_instances(self, runner: str, keep_instance: str) -> list[tuple[str, int]]:
        """See ``SessionStore.lose_instances``."""
        async with self._transaction(f"lose the runs of runner {runner}") as connection:
            cursor = await connection.execute(sql.LOSE_INSTANCES, (runner, keep_instance, INSTANCE_REPLACED))
            lost = sorted((uid, run) for uid, run in await cursor.fetchall())
            if lost:
                await settle(connection, lost)
                await connection.execute(RING)
            return lost

    async def revoke(self, session_uid: str, reason: str) -> bool:
        """See ``SessionStore.revoke``."""
        async with self._transaction(f"revoke session {session_uid}") as connection:
            await _lock(connection)
            if not (await connection.execute(sql.REVOKE, (reason, session_uid))).rowcount:
                return False
            await connection.execute(sql.BUMP)
            cursor = await connection.execute(sql.REVOKE_RUN, (reason, session_uid))
            await settle(connection, [(uid, run) for uid, run in await cursor.fetchall()])
            await connection.execute(RING)
            return True

    async def void_permits(self, namespace: str | None, reason: str) -> int:
        """See ``SessionStore.void_permits``. Raises ``InvalidInput`` for an empty namespace or reason."""
        check_void(namespace, reason)
        where = namespace or ""
        async with self._transaction(f"void the permits of {namespace or 'all namespaces'}") as connection:
            await _lock(connection)
            await connection.execute(sql.WANT_AGAIN, {"namespace": where})
            revision = int(await one(connection, sql.BUMP))
            await connection.execute(sql.VOID, (where, revision, reason))
            await connection.execute(RING)
            return revision

    async def pass_over(self, session_uid: str) -> None:
        """See ``SessionStore.pass_over``."""
        async with self._transaction(f"pass session {session_uid} over") as connection:
            await connection.execute(sql.OVERTAKE, (session_uid,))

    async def line_up(self, session_uid: str) -> None:
        """See ``SessionStore.line_up``."""
        async with self._transaction(f"put session {session_uid} back in line") as connection:
            if (await connection.execute(sql.LINE_UP, (session_uid,))).rowcount:
                await connection.execute(RING)

    async def close_session(self, session_uid: str) -> None:
        """See ``SessionStore.close_session``."""
        async with self._transaction(f"close session {session_uid}") as connection:
            await connection.execute(sql.CLOSE, (session_uid,))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[Wakeups]:
        """See ``SessionStore.changes``. Rings also when the database is back after it was away."""
        with self._bell.waiter() as waiter:
            yield waiter

    async def close(self) -> None:
        """Stop listening; the pool is its opener's."""
        await self._bell.close()


async def _lock(connection: Connection) -> float:
    """Hold claims and revocations; returns the pace of claims as it is now."""
    row = await (await connection.execute(sql.LOCK)).fetchone()
    assert row is not None  # the migration made it
    pace, elapsed = row
    return pace_after(pace, elapsed)


async def _take(connection: Connection, view: SessionView, run: int, runner: str, instance: str, pace: float) -> Claim:
    values = {"uid": view.offer.session_uid, "run": run, "runner": runner, "instance": instance}
    await connection.execute(sql.TAKE, values)
    await connection.execute(sql.PACE, (pace_after(pace, 0.0, claims=1),))
    await connection.execute(RING)
    return claim_of(view.offer, view.runs[run - 1], runner, instance)


async def _limit(connection: Connection, agent_uid: str, most: int | None, decided_at: datetime | None) -> bool:
    """Note a limit where it is another than the one known; True if it was."""
    if await one(connection, sql.KNOWN_LIMIT, agent_uid) == most:
        return False
    return (await connection.execute(sql.LIMIT, (agent_uid, most, decided_at))).rowcount == 1


async def _session(connection: Connection, uid: str) -> SessionRow | None:
    row = await (await connection.execute(SESSION + sql.THESE, ([uid],))).fetchone()
    return None if row is None else SessionRow(row)
