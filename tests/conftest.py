"""Real servers for the tests: one Postgres per session, a fresh migrated database per test."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.s3server import S3Server, running_s3
from triplane.adapters.postgres.connection import dsn, ensure_passwords
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.adapters.postgres.migrate import migrate
from triplane.adapters.postgres.roles import ensure_database
from triplane.settings import Settings

pytest.register_assert_rewrite("triplane.conformance")

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
        return dsn(self.settings(), login)  # type: ignore[arg-type]

    def settings(self, **overrides: object) -> Settings:
        """Settings of a process that uses this database and the server's secrets folder."""
        values: dict[str, object] = {"home": self.server.home, "database_name": self.name, **overrides}
        return Settings(**values)  # type: ignore[arg-type]

    def superuser(self) -> psycopg.Connection:
        """A connection that may do anything, as an attacker with the disk would."""
        return superuser(self.settings())


def superuser(settings: Settings) -> psycopg.Connection:
    """The same to the database of any installation."""
    return psycopg.connect(dsn(settings, "superuser"), autocommit=True)  # type: ignore[arg-type]


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A real Postgres, fsync on, in a short temporary folder, with a migrated template; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="tri-pg-"))
    passwords = ensure_passwords(home / "secrets")
    embedded = EmbeddedPostgres(home / "pg", passwords["superuser"])
    try:
        embedded.start()
        yield PostgresServer(embedded, home, passwords, migrate(embedded.dsn, passwords, database=TEMPLATE))
    finally:
        embedded.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole session."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3-compatible server for the whole session; tests take a prefix each."""
    with running_s3() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, for those that kill it."""
    with running_server() as server:
        yield server


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
