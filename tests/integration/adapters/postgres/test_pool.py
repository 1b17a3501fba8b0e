"""The pool of connections, against what an event loop may do to whoever waits for one."""

import asyncio

import pytest
from tests.conftest import Database

from triplane.adapters.postgres.connection import Pool, make_pool, open_pool


@pytest.mark.parametrize("turns", range(6))
async def test_a_task_that_is_cancelled_as_it_is_granted_a_connection_ends(database: Database, turns: int) -> None:
    """``turns`` of the loop after the grant, one of which is where ``asyncio.wait_for`` of Python 3.11 drops it."""
    pool = make_pool(database.dsn("gateway"), name="test", largest=1)
    await open_pool(pool)
    reached = asyncio.Event()

    async def work() -> None:
        async with pool.connection():
            reached.set()
            await asyncio.Event().wait()

    try:
        held = await pool.getconn()
        waiting = asyncio.create_task(work())
        async with asyncio.timeout(60):
            while not pool.get_stats().get("requests_waiting"):
                await asyncio.sleep(0.01)
        await pool.putconn(held)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=5)
        ended = waiting.cancelled()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert ended
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
    finally:
        await pool.close()


async def test_a_cancellation_that_came_before_is_not_raised_again(database: Database) -> None:
    pool = make_pool(database.dsn("gateway"), name="test")
    assert isinstance(pool, Pool)
    await open_pool(pool)

    async def clean_up() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with pool.connection() as connection:
                row = await (await connection.execute("SELECT 7")).fetchone()
            assert row is not None
            return int(row[0])
        raise AssertionError

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 7
    await pool.close()
