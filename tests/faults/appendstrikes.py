"""An append, struck at every system call of its client and of its Postgres backend."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg

from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.faults.inject import NOTHING, Strike, Tracer
from tests.faults.syscalls import BACKEND_ERRORS, SEND_ERRORS, SOCKET_ERRORS, Report, some, strikes
from tests.faults.victims import Nursery, Outcome
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.model import EventBody, Receipt
from triplane.errors import Unavailable

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
BATCH = 3
"""Events of one append: more than one, so that a part of it could be seen."""


class Appends:
    """Strikes appends to one log and looks at it through a writer of its own."""

    def __init__(self, database: Database, report: Report) -> None:
        self._database = database
        self._report = report
        self._next = 1000
        self._log: PostgresEventLog | None = None

    @property
    def log(self) -> PostgresEventLog:
        assert self._log is not None
        return self._log

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Appends"]:
        """With the log open; at the end the whole chain is verified once more."""
        self._log = await PostgresEventLog(self._database.dsn("operator"), writer="striker").open()
        try:
            yield self
            verification = await self._patiently(self.log.verify_chain)
            if not verification.ok:
                self._report.problems.append(f"the log does not verify in the end: {verification.broken}")
        finally:
            await self.log.close()

    def bodies(self, first: int) -> list[EventBody]:
        """What is appended in one call."""
        return [body(n) for n in range(first, first + BATCH)]

    async def in_the_client(self, nursery: Nursery, *, warm: bool, seed: int = 0, each: int | None = None) -> None:
        """SIGKILL and errors at the client's calls, ``each`` of them drawn by the seed, or all."""
        deed = "append in the client, " + ("connected" if warm else "first of a connection")
        _, learned = await self._client(nursery, NOTHING, warm=warm)
        errors = SOCKET_ERRORS if each is not None else {**SOCKET_ERRORS, **SEND_ERRORS}
        for strike in some(strikes(learned.calls, errors, start=2), seed, each):
            first, tracer = await self._client(nursery, strike, warm=warm)
            outcome = self._told
            await self._victim_gone()
            problems = [f"raised {outcome.raised}"] if outcome.raised else []
            acknowledged = [Receipt(**each) for each in outcome.done] if outcome.acknowledged else None
            found, more = await self.after_append(first, acknowledged)
            word = f"{outcome.word}, {'recorded' if found else 'absent'}" if tracer.struck else "never reached"
            self._report.note(deed, strike, word, problems + more)

    async def _client(self, nursery: Nursery, strike: Strike, *, warm: bool) -> tuple[int, Tracer]:
        first = self._take()

        def run() -> tuple[Outcome, Tracer]:
            dsn = self._database.dsn("operator")
            pid = nursery.begin("append", dsn=dsn, first=first, count=BATCH, warm=warm)
            with Tracer(pid, strike) as tracer:
                nursery.go()
                outcome = nursery.outcome()
            return outcome, tracer

        self._told, tracer = await asyncio.to_thread(run)
        return first, tracer

    async def in_the_backend(
        self, *, overtaken: bool, seed: int = 0, each: int | None = None, only: Sequence[Strike] = ()
    ) -> None:
        """SIGKILL and errors at the calls of the Postgres process that commits; after a kill or a failed sync of the
        write-ahead log the whole server starts again. ``only`` these strikes, or those drawn."""
        deed = "append in the backend, " + ("overtaken" if overtaken else "alone")
        await self._backend(NOTHING, overtaken=overtaken)  # the first of all extends files that the later ones find
        _, learned, _ = await self._backend(NOTHING, overtaken=overtaken)
        for strike in only or some(strikes(learned.calls, BACKEND_ERRORS), seed, each):
            first, tracer, receipts = await self._backend(strike, overtaken=overtaken)
            found, problems = await self.after_append(first, receipts)
            if not found:
                problems.append("acknowledged and not recorded")
            self._report.note(deed, strike, "acknowledged" if tracer.struck else "never reached", problems)

    async def _backend(self, strike: Strike, *, overtaken: bool) -> tuple[int, Tracer, list[Receipt]]:
        """An append whose backend is struck; repeated, as a caller would, until it is acknowledged.

        The connection is new each time: a backend that has served for long makes fewer calls. When it is ``overtaken``
        another writer has appended meanwhile, and it has to take the lock of the head.
        """
        first = self._take()
        log = await self._opened("operator", "struck")
        try:
            await self._patiently(lambda: log.append([body(first - 1)]))
            if overtaken:
                await self._patiently(lambda: self.log.append([body(first - 2)]))
            (pid,) = await self._patiently(
                lambda: asyncio.to_thread(self._ask, "SELECT pid", "triplane log struck append")
            )
            with Tracer(pid, strike) as tracer:
                receipts = await self._patiently(lambda: log.append(self.bodies(first)))
        finally:
            await log.close()
        return first, tracer, receipts

    async def after_append(self, first: int, acknowledged: list[Receipt] | None) -> tuple[bool, list[str]]:
        """Whether the append is recorded, and what is wrong with that."""
        bodies = self.bodies(first)
        ids = [each.id for each in bodies]
        problems: list[str] = []
        reader = await self._opened("verifier", "reader")
        try:
            recorded = await reader.get_many(ids)
            size, _ = await reader.head()
            if len(recorded) not in {0, BATCH}:
                problems.append(f"{len(recorded)} of {BATCH} events of one append are recorded")
            if acknowledged is not None:
                given = [(receipt.id, receipt.seq, receipt.leaf_hash) for receipt in acknowledged]
                there = [(id_, recorded[id_].seq, recorded[id_].leaf_hash) for id_ in ids if id_ in recorded]
                if given != there:
                    problems.append(f"acknowledged {given}, recorded {there}")
            again = await self._patiently(lambda: self.log.append(bodies))
            if recorded and [receipt.seq for receipt in again] != [recorded[id_].seq for id_ in ids]:
                problems.append("appended again it is recorded a second time")
            after, _ = await reader.head()
            if after - size != (0 if recorded else BATCH):
                problems.append(f"appended again the log grew by {after - size}")
            first_new = max(0, again[0].seq - 2)
            verification = await reader.verify_chain(first=first_new)
            if not verification.ok:
                problems.append(f"the chain is broken: {verification.broken}")
            times = Counter(entry.entry["id"] for entry in await reader.query(after=first_new - 1))
            problems += [f"{id_} is recorded {times[id_]} times" for id_ in ids if times[id_] != 1]
        finally:
            await reader.close()
        return bool(recorded), problems

    async def _victim_gone(self) -> None:
        """What a dead client's backends still commit is committed: only then is its outcome to be looked at."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while await asyncio.to_thread(self._ask, "SELECT pid", "triplane log victim%"):
            assert time.monotonic() < deadline, "a dead client's connection stays"
            await asyncio.sleep(0.01)

    def _ask(self, what: str, application: str) -> list[Any]:
        statement = f"{what} FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
        with self._database.superuser() as superuser:
            return [row[0] for row in superuser.execute(statement, (application,)).fetchall()]  # type: ignore[arg-type]

    async def _opened(self, login: str, writer: str) -> PostgresEventLog:
        """A new log each time: one whose opening failed cannot be opened again."""
        return await self._patiently(lambda: PostgresEventLog(self._database.dsn(login), writer=writer).open())

    async def _patiently(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Again until the server answers: after a crash it recovers for a moment."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await attempt()
            except (Unavailable, psycopg.OperationalError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def _take(self) -> int:
        self._next += BATCH + 2
        return self._next
