"""The proxy before Postgres itself: without rules it changes nothing, and a rule cuts at the statement it names."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import Database, PostgresServer
from tests.faults.rules import DropRequest, LoseReply
from tests.faults.tcpproxy import DatabaseProxy, statement

pytestmark = pytest.mark.faults


@pytest.fixture
def between(postgres_server: PostgresServer) -> Iterator[DatabaseProxy]:
    """A proxy before the session's server."""
    made = DatabaseProxy(postgres_server.embedded.socket, postgres_server.home / "proxy").start()
    yield made
    made.stop()


@pytest.fixture
def dsn(database: Database, between: DatabaseProxy) -> str:
    """The superuser through the proxy, with a table to write to."""
    with database.superuser() as direct:
        direct.execute("CREATE TABLE kept (n int)")
    return psycopg.conninfo.make_conninfo(database.dsn("superuser"), host=str(between.folder))


def kept(database: Database) -> list[int]:
    with database.superuser() as direct:
        return [row[0] for row in direct.execute("SELECT n FROM kept ORDER BY n").fetchall()]


def insert(connection: psycopg.Connection, number: int, *, prepare: bool | None = None) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO kept VALUES (%s)", (number,), prepare=prepare)


@pytest.mark.parametrize(
    "prepare", [pytest.param(True, id="prepared statements"), pytest.param(None, id="plain statements")]
)
def test_without_rules_the_server_answers_as_itself(database: Database, dsn: str, prepare: bool | None) -> None:
    with psycopg.connect(dsn) as connection:
        for number in range(8):
            insert(connection, number, prepare=prepare)
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(3)]
            assert [cursor.fetchone() for cursor in cursors] == [(0,), (1,), (2,)]
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nothing_there")
    assert kept(database) == list(range(8))


def test_a_lost_reply_to_the_nth_commit_belongs_to_what_is_committed(
    database: Database, dsn: str, between: DatabaseProxy
) -> None:
    with psycopg.connect(dsn) as connection, between.rule(statement("^COMMIT"), LoseReply(), first=2) as rule:
        insert(connection, 1)
        with pytest.raises(psycopg.OperationalError):
            insert(connection, 2)
    assert [unit.status for unit in rule.struck] == ["I"]
    assert kept(database) == [1, 2]


def test_a_commit_that_was_dropped_never_happened(database: Database, dsn: str, between: DatabaseProxy) -> None:
    dropping = between.rule(statement("^COMMIT"), DropRequest())
    with psycopg.connect(dsn) as connection, dropping, pytest.raises(psycopg.OperationalError):
        insert(connection, 1)
    assert kept(database) == []


def test_a_statement_is_known_however_it_is_sent(database: Database, dsn: str, between: DatabaseProxy) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(3):
            connection.execute("INSERT INTO kept VALUES (%s)", (number,), prepare=True)
        with between.rule(statement("insert into kept"), LoseReply()) as rule, pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO kept VALUES (%s)", (3,), prepare=True)
    assert rule.struck[0].statements == ("INSERT INTO kept VALUES ($1)",)
    assert kept(database) == [0, 1, 2, 3]


def test_cut_refused_and_frozen(database: Database, dsn: str, between: DatabaseProxy) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        between.frozen = True
        thawing = threading.Timer(0.5, lambda: setattr(between, "frozen", False))
        thawing.start()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not thawing.is_alive(), "it answered while it was frozen"
        between.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    between.refusing = True
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    between.refusing = False
    psycopg.connect(dsn).close()
