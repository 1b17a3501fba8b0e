"""Session store on Postgres: every operation one transaction, every rule from ``triplane.domain``.

An operation locks what it decides on, reads it, asks the domain, applies. The server's clock is the only one.
A claim holds the revocation row shared to its commit and a revocation holds it alone, so one of the two comes
first.
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
from triplane.adapters.postgres.sessionrows import LOCKED_RUN, SESSION, SessionRow, result_to_json, run_view
from triplane.audit.model import JsonObject
from triplane.audit.plainjson import json_text
from triplane.domain.blob import check_blob_owner
from triplane.domain.launch import ClaimRefusal, check_permit, claim_of, decide_claim, decide_permit
from triplane.domain.run import INSTANCE_REPLACED, decide_finish, decide_record, decide_renewal, decide_start
from triplane.domain.session import Claim, Offer, Permit, RecordReceipt, RunResult, RunView, SessionView
from triplane.errors import NotFound, PermitRefused
from triplane.failpoint import failpoint
from triplane.ports import Wakeups

Connection = AsyncConnection[TupleRow]


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
            await connection.execute(sql.NOT_WANTED, (uid,))
            await connection.execute(sql.RING)
            return True

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """See ``SessionStore.next_permit_counter``."""
        return int(await self._value(sql.COUNTER, session_uid, run) or 1)

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """See ``SessionStore.claim``. One claim marks at most one session as wanted: one was asked for."""
        if not await self._value(sql.ANY_PERMITTED):
            return None  # the usual answer to an idle runner, without locks
        async with self._transaction("claim a run") as connection:
            revision = await _one(connection, sql.SHARE_REVISION)
            picked = await (await connection.execute(sql.PICK, {"revision": revision})).fetchone()
            if picked is not None:
                row = await _session(connection, picked[0])
                assert row is not None  # locked by the statement before
                return await _take(connection, row.view, picked[1], runner, instance)
            if (await connection.execute(sql.WANT_OLDEST, {"revision": revision})).rowcount:
                await connection.execute(sql.RING)
            return None

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """See ``SessionStore.claim_run``."""
        async with self._transaction(f"claim run {run} of session {session_uid}") as connection:
            revision = await _one(connection, sql.SHARE_REVISION)
            await connection.execute(sql.LOCK_SESSION, (session_uid,))
            await connection.execute(sql.LOCK_RUN, (session_uid, run))
            row = await _session(connection, session_uid)
            refusal = (
                decide_claim(row.view, run, row.permits.get(run), revision=revision, now=row.now)
                if row
                else ClaimRefusal("it was never offered")
            )
            if row is not None and refusal is None:
                return await _take(connection, row.view, run, runner, instance)
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

    async def record(self, session_uid: str, run: int, sequence: int, digest: str) -> RecordReceipt:
        """See ``SessionStore.record``. Raises ``Conflict`` for a new segment of a run not live, ``NotFound``."""
        async with self._transaction(f"note segment {sequence} of session {session_uid}") as connection:
            view = await _locked_run(connection, session_uid, run)
            noted = await _one(connection, sql.RECORDED, session_uid, run, sequence)
            receipt = decide_record(session_uid, view, sequence, digest, noted)
            if receipt.first:
                await connection.execute(sql.RECORD, (session_uid, run, sequence, digest))
                await connection.execute(sql.RECORDS, (sequence, session_uid, run))
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
            await connection.execute(sql.LOCK_REVISION)
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

    async def get(self, session_uid: str) -> SessionView | None:
        """See ``SessionStore.get``."""
        return (await self.get_many([session_uid])).get(session_uid)

    async def get_many(self, session_uids: Sequence[str]) -> Mapping[str, SessionView]:
        """See ``SessionStore.get_many``."""
        return {view.offer.session_uid: view for view in await self._views(sql.THESE, list(session_uids))}

    async def live(self) -> list[SessionView]:
        """See ``SessionStore.live``."""
        return await self._views(sql.LIVE)

    async def wanted(self) -> list[str]:
        """See ``SessionStore.wanted``."""
        return [row[0] for row in await self._rows(sql.WANTED)]

    async def open_sessions(self) -> list[SessionView]:
        """See ``SessionStore.open_sessions``."""
        return await self._views(sql.OPEN)

    async def close_session(self, session_uid: str) -> None:
        """See ``SessionStore.close_session``."""
        async with self._transaction(f"close session {session_uid}") as connection:
            await connection.execute(sql.CLOSE, (session_uid,))

    async def own_blob(self, namespace: str, digest: str) -> None:
        """See ``SessionStore.own_blob``."""
        check_blob_owner(namespace, digest)
        async with self._transaction(f"note that {digest} was put in namespace {namespace}") as connection:
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

    async def _rows(self, query: str, *parameters: Any) -> Sequence[TupleRow]:
        with translated("read the sessions"):
            async with self._pool.connection() as connection:
                return await (await connection.execute(query, parameters)).fetchall()

    async def _value(self, query: str, *parameters: Any) -> Any:
        rows = await self._rows(query, *parameters)
        return rows[0][0] if rows else None

    async def _views(self, where: str, *parameters: Any) -> list[SessionView]:
        return [SessionRow(row).view for row in await self._rows(SESSION + where, *parameters)]


async def _take(connection: Connection, view: SessionView, run: int, runner: str, instance: str) -> Claim:
    await connection.execute(sql.TAKE, (runner, instance, view.offer.session_uid, run))
    await connection.execute(sql.RING)
    return claim_of(view.offer, view.runs[run - 1], runner, instance)


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
