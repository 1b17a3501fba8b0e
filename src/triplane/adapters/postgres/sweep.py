"""``verify_chain`` over Postgres: rows by a server-side cursor, checked in a thread while the next ones are
fetched."""

import asyncio
from collections.abc import Iterable
from typing import Any, LiteralString

import psycopg

from triplane.audit.chain import ChainVerifier, StoredEntry
from triplane.audit.model import Verification
from triplane.errors import Corrupt

_ROWS = 2000
_ROUNDS = 3
"""A sweep goes on with what was appended meanwhile, this often: under constant load it must end too."""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SELECT = """
    SELECT e.seq, e.octets, e.leaf, i.seq, i.body_sha256,
        e.id, e.stream, e.type, e.time, e.actor, e.kind, e.namespace, e.name, e.uid  -- as chain.PROJECTIONS
    FROM log.entries e LEFT JOIN log.entry_ids i ON i.origin = e.origin AND i.id = e.id
    WHERE e.origin = %s AND e.seq >= %s AND e.seq <= %s ORDER BY e.seq"""
_STRAY = """
    SELECT i.seq, i.id FROM log.entry_ids i
    WHERE i.origin = %s AND NOT EXISTS (
        SELECT 1 FROM log.entries e WHERE e.origin = i.origin AND e.seq = i.seq AND e.id = i.id)
    ORDER BY i.seq LIMIT 1"""
_FOREVER = 2**53

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def sweep(connection: Connection, origin: str, first: int, last: int | None) -> Verification:
    """Verify ``first..last`` of the log of ``origin``, to the head (and against it) when ``last`` is None."""
    anchor = await _octets(connection, origin, first - 1) if first else None
    verifier = ChainVerifier(origin, first, anchor)
    for _ in range(_ROUNDS):
        before = verifier.next
        await _round(connection, verifier, origin, last)
        if verifier.broken is not None or last is not None or verifier.next == before:
            break
    return verifier.result()


async def _round(connection: Connection, verifier: ChainVerifier, origin: str, last: int | None) -> None:
    """One snapshot of entries and head row."""
    await connection.execute(_SNAPSHOT)
    try:
        head = await _one(connection, "SELECT size, leaf FROM log.heads WHERE origin = %s", (origin,))
        if head is None:
            raise Corrupt(f"the head row of {origin} is gone: restore the log from a backup")
        size, leaf = head
        bound = _FOREVER if last is None else last
        async with connection.cursor("sweep", binary=True) as cursor:
            await cursor.execute(_SELECT, (origin, verifier.next, bound))
            rows = await cursor.fetchmany(_ROWS)
            while rows:
                checking = asyncio.create_task(asyncio.to_thread(_feed, verifier, rows))
                try:
                    following = await cursor.fetchmany(_ROWS)
                finally:
                    going_on = await checking
                rows = following if going_on else []
        if last is None:
            verifier.close(size, leaf.hex())
            stray = await _one(connection, _STRAY, (origin,)) if verifier.first == 0 else None
            if stray is not None:
                verifier.stray(*stray)
        else:
            verifier.expect(last + 1)
    finally:
        if not connection.closed:
            await connection.execute("ROLLBACK")


def _feed(verifier: ChainVerifier, rows: Iterable[tuple[Any, ...]]) -> bool:
    for seq, octets, leaf, indexed_seq, body, *projected in rows:
        indexed = None if indexed_seq is None else (indexed_seq, body)
        if not verifier.feed(StoredEntry(seq, octets, leaf, tuple(projected), indexed)):
            return False
    return True


async def _octets(connection: Connection, origin: str, seq: int) -> bytes | None:
    statement: LiteralString = "SELECT octets FROM log.entries WHERE origin = %s AND seq = %s"
    row = await _one(connection, statement, (origin, seq))
    return None if row is None else bytes(row[0])


async def _one(connection: Connection, statement: LiteralString, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    cursor = await connection.execute(statement, values, binary=True)
    return await cursor.fetchone()
