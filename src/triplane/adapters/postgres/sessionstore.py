"""Session store on Postgres: every operation one transaction, every rule from ``triplane.domain``.

An operation locks what it decides on, reads it, asks the domain, applies. The server's clock is the only one.
Claims and revocations come one after the other (see ``sessionsql``).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from triplane.adapters.postgres import sessionsql as sql
from triplane.adapters.postgres.bell import Bell
from triplane.adapters.postgres.connection import Pool, translated
from triplane.adapters.postgres.sessionrows import (
    LIVE,
    LOCKED_RUN,
    OPEN,
    SESSION,
    SESSION_WITH_RECORDS,
    SessionRow,
    live_run,
    open_session,
    result_to_json,
    run_view,
)
from triplane.audit.model import JsonObject
from triplane.audit.plainjson import json_text
from triplane.domain.blob import check_blob_owner
from triplane.domain.launch import (
    ASKED_SECONDS,
    ClaimRefusal,
    check_limit,
    check_permit,
    claim_of,
    decide_claim,
    decide_permit,
    lookahead,
    pace_after,
)
from triplane.domain.run import INSTANCE_REPLACED, decide_finish, decide_record, decide_renewal, decide_start
from triplane.domain.session import (
    Claim,
    LiveRun,
    Offer,
    OpenSession,
    Outstanding,
    Permit,
    RecordReceipt,
    RunResult,
    RunView,
    SessionView,
)
from triplane.errors import NotFound, PermitRefused
from triplane.failpoint import failpoint
from triplane.ports import Wakeups

Connection = AsyncConnection[TupleRow]
Params = Sequence[Any] | Mapping[str, Any]


class PostgresSessionStore:
    """``triplane.ports.SessionStore`` in schema ``sessions``."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is open and stays its opener's to close; wake-ups use one more connection to the same
        place."""
        self._pool = pool
        assert isinstance(pool.conninfo, str)  # as make_pool gives it
        self._bell = Bell(pool.conninfo, sql.CHANNEL)

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
        }
        async with self._transaction(f"offer session {offer.session_uid}") as connection:
            made = (await connection.execute(sql.OFFER, values)).rowcount == 1
            if made:
                await connection.execute(sql.RING)
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
            await connection.execute(sql.RING)
            return True

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """See ``SessionStore.next_permit_counter``."""
        return int(await self._value(sql.COUNTER, session_uid, run) or 1)

    async def outstanding(self, graph_uid: str) -> Outstanding:
        """See ``SessionStore.outstanding``."""
        ((permits, of_graph),) = await self._rows(sql.OUTSTANDING, {"graph": graph_uid})
        return Outstanding(permits, of_graph)

    async def limit(self, agent_uid: str | None, most: int | None) -> None:
        """See ``SessionStore.limit``."""
        check_limit(most)
        async with self._transaction(f"limit the live runs of {agent_uid or 'all agents'}") as connection:
            if await _limit(connection, agent_uid or "", most, None):
                await connection.execute(sql.RING)

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
                await connection.execute(sql.RING)  # having taken one has rung already
            return claim

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """See ``SessionStore.claim_run``."""
        async with self._transaction(f"claim run {run} of session {session_uid}") as connection:
            pace = await _lock(connection)
            await connection.execute(sql.LOCK_SESSION, (session_uid,))
            await connection.execute(sql.LOCK_RUN, (session_uid, run))
            row = await _session(connection, session_uid)
            refusal = (
                decide_claim(row.view, run, row.permits.get(run), revision=row.revision, now=row.now)
                if row
                else ClaimRefusal("it was never offered")
            )
            if row is not None and refusal is None:
                return await _take(connection, row.view, run, runner, instance, pace)
            if refusal is not None and refusal.wanted:
                await connection.execute(sql.WANT, (session_uid,))
                await connection.execute(sql.RING)
        # Raised outside, so that what was noted as wanted is committed.
        why = refusal.why if refusal else ""
        raise PermitRefused(f"run {run} of session {session_uid} cannot be claimed: {why}")

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """See ``SessionStore.start``. Raises ``Conflict`` when the run is not live, ``NotFound``."""
        kept = json_text(facts)
        async with self._transaction(f"start run {run} of session {session_uid}") as connection:
            if not decide_start(session_uid, await _locked_run(connection, session_uid, run)):
                return False
            await connection.execute(sql.START, (kept, session_uid, run))
            await connection.execute(sql.RING)
            return True

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """See ``SessionStore.renew``. Raises ``Conflict`` when nobody claimed the run, ``NotFound``."""
        async with self._transaction(f"renew run {run} of session {session_uid}") as connection:
            if (await connection.execute(sql.RENEW, (counter, session_uid, run))).rowcount:
                return None
            return decide_renewal(session_uid, await _locked_run(connection, session_uid, run))

    async def record(
        self, session_uid: str, run: int, sequence: int, digest: str, *, held_seconds: float = 0.0
    ) -> RecordReceipt:
        """See ``SessionStore.record``. Raises ``Conflict`` for a new segment of a run not live, ``NotFound``."""
        async with self._transaction(f"note segment {sequence} of session {session_uid}") as connection:
            view = await _locked_run(connection, session_uid, run)
            noted = await _one(connection, sql.RECORDED, session_uid, run, sequence)
            receipt = decide_record(session_uid, view, sequence, digest, noted)
            if receipt.first:
                await connection.execute(sql.RECORD, (session_uid, run, sequence, digest))
                await connection.execute(sql.RECORDS, (sequence, held_seconds, session_uid, run))
            return receipt

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """See ``SessionStore.finish``. Raises ``NotFound``."""
        kept = json_text(result_to_json(result))
        async with self._transaction(f"finish run {run} of session {session_uid}") as connection:
            if not decide_finish(session_uid, await _locked_run(connection, session_uid, run), result):
                return False
            await connection.execute(sql.FINISH, (kept, session_uid, run))
            await connection.execute(sql.RING)
            return True

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        """See ``SessionStore.lose``."""
        async with self._transaction(f"lose run {run} of session {session_uid}") as connection:
            done = (await connection.execute(sql.LOSE, (reason, session_uid, run, counter))).rowcount == 1
            if done:
                await connection.execute(sql.RING)
            return done

    async def lose_instances(self, runner: str, keep_instance: str) -> list[tuple[str, int]]:
        """See ``SessionStore.lose_instances``."""
        async with self._transaction(f"lose the runs of runner {runner}") as connection:
            cursor = await connection.execute(sql.LOSE_INSTANCES, (runner, keep_instance, INSTANCE_REPLACED))
            lost = sorted((uid, run) for uid, run in await cursor.fetchall())
            if lost:
                await connection.execute(sql.RING)
            return lost

    async def revoke(self, session_uid: str, reason: str) -> bool:
        """See ``SessionStore.revoke``."""
        async with self._transaction(f"revoke session {session_uid}") as connection:
            await _lock(connection)
            if not (await connection.execute(sql.REVOKE, (reason, session_uid))).rowcount:
                return False
            await connection.execute(sql.BUMP)
            await connection.execute(sql.REVOKE_RUN, (reason, session_uid))
            await connection.execute(sql.RING)
            return True

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

    async def pass_over(self, session_uid: str) -> None:
        """See ``SessionStore.pass_over``."""
        async with self._transaction(f"pass session {session_uid} over") as connection:
            await connection.execute(sql.OVERTAKE, (session_uid,))

    async def line_up(self, session_uid: str) -> None:
        """See ``SessionStore.line_up``."""
        async with self._transaction(f"put session {session_uid} back in line") as connection:
            if (await connection.execute(sql.LINE_UP, (session_uid,))).rowcount:
                await connection.execute(sql.RING)

    async def open_sessions(self, task_uid: str | None = None) -> list[OpenSession]:
        """See ``SessionStore.open_sessions``."""
        of_task = "" if task_uid is None else "AND s.task_uid = %s "
        values = () if task_uid is None else (task_uid,)
        return [open_session(row) for row in await self._rows(f"{OPEN} {of_task}ORDER BY s.position", values)]

    async def close_session(self, session_uid: str) -> None:
        """See ``SessionStore.close_session``."""
        async with self._transaction(f"close session {session_uid}") as connection:
            await connection.execute(sql.CLOSE, (session_uid,))

    async def own_blob(self, namespace: str, digest: str) -> None:
        """See ``SessionStore.own_blob``."""
        check_blob_owner(namespace, digest)
        with translated(f"note that {digest} was put in namespace {namespace}"):
            async with self._pool.connection() as connection:  # one statement is a transaction by itself
                await connection.execute(sql.OWN_BLOB, (namespace, digest))

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """See ``SessionStore.owns_blob``."""
        return await self._value(sql.OWNS_BLOB, namespace, digest) is not None

    async def disown_blob(self, digest: str) -> None:
        """See ``SessionStore.disown_blob``."""
        async with self._transaction(f"forget where {digest} was put") as connection:
            await connection.execute(sql.DISOWN_BLOB, (digest,))

    async def cursor(self, name: str) -> int:
        """See ``SessionStore.cursor``."""
        found = await self._value(sql.CURSOR, name)
        return -1 if found is None else int(found)

    async def set_cursor(self, name: str, seq: int) -> None:
        """See ``SessionStore.set_cursor``."""
        async with self._transaction(f"move the cursor {name}") as connection:
            await connection.execute(sql.SET_CURSOR, (name, max(seq, -1)))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[Wakeups]:
        """See ``SessionStore.changes``. Rings also when the database is back after it was away."""
        with self._bell.waiter() as waiter:
            yield waiter

    async def close(self) -> None:
        """Stop listening; the pool is its opener's."""
        await self._bell.close()

    @asynccontextmanager
    async def _transaction(self, action: str) -> AsyncIterator[Connection]:
        with translated(action):
            async with self._pool.connection() as connection, connection.transaction():
                yield connection
                failpoint("sessions.before_commit")
            failpoint("sessions.after_commit")

    async def _rows(self, query: str, parameters: Params = ()) -> Sequence[TupleRow]:
        with translated("read the sessions"):
            async with self._pool.connection() as connection:
                return await (await connection.execute(query, parameters)).fetchall()

    async def _value(self, query: str, *parameters: Any) -> Any:
        rows = await self._rows(query, parameters)
        return rows[0][0] if rows else None


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
    await connection.execute(sql.RING)
    return claim_of(view.offer, view.runs[run - 1], runner, instance)


async def _limit(connection: Connection, agent_uid: str, most: int | None, decided_at: datetime | None) -> bool:
    """Note a limit where it is another than the one known; True if it was."""
    if await _one(connection, sql.KNOWN_LIMIT, agent_uid) == most:
        return False
    return (await connection.execute(sql.LIMIT, (agent_uid, most, decided_at))).rowcount == 1


async def _session(connection: Connection, uid: str) -> SessionRow | None:
    row = await (await connection.execute(SESSION + sql.THESE, ([uid],))).fetchone()
    return None if row is None else SessionRow(row)


async def _locked_run(connection: Connection, uid: str, run: int) -> RunView:
    row = await (await connection.execute(LOCKED_RUN, (uid, run))).fetchone()
    if row is None:
        raise NotFound(f"session {uid} has no run {run}: it was never permitted")
    return run_view(row[0])


async def _one(connection: Connection, query: str, *parameters: Any) -> Any:
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else row[0]
