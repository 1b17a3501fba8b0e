"""How the stores reach Postgres: connection strings, pools, and database errors in our own words."""

import asyncio
import logging
import os
import re
import secrets
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from triplane.adapters.postgres.embedded import PORT, socket_folder
from triplane.adapters.postgres.roles import LOGINS, Login, role_name
from triplane.errors import Conflict, Fenced, Forbidden, Unavailable
from triplane.settings import Settings

POOL_WAIT_SECONDS = 10.0
CONNECT_SECONDS = 5
RECONNECT_SECONDS = 5.0
"""After so long a pool gives an attempt up, and the next caller begins anew: its pauses double, and a server that
is back must not wait for the end of a long one."""
_PLANS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""Every statement of the stores looks up a few rows by an index. Left to itself the server plans those with an array
anew each time, which costs more than running them; and a plan made while a table is empty would be a scan, and kept."""
FENCED = "TP001"
REFUSED = "TP002"
NO_LOG = "TP003"
NOT_A_CONTINUATION = "TP004"
UNFINISHED = "public.unfinished_restore"
"""A table that stands while a restore is under way (``loading``)."""
UNFINISHED_RESTORE = (
    "a restore into this database has begun and not ended: repeat `triplane restore`; nothing else may use it"
)
_REVISION = "SELECT version_num, to_regclass(%s) IS NOT NULL FROM public.schema_revision"
_TRANSIENT = frozenset({"25P03", "25006", "57P05", "TP007"})
"""Idle-in-transaction time-out, read-only after a failover, idle-session time-out, a clock that is ahead of the
server's: not OperationalErrors in psycopg."""


logging.getLogger("psycopg").addHandler(logging.NullHandler())
"""What a pool has to say goes where logs are kept; where none are, as in the command line, its errors say it."""


class Pool(AsyncConnectionPool[AsyncConnection[TupleRow]]):
    """A pool whose callers can be cancelled at any moment."""

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[TupleRow]:  # noqa: ASYNC109 - the pool's
        """See ``AsyncConnectionPool.getconn``, which ``connection`` calls. It waits with ``asyncio.wait_for``, which
        before Python 3.12 drops a cancellation that meets the grant: the task would run on, and whoever cancelled it
        would wait for ever."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        connection = await super().getconn(timeout)
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


def ensure_passwords(folder: Path) -> dict[str, str]:
    """The passwords of the superuser and of every login, ``folder/db_<login>`` (0600), made where missing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {login: _ensure_secret(folder / f"db_{login}") for login in ("superuser", *LOGINS)}


def _ensure_secret(path: Path) -> str:
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)  # unlike rename it never replaces one that another process has just made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text().strip()


def dsn(settings: Settings, login: Login) -> str:
    """Connection string of one login. Over a network the server's certificate is verified.

    Raises ``Unavailable`` when there is no password: ``triplane up`` or ``triplane migrate`` has not run
    here.
    """
    if settings.database_password is not None:
        password = settings.database_password.get_secret_value()
    else:
        path = settings.secrets / f"db_{login}"
        try:
            password = path.read_text().strip()
        except OSError as error:
            raise Unavailable(
                f"no database password for {login}: {path} cannot be read ({error.strerror}); "
                "run `triplane up`, or set TRIPLANE_DATABASE_PASSWORD"
            ) from error
    host = settings.database_host or str(socket_folder(settings.pg))
    port = settings.database_port if settings.database_host else PORT
    return make_conninfo(
        host=host,
        port=port,
        dbname=settings.database_name,
        user=role_name(login),
        password=password,
        **_tls(host),
    )


def _tls(host: str) -> dict[str, str]:
    local = host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}
    return {} if local else {"sslmode": "verify-full"}


def make_pool(conninfo: str, *, name: str, largest: int = 8, **connect: Any) -> Pool:
    """A closed pool of autocommit connections: open it with ``await open_pool(pool)``. Connections are
    checked when they are lent, so that callers do not meet the corpses of a restart of the server."""
    options = {
        "autocommit": True,
        "application_name": name,
        "connect_timeout": CONNECT_SECONDS,
        "options": _PLANS,
        **connect,
    }
    return Pool(
        conninfo,
        min_size=1,
        max_size=largest,
        open=False,
        name=name,
        timeout=POOL_WAIT_SECONDS,
        kwargs=options,
        check=_check_alive,
        reconnect_timeout=RECONNECT_SECONDS,
    )


async def _check_alive(connection: AsyncConnection[Any]) -> None:
    """Refuse a connection whose server has left, without asking it anything.

    A server that ends, or is killed on this machine, closes its sockets, so the end of the stream (or a last
    message) waits there; an idle connection has nothing else to read. Only then is it worth a round trip, which
    raises for a dead one. A peer that vanished without a word is found by the statement, as it would be a moment later.
    """
    if connection.closed:
        raise psycopg.OperationalError("the connection is closed")
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def open_pool(pool: Pool) -> None:
    """Open it and check the schema's revision; raises ``Unavailable``."""
    with translated("open the database"):
        try:
            await pool.open(wait=True, timeout=POOL_WAIT_SECONDS)
        except PoolTimeout as error:
            raise Unavailable(f"could not open the database: {error}; {await _why_not(pool)}") from error
        async with pool.connection() as connection:
            await check_revision(connection)


async def _why_not(pool: Pool) -> str:
    """Why no connection can be had, which a pool does not say, and what to do."""
    why = "it may be busy"
    try:
        await (await AsyncConnection.connect(str(pool.conninfo), connect_timeout=CONNECT_SECONDS)).close()
    except psycopg.Error as error:
        why = _first_line(error)
    return f"{why}. Is it running? `triplane up` starts the one of this home"


def expected_revision() -> str:
    """The newest revision this program brings."""
    versions = Path(__file__).parent / "migrations" / "versions"
    return max(match[1] for path in versions.iterdir() if (match := re.match(r"(\d{4})_\w+\.py$", path.name)))


async def check_revision(connection: AsyncConnection[Any]) -> None:
    """Raise ``Unavailable`` unless the schema is exactly the one this program was made for, and no restore is under
    way: until it ends, what is there need not be what was backed up."""
    try:
        cursor = await connection.execute(_REVISION, (UNFINISHED,))
        row = await cursor.fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row is not None and row[1]:
        raise Unavailable(UNFINISHED_RESTORE)
    found = row[0] if row else "none"
    expected = expected_revision()
    if found != expected:
        step = "run `triplane migrate`" if found in {"none", *_older(expected)} else "upgrade this program"
        raise Unavailable(f"the database schema is at revision {found}, this program needs {expected}: {step}")


def _older(revision: str) -> set[str]:
    return {f"{number:04}" for number in range(int(revision))}


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn psycopg's errors inside into ours; ``action`` completes "could not …"."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"could not {action}: {_first_line(error)}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(f"could not {action}: {_first_line(error)}") from error
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"could not {action}: {_first_line(error)}") from error
    except psycopg.Error as error:
        if error.sqlstate == FENCED:
            raise Fenced(
                f"could not {action}: {_first_line(error)}; a newer process has taken over: stop this one"
            ) from error
        if error.sqlstate in _TRANSIENT:
            raise Unavailable(f"could not {action}: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
