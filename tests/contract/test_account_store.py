"""The contract of ``AccountStore``, on every backend."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tests.conftest import drop_database, new_database

from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.postgres.accountstore import PostgresAccountStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.errors import Conflict
from triplane.ports import AccountStore

HASHES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3)]


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[AccountStore]:
    yield MemoryAccountStore()


@asynccontextmanager
async def _postgres(request: pytest.FixtureRequest) -> AsyncIterator[AccountStore]:
    database = new_database(request.getfixturevalue("postgres_server"))
    pool = make_pool(database.dsn("gateway"), name="gateway")
    try:
        await open_pool(pool)
        yield PostgresAccountStore(pool, b"s" * 32)
    finally:
        await pool.close()
        drop_database(database)


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_postgres, id="postgres")])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AccountStore]:
    async with request.param(request) as made:
        yield made
        await made.close()


async def test_a_user_gets_a_random_id_at_first_sight_and_keeps_it(store: AccountStore) -> None:
    first = await store.principal("alice@example.org", "uid-1")
    assert (first.username, first.uid, first.created) == ("alice@example.org", "uid-1", True)
    assert "alice" not in first.id
    assert len(first.id) >= 16
    assert len(first.salt) >= 32
    assert await store.principal("alice@example.org", "uid-1") == replace(first, created=False)


async def test_a_username_is_the_same_principal_under_another_uid(store: AccountStore) -> None:
    first = await store.principal("alice", "uid-1")
    assert await store.principal("alice", "uid-2") == replace(first, created=False)


async def test_different_usernames_are_different_principals(store: AccountStore) -> None:
    names = ["alice", "Alice", "alice ", "", "álice", "system:serviceaccount:team:alice"]
    rows = [await store.principal(name, "") for name in names]
    assert len({row.id for row in rows}) == len({row.salt for row in rows}) == len(names)
    assert all(row.created for row in rows)


async def test_racing_first_sights_make_one_principal(store: AccountStore) -> None:
    rows = await asyncio.gather(*(store.principal("alice", "uid-1") for _ in range(12)))
    assert sorted(row.created for row in rows) == [False] * 11 + [True]
    assert len({(row.id, row.salt) for row in rows}) == 1


async def test_a_principal_is_found_by_its_id(store: AccountStore) -> None:
    made = await store.principal("alice", "uid-1")
    assert await store.principal_by_id(made.id) == replace(made, created=False)
    assert await store.principal_by_id("p-unknown") is None
    assert await store.principal_by_id("alice") is None


async def test_a_token_is_known_by_its_hash(store: AccountStore) -> None:
    await store.put_token("runner-1", "runner", HASHES[0])
    await store.put_token("operator", "operator", HASHES[1])
    assert await store.token_role(HASHES[0]) == ("runner-1", "runner")
    assert await store.token_role(HASHES[1]) == ("operator", "operator")
    assert await store.token_role(HASHES[2]) is None


async def test_a_new_token_of_a_name_replaces_the_old(store: AccountStore) -> None:
    await store.put_token("runner-1", "runner", HASHES[0])
    await store.put_token("runner-1", "operator", HASHES[1])
    assert await store.token_role(HASHES[0]) is None
    assert await store.token_role(HASHES[1]) == ("runner-1", "operator")
    await store.put_token("runner-1", "operator", HASHES[1])
    assert await store.token_role(HASHES[1]) == ("runner-1", "operator")


async def test_one_token_is_never_that_of_two_names(store: AccountStore) -> None:
    await store.put_token("runner-1", "runner", HASHES[0])
    with pytest.raises(Conflict, match="runner-2"):
        await store.put_token("runner-2", "operator", HASHES[0])
    assert await store.token_role(HASHES[0]) == ("runner-1", "runner")
