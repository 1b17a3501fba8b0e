"""What every part of the Postgres session store stands on: transactions, reads, the lock of one run."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from triplane.adapters.postgres.bell import Bell
from triplane.adapters.postgres.connection import Pool, translated
from triplane.adapters.postgres.sessionrows import LOCKED_RUN, run_view
from triplane.domain.session import RunView
from triplane.errors import NotFound
from triplane.failpoint import failpoint

Connection = AsyncConnection[TupleRow]
Params = Sequence[Any] | Mapping[str, Any]

CHANNEL: Final = "triplane_sessions"
RING: Final = f"SELECT pg_notify('{CHANNEL}', '')"


class SessionDatabase:
    """Schema ``sessions`` behind a pool of connections."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is open and stays its opener's to close; wake-ups use one more connection to the same
        place."""
        self._pool = pool
        assert isinstance(pool.conninfo, str)  # as make_pool gives it
        self._bell = Bell(pool.conninfo, CHANNEL)

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


async def locked_run(connection: Connection, uid: str, run: int) -> RunView:
    """The run, which nobody else changes before the transaction ends. Raises ``NotFound``."""
    row = await (await connection.execute(LOCKED_RUN, (uid, run))).fetchone()
    if row is None:
        raise NotFound(f"session {uid} has no run {run}: it was never permitted")
    return run_view(row[0])


async def one(connection: Connection, query: str, *parameters: Any) -> Any:
    """The first column of the first row, or None."""
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else row[0]
