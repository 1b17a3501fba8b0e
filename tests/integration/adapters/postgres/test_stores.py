"""What only the Postgres backends of graph, sessions and accounts have: roles, restarts, erasure, two processes."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from tests.conftest import Database, PostgresServer, new_database

from triplane.adapters.postgres.accountstore import PostgresAccountStore
from triplane.adapters.postgres.connection import Pool, make_pool, open_pool
from triplane.adapters.postgres.graphstore import PostgresGraphStore
from triplane.adapters.postgres.sessionstore import PostgresSessionStore
from triplane.domain.session import Offer, Permit, RunState
from triplane.errors import Forbidden, InvalidInput, PermitRefused, Unavailable

DIGEST = "sha256:" + "5" * 64


def offer(uid: str) -> Offer:
    return Offer(uid, "team", uid, "t", "g", "a", "agent", "Producer", DIGEST, {})


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    made = make_pool(database.dsn("gateway"), name="gateway")
    await open_pool(made)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        pytest.param("verifier", "SELECT 1 FROM sessions.sessions", id="the verifier reads no sessions"),
        pytest.param("verifier", "SELECT 1 FROM sessions.principal_names", id="the verifier reads no names"),
        pytest.param("verifier", "SELECT 1 FROM sessions.tokens", id="the verifier reads no tokens"),
        pytest.param("verifier", "DELETE FROM graph.resources", id="the verifier changes no graph"),
        pytest.param("gateway", "TRUNCATE sessions.runs", id="the gateway truncates nothing"),
        pytest.param("operator", "TRUNCATE graph.edges", id="the operator truncates nothing"),
        pytest.param("operator", "DROP TABLE sessions.runs", id="the operator drops nothing"),
        pytest.param("gateway", "CREATE TABLE sessions.mine ()", id="the gateway makes no tables"),
    ],
)
def test_a_login_may_not(database: Database, login: str, statement: str) -> None:
    with (
        psycopg.connect(database.dsn(login)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        ("operator", "DELETE FROM sessions.records"),
        ("operator", "UPDATE sessions.revocation SET revision = revision"),
        ("operator", "DELETE FROM graph.resources"),
        ("gateway", "DELETE FROM sessions.principal_names"),
        ("gateway", "UPDATE sessions.runs SET counter = 0"),
        ("gateway", "SELECT 1 FROM graph.resources, graph.edges"),
        ("verifier", "SELECT 1 FROM graph.resources, graph.edges"),
    ],
)
def test_a_login_may(database: Database, login: str, statement: str) -> None:
    with psycopg.connect(database.dsn(login)) as connection:
        connection.execute(statement)


async def test_a_store_without_rights_says_so(database: Database) -> None:
    pool = make_pool(database.dsn("verifier"), name="verifier")
    await open_pool(pool)
    try:
        with pytest.raises(Forbidden, match="sessions"):
            await PostgresSessionStore(pool).get("s1")
        assert await PostgresGraphStore(pool).list() == []
    finally:
        await pool.close()


async def test_no_username_is_readable_outside_the_erasable_row(database: Database, pool: Pool) -> None:
    store = PostgresAccountStore(pool, b"s" * 32)
    made = await store.principal("alice@example.org", "uid-of-alice")
    with database.superuser() as superuser:
        tables = superuser.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables"
            " WHERE table_schema IN ('log', 'graph', 'sessions')"
        ).fetchall()
        holders = [
            name
            for (name,) in tables
            if superuser.execute(f"SELECT 1 FROM {name} t WHERE t::text ~ 'alice'").fetchone()
        ]
        assert holders == ["sessions.principal_names"]
        superuser.execute("DELETE FROM sessions.principal_names WHERE id = %s", (made.id,))
    assert await store.principal_by_id(made.id) is None
    again = await store.principal("alice@example.org", "uid-of-alice")
    assert (again.id, again.created) == (made.id, False)
    assert again.salt != made.salt


async def test_another_install_secret_gives_other_principals_and_a_short_one_is_refused(pool: Pool) -> None:
    one, two = PostgresAccountStore(pool, b"s" * 32), PostgresAccountStore(pool, b"t" * 32)
    assert (await one.principal("alice", "")).id != (await two.principal("alice", "")).id
    with pytest.raises(InvalidInput, match="32 octets"):
        PostgresAccountStore(pool, b"short")


async def test_a_claim_waits_for_a_revocation_under_way_and_obeys_it(database: Database, pool: Pool) -> None:
    """Deterministic half of the race: the revocation holds its lock while the claim comes."""
    store = PostgresSessionStore(pool)
    await store.offer(offer("s1"))
    await store.permit(Permit("s1", 1, 1, DIGEST, 0))
    async with await psycopg.AsyncConnection.connect(database.dsn("operator")) as revoking:
        await revoking.execute("SELECT revision FROM sessions.revocation FOR UPDATE")
        claiming = asyncio.create_task(store.claim_run("s1", 1, "runner", "i1"))
        await asyncio.sleep(0.3)
        assert not claiming.done()
        await revoking.execute("UPDATE sessions.sessions SET revoked = 'Stop' WHERE uid = 's1'")
        await revoking.execute("UPDATE sessions.revocation SET revision = revision + 1")
    with pytest.raises(PermitRefused, match="revoked: Stop"):
        await claiming


async def test_a_revocation_waits_for_a_claim_under_way_and_ends_its_run(database: Database, pool: Pool) -> None:
    """The other half: the claim has read the revision and not committed yet."""
    store = PostgresSessionStore(pool)
    await store.offer(offer("s1"))
    await store.permit(Permit("s1", 1, 1, DIGEST, 0))
    async with await psycopg.AsyncConnection.connect(database.dsn("operator")) as claiming:
        await claiming.execute("SELECT revision FROM sessions.revocation FOR SHARE")
        await claiming.execute("UPDATE sessions.runs SET state = 'claimed' WHERE session_uid = 's1'")
        revoking = asyncio.create_task(store.revoke("s1", "Stop"))
        await asyncio.sleep(0.3)
        assert not revoking.done()
    assert await revoking
    view = await store.get("s1")
    assert view is not None
    assert view.runs[0].state is RunState.REVOKED


async def test_a_claim_skips_what_another_transaction_holds(database: Database, pool: Pool) -> None:
    store = PostgresSessionStore(pool)
    for uid in ("s1", "s2"):
        await store.offer(offer(uid))
        await store.permit(Permit(uid, 1, 1, DIGEST, 0))
    async with await psycopg.AsyncConnection.connect(database.dsn("operator")) as other:
        await other.execute("SELECT 1 FROM sessions.runs WHERE session_uid = 's1' FOR UPDATE")
        async with asyncio.timeout(5):
            claim = await store.claim("runner", "i1")
        assert claim is not None
        assert claim.session_uid == "s2"


async def test_a_permit_from_the_future_is_no_permit(database: Database, pool: Pool) -> None:
    """The server's clock was set back after the permit was written: it must not live longer for that."""
    store = PostgresSessionStore(pool)
    await store.offer(offer("s1"))
    await store.permit(Permit("s1", 1, 1, DIGEST, 0))
    with database.superuser() as superuser:
        superuser.execute("UPDATE sessions.runs SET permitted_at = clock_timestamp() + interval '1 hour'")
    assert await store.claim("runner", "i1") is None
    with pytest.raises(PermitRefused, match="expired"):
        await store.claim_run("s1", 1, "runner", "i1")


async def test_a_restart_of_the_server_is_survived_and_rings(own_postgres: PostgresServer) -> None:
    database = new_database(own_postgres)
    pool = make_pool(database.dsn("gateway"), name="gateway")
    await open_pool(pool)
    store = PostgresSessionStore(pool)
    try:
        async with store.changes() as bell:
            await store.offer(offer("s1"))
            while await bell.wait(1):
                pass
            await asyncio.to_thread(own_postgres.embedded.kill)
            with pytest.raises(Unavailable):
                async with asyncio.timeout(30):
                    await store.get("s1")
            await asyncio.to_thread(own_postgres.embedded.start)
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await store.get("s1") is not None
                        break
                    except Unavailable:
                        await asyncio.sleep(0.2)
            assert await bell.wait(10), "nobody was told that something may have changed"
            while await bell.wait(2):
                pass
            await store.offer(offer("s2"))
            assert await bell.wait(10), "the bell is deaf after the restart"
    finally:
        await store.close()
        await pool.close()
