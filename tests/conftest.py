"""Real servers for the tests: one Postgres per session, a fresh migrated database per test."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from triplane.adapters.postgres.connection import ensure_passwords
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.adapters.postgres.migrate import migrate
from triplane.adapters.postgres.roles import ensure_database, role_name
from triplane.settings import Settings

TEMPLATE = "triplane_template"


@dataclass(frozen=True)
class PostgresServer:
    """The session's server, its passwords by login, and the origin of the migrated template."""

    embedded: EmbeddedPostgres
    home: Path
    passwords: dict[str, str]
    origin: str


@dataclass(frozen=True)
class Database:
    """A migrated database of one test."""

    server: PostgresServer
    name: str
    origin: str

    def dsn(self, login: str) -> str:
        """Connection string of ``operator``, ``gateway``, ``verifier``, ``migrator`` or ``superuser``."""
        return make_conninfo(
            self.server.embedded.dsn,
            dbname=self.name,
            user=role_name(login),
            password=self.server.passwords[login],
        )

    def settings(self, **overrides: object) -> Settings:
        """Settings of a process that uses this database and the server's secrets folder."""
        values: dict[str, object] = {"home": self.server.home, "database_name": self.name, **overrides}
        return Settings(**values)  # type: ignore[arg-type]

    def superuser(self) -> psycopg.Connection:
        """A connection that may do anything, as an attacker with the disk would."""
        return psycopg.connect(self.dsn("superuser"), autocommit=True)


def _new_server(home: Path) -> PostgresServer:
    home.chmod(0o700)
    passwords = ensure_passwords(home / "secrets")
    embedded = EmbeddedPostgres(home / "pg", passwords["superuser"])
    embedded.start()
    try:
        origin = migrate(embedded.dsn, passwords, database=TEMPLATE)
    except BaseException:
        embedded.stop()
        raise
    return PostgresServer(embedded, home, passwords, origin)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real Postgres for the whole session, fsync on, in a short temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="tri-pg-"))
    server = None
    try:
        server = _new_server(home)
        yield server
    finally:
        if server is not None:
            server.embedded.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, for those that kill it."""
    home = Path(tempfile.mkdtemp(prefix="tri-pg-"))
    server = None
    try:
        server = _new_server(home)
        yield server
    finally:
        if server is not None:
            server.embedded.stop()
        shutil.rmtree(home, ignore_errors=True)


def new_database(server: PostgresServer) -> Database:
    """A copy of the migrated template."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.embedded.dsn, autocommit=True) as admin:
        ensure_database(admin, name, TEMPLATE)
    return Database(server, name, server.origin)


def drop_database(database: Database) -> None:
    """Drop it with whatever is still connected."""
    with (
        suppress(psycopg.OperationalError),
        psycopg.connect(database.server.embedded.dsn, autocommit=True) as admin,
    ):
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name)))


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    """A fresh migrated database."""
    made = new_database(postgres_server)
    yield made
    drop_database(made)
