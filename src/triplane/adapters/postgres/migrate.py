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

from triplane.adapters.postgres.connection import translated
from triplane.adapters.postgres.roles import LOG_OWNER, ensure_database, ensure_roles, role_name
from triplane.audit.entry import first_entries
from triplane.errors import Unavailable

_LOCK_KEY = 0x7472_6971
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
    ``passwords`` maps every login to its password. Raises ``Unavailable`` and ``Forbidden``.
    """
    migrator = role_name("migrator")
    with translated("migrate the database"):
        if conninfo_to_dict(dsn).get("user") != migrator:
            with psycopg.connect(dsn, autocommit=True) as admin:
                ensure_roles(admin, passwords)
                ensure_database(admin, database)
        own = make_conninfo(dsn, user=migrator, password=passwords["migrator"], dbname=database)
        with psycopg.connect(own, autocommit=True) as lock:
            lock.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))  # released with the connection
            _run_migrations(own)
            with psycopg.connect(own) as connection:
                return _ensure_origin(connection, origin_host)


def _run_migrations(conninfo: str) -> None:
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
        command.upgrade(config, "head")


def _ensure_origin(connection: psycopg.Connection, host: str) -> str:
    """The current origin; a new one with ``origin.created`` and the principal ``system`` if there is none."""
    connection.execute(f"SET LOCAL ROLE {LOG_OWNER}")
    found = connection.execute("SELECT origin FROM log.heads WHERE current").fetchone()
    if found:
        return str(found[0])
    install_id = secrets.token_hex(16)
    origin = f"{host}/{install_id}"
    now = datetime.now(UTC)
    sealed = first_entries(host, install_id, now)
    connection.execute("INSERT INTO log.heads (origin) VALUES (%s)", (origin,))
    appended = connection.execute(
        "SELECT log.log_append(%s, %s, 0, 0, '{}', %s, %s)",
        (
            origin,
            _MIGRATOR_WRITER,
            [entry.octets for entry in sealed],
            [entry.body_sha256 for entry in sealed],
        ),
    ).fetchone()
    if appended != (True,):
        raise Unavailable(f"the new log of {origin} did not take its first entries: migrate again")
    connection.commit()
    return origin
