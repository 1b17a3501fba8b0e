"""Migration of a real Postgres: repeatable, least rights, and refused when it does not fit."""

import psycopg
import pytest
from tests.conftest import TEMPLATE, Database, PostgresServer

from triplane.adapters.postgres.connection import (
    check_revision,
    dsn,
    ensure_passwords,
    expected_revision,
    make_pool,
    open_pool,
)
from triplane.adapters.postgres.migrate import migrate
from triplane.adapters.postgres.roles import GROUPS, LOGINS, role_name
from triplane.errors import InvalidInput, Unavailable


def test_migrating_again_changes_nothing_and_keeps_the_origin(database: Database) -> None:
    server = database.server
    with database.superuser() as admin:
        before = admin.execute("SELECT * FROM log.entries ORDER BY seq").fetchall()
        assert migrate(server.embedded.dsn, server.passwords, database=database.name) == server.origin
        assert admin.execute("SELECT * FROM log.entries ORDER BY seq").fetchall() == before
    assert [row[6] for row in before] == ["origin.created", "principal.created"]


def test_the_migrator_alone_can_migrate_once_an_administrator_made_roles_and_database(
    database: Database,
) -> None:
    assert migrate(database.dsn("migrator"), database.server.passwords, database=database.name) == database.origin


def test_every_login_gets_in_with_its_password_and_with_no_other(database: Database) -> None:
    for login in LOGINS:
        with psycopg.connect(database.dsn(login)) as connection:
            assert connection.execute("SELECT session_user").fetchone() == (role_name(login),)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(database.dsn(login), password=database.server.passwords["superuser"])


def test_group_roles_cannot_log_in_and_passwords_are_scram(database: Database) -> None:
    with database.superuser() as admin:
        rows = admin.execute(
            "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolpassword FROM pg_authid"
            " WHERE rolname LIKE 'triplane%' AND rolname <> 'triplane_superuser'"
        ).fetchall()
    roles = {row[0]: row[1:] for row in rows}
    assert {name for name, row in roles.items() if not row[0]} == set(GROUPS)
    for login in LOGINS:
        can_login, is_superuser, creates_roles, password = roles[role_name(login)]
        assert (can_login, is_superuser, creates_roles) == (True, False, False)
        assert password.startswith("SCRAM-SHA-256$")


def test_a_missing_password_is_named(postgres_server: PostgresServer) -> None:
    some = {**postgres_server.passwords, "verifier": ""}
    with pytest.raises(InvalidInput, match="verifier"):
        migrate(postgres_server.embedded.dsn, some, database=TEMPLATE)


async def test_processes_refuse_a_schema_that_is_not_theirs(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.dsn("verifier")) as connection:
        await check_revision(connection)
    with database.superuser() as admin:
        admin.execute("UPDATE public.schema_revision SET version_num = '0000'")
    pool = make_pool(database.dsn("verifier"), name="test")
    with pytest.raises(Unavailable, match=f"revision 0000, this program needs {expected_revision()}: run `triplane"):
        await open_pool(pool)
    with database.superuser() as admin:
        admin.execute("UPDATE public.schema_revision SET version_num = '9999'")
        async with await psycopg.AsyncConnection.connect(database.dsn("verifier")) as connection:
            with pytest.raises(Unavailable, match="upgrade this program"):
                await check_revision(connection)
    await pool.close()


def test_passwords_are_made_once_and_private(tmp_path) -> None:  # type: ignore[no-untyped-def]
    made = ensure_passwords(tmp_path / "secrets")
    assert ensure_passwords(tmp_path / "secrets") == made
    assert len(set(made.values())) == len(LOGINS) + 1
    for path in (tmp_path / "secrets").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_settings_lead_to_the_embedded_server(database: Database) -> None:
    with psycopg.connect(dsn(database.settings(), "operator")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (database.name,)


def test_a_missing_password_file_says_what_to_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from triplane.settings import Settings

    with pytest.raises(Unavailable, match="run `triplane up`"):
        dsn(Settings(home=tmp_path), "operator")
