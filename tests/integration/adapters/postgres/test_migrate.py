"""Migration of a real Postgres: repeatable, least rights, and refused when it does not fit."""

import uuid
from datetime import UTC, datetime

import psycopg
import pytest
from tests.conftest import TEMPLATE, Database, PostgresServer, drop_database
from tests.contract.test_event_log import body

from triplane.adapters.postgres.connection import (
    check_revision,
    dsn,
    ensure_passwords,
    expected_revision,
    make_pool,
    open_pool,
)
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.migrate import ensure_access, migrate, run_migrations
from triplane.adapters.postgres.roles import GROUPS, LOGINS, role_name
from triplane.adapters.postgres.sessionstore import PostgresSessionStore
from triplane.audit.entry import first_entries, open_entry, prepare, seal_all
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


async def test_what_was_spent_before_it_was_counted_is_counted(database: Database) -> None:
    """0008 over sessions of before: of two runs that are over one has no result; a live one counts while it runs."""
    with database.superuser() as admin:
        admin.execute("DROP TABLE sessions.voids, sessions.spent, sessions.questions")
        admin.execute("ALTER TABLE sessions.sessions DROP COLUMN node_uid")
        for column in ("input_tokens", "output_tokens", "cost_minor_units"):
            admin.execute(f"ALTER TABLE sessions.runs DROP COLUMN {column}")
        admin.execute("UPDATE public.schema_revision SET version_num = '0007'")
        admin.execute(
            "INSERT INTO sessions.sessions (uid, namespace, name, task_uid, graph_uid, agent_uid, agent_name, role,"
            " snapshot_digest, work_order) SELECT 's' || n, 'team', 's', 't' || n % 2, 'g', 'a', 'a', 'Producer', '',"
            " '{}' FROM generate_series(1, 20) AS n"
        )
        usage = '{"input_tokens": 10, "output_tokens": 5, "cost_minor_units": 100000000000000000000}'
        admin.execute(
            "INSERT INTO sessions.runs (session_uid, run, state, permit_counter, revocation_revision,"
            " authority_digest, policy_digest, permitted_at, permit_seconds, run_inputs, result, started_at, ended_at)"
            " SELECT 's' || n, run, CASE WHEN run = 1 THEN 'lost' WHEN n > 18 THEN 'started' ELSE 'finished' END, 1,"
            " 0, '', '', now(), 10, '{}', CASE WHEN run = 2 AND n <= 18 THEN"
            f" jsonb_build_object('usage', '{usage}'::jsonb) END, now() - interval '1 minute',"
            " CASE WHEN run = 1 OR n <= 18 THEN now() - interval '57.5 seconds' END"
            " FROM generate_series(1, 20) AS n, generate_series(1, 2) AS run"
        )
    run_migrations(database.dsn("migrator"), "0008")
    with database.superuser() as admin:
        admin.execute("UPDATE public.schema_revision SET version_num = %s", (expected_revision(),))
    pool = make_pool(database.dsn("operator"), name="test")
    await open_pool(pool)
    try:
        spent = await PostgresSessionStore(pool).spent(["g", "t0", "t1"])
    finally:
        await pool.close()
    assert (spent["g"].tokens, spent["g"].cost_minor_units, spent["g"].sessions) == (18 * 15, 18 * (2**53 - 1), 20)
    assert 38 * 2.5 + 2 * 60 <= spent["g"].seconds <= 38 * 2.5 + 2 * 70
    assert spent["t0"].sessions == spent["t1"].sessions == 10


async def test_a_log_of_before_partitions_becomes_the_first_of_them_as_it_stands(
    postgres_server: PostgresServer,
) -> None:
    """0010 over entries of before: not a row is rewritten, the chain goes on, the guards stand."""
    database = Database(postgres_server, f"t_{uuid.uuid4().hex[:12]}", f"localhost/{uuid.uuid4().hex}")
    own = ensure_access(postgres_server.embedded.dsn, postgres_server.passwords, database.name)
    run_migrations(own, "0009")
    begun = first_entries(*database.origin.split("/"), datetime.now(UTC))
    rest = seal_all(
        [prepare(database.origin, body(n)) for n in range(300)],
        2,
        begun[-1].leaf.hex(),
        open_entry(begun[-1].octets).entry["time"],
    )
    where = "SELECT relfilenode FROM pg_class WHERE oid = %s::regclass"
    try:
        with psycopg.connect(own) as connection:
            connection.execute("SET ROLE triplane_log_owner")
            connection.execute("INSERT INTO log.heads (origin) VALUES (%s)", (database.origin,))
            connection.execute(
                "SELECT log.log_append(%s, 'migrate', 0, 0, '{}', %s, %s)",
                (
                    database.origin,
                    [entry.octets for entry in (*begun, *rest)],
                    [entry.body_sha256 for entry in (*begun, *rest)],
                ),
            )
            before = connection.execute(where, ("log.entries",)).fetchone()
        assert migrate(own, postgres_server.passwords, database=database.name) == database.origin
        with database.superuser() as admin:
            assert admin.execute(where, ("log.entries_0",)).fetchone() == before
            for statement in ("UPDATE log.entries SET octets = octets", "TRUNCATE log.entries_0"):
                with pytest.raises(psycopg.Error, match="append-only"):
                    admin.execute(statement)  # type: ignore[arg-type]
        log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
        try:
            (receipt,) = await log.append([body(300)])
            assert (receipt.seq, (await log.append([body(0)]))[0].seq) == (302, 2)
            assert (await log.verify_chain()).ok
        finally:
            await log.close()
    finally:
        drop_database(database)
