"""Bring a database to the newest schema, and give a new one its origin.

Three steps, each repeatable after a crash at any instant: roles and database (only with an administrator's
connection), the migrations (one transaction, as the migrator), the first two entries of the log.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import as_file, files

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from triplane.adapters.postgres.connection import UNFINISHED, UNFINISHED_RESTORE, translated
from triplane.adapters.postgres.heldlog import HELD, current_origin
from triplane.adapters.postgres.ownerappend import append_within
from triplane.adapters.postgres.roles import LOG_OWNER, ensure_database, ensure_roles, role_name
from triplane.audit.entry import first_bodies, format_time, prepare
from triplane.audit.model import GENESIS_PREV
from triplane.errors import Unavailable

LOCK_KEY = 0x7472_6971
_MIGRATOR_WRITER = "migrate"


def migrate(
    dsn: str,
    passwords: Mapping[str, str],
    *,
    database: str = "triplane",
    origin_host: str = "localhost",
) -> str:
    """Migrate ``database`` on the server of ``dsn`` and return the log's origin.

    ``dsn`` is an administrator's (to any database; roles and the database are then made) or the migrator's
    own.
    ``passwords`` maps every login to its password. Raises ``Unavailable`` (also while a restore into the database is
    unfinished), ``Forbidden``, and ``Corrupt`` when there is a log without its head: no other is begun beside it.
    """
    own = ensure_access(dsn, passwords, database)
    with translated("migrate the database"), psycopg.connect(own, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))  # released with the connection
        check_no_restore(lock)
        run_migrations(own)
        with psycopg.connect(own) as connection:
            return _ensure_origin(connection, origin_host)


def ensure_access(dsn: str, passwords: Mapping[str, str], database: str) -> str:
    """Roles and database, where ``dsn`` is an administrator's; the migrator's own connection string to it."""
    migrator = role_name("migrator")
    with translated("make roles and database"):
        if conninfo_to_dict(dsn).get("user") != migrator:
            with psycopg.connect(dsn, autocommit=True) as admin:
                ensure_roles(admin, passwords)
                ensure_database(admin, database)
    return make_conninfo(dsn, user=migrator, password=passwords["migrator"], dbname=database)


def check_no_restore(connection: psycopg.Connection) -> None:
    """Raise ``Unavailable`` while a restore has begun and not ended: what is there is not an installation yet."""
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (UNFINISHED,)).fetchone()
    if found == (True,):
        raise Unavailable(UNFINISHED_RESTORE)


def run_migrations(conninfo: str, revision: str = "head") -> None:
    """Bring the schema up to this revision; nothing when it is there."""
    # Imported here: only this function needs Alembic, and it is slow to import.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
    with (
        as_file(files("triplane.adapters.postgres").joinpath("migrations")) as scripts,
        engine.begin() as connection,
    ):
        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _ensure_origin(connection: psycopg.Connection, host: str) -> str:
    """The current origin; a new one with ``origin.created`` and the principal ``system`` if there is none."""
    connection.execute(f"SET LOCAL ROLE {LOG_OWNER}")
    if found := current_origin(connection.execute(HELD).fetchall()):
        return found
    install_id = secrets.token_hex(16)
    origin = f"{host}/{install_id}"
    now = datetime.now(UTC)
    entries = [prepare(origin, body) for body in first_bodies(host, install_id)]
    connection.execute("INSERT INTO log.heads (origin) VALUES (%s)", (origin,))
    leaf = bytes.fromhex(GENESIS_PREV)
    if not append_within(
        connection, origin, entries, size=0, leaf=leaf, time=format_time(now), writer=_MIGRATOR_WRITER
    ):
        raise Unavailable(f"the new log of {origin} did not take its first entries: migrate again")
    connection.commit()
    return origin
