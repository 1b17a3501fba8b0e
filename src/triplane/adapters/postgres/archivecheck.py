"""Is what the database keeps of archived entries what their archive says?

Leaf hashes decide receipts and proofs, the id index whether an event is new, the references what the collector leaves
alone. The leaf hashes lead to a signed root by themselves; the other two can only be held against the entries.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from triplane.adapters.postgres.archivedreferences import told
from triplane.adapters.postgres.chunks import LOOK_UP
from triplane.audit.chain import BreakReason, broken_at
from triplane.audit.entry import open_entry
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import Break, Recorded
from triplane.audit.tiles import WIDTH
from triplane.domain.collection import octets_of, references_of

_LEAVES: Final = "SELECT leaf FROM log.archived_entries WHERE origin = %s AND seq >= %s AND seq < %s ORDER BY seq"
_NAMED: Final = """
    SELECT digest, bool_or(needed) FROM log.archived_references WHERE origin = %s AND digest = ANY (%s)
    GROUP BY digest"""

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Entries = Callable[[int], Sequence[bytes]]
"""The octets of the 256 archived entries from this number on; verified."""


@dataclass(frozen=True, slots=True)
class _Expected:
    seq: int
    leaf: bytes
    id: str
    body: bytes
    named: Mapping[bytes, bool]
    """The digests in it, and whether it needs them as blobs."""


async def check_archived(connection: Connection, origin: str, upto: int, entries: Entries) -> Break | None:
    """The first thing wrong with what is kept of the entries before ``upto``; of the references, where an earlier
    version did not keep them, nothing is said: the collector does not rely on them either."""
    known = await told(connection, origin, upto) is not None
    for first in range(0, upto, WIDTH):
        expected = await asyncio.to_thread(_expected, first, entries)
        leaves = await _rows(connection, _LEAVES, (origin, first, first + len(expected)))
        indexed = {row[0]: row for row in await _rows(connection, LOOK_UP, (origin, [one.id for one in expected]))}
        named = sorted({digest for one in expected for digest in one.named})
        kept = dict(await _rows(connection, _NAMED, (origin, named))) if known else dict.fromkeys(named, True)
        if broken := _compared(expected, [row[0] for row in leaves], indexed, kept):
            return broken
    return None


def _expected(first: int, entries: Entries) -> list[_Expected]:
    found = []
    for seq, one in enumerate(entries(first), first):
        opened, leaf = open_entry(one), leaf_hash(one)
        named = dict.fromkeys(references_of([Recorded(seq, one, leaf.hex(), opened.entry)]), False)
        if named:  # else it only speaks of blobs
            named.update({octets_of(digest): True for digest in opened.entry["blobs"]})
        found.append(_Expected(seq, leaf, opened.entry["id"], opened.body_sha256, named))
    return found


def _compared(
    expected: Sequence[_Expected],
    leaves: Sequence[bytes],
    indexed: Mapping[str, tuple[Any, ...]],
    kept: Mapping[bytes, bool],
) -> Break | None:
    for number, one in enumerate(expected):
        leaf = leaves[number] if number < len(leaves) else None
        if leaf != one.leaf:
            message = f"entry {one.seq} is archived; its leaf hash is {one.leaf.hex()} there, and another one here"
            return broken_at(one.seq, BreakReason.LEAF_HASH_MISMATCH, message)
        row = indexed.get(one.id)
        if row != (one.id, one.seq, one.body):
            holds = "" if row is None else f"; it names entry {row[1]}"
            message = (
                f"entry {one.seq} is archived; the id index does not hold {one.id} with this seq and body{holds}: "
                "the same event could be appended once more"
            )
            return broken_at(one.seq, BreakReason.ID_INDEX_MISMATCH, message)
        for digest in sorted(one.named):
            if digest not in kept or (one.named[digest] and not kept[digest]):
                message = (
                    f"entry {one.seq} is archived and names sha256:{digest.hex()}, of which log.archived_references "
                    "does not know, or not that it is needed: it could be collected, or lost and not missed"
                )
                return broken_at(one.seq, BreakReason.PROJECTION_MISMATCH, message)
    return None


async def _rows(connection: Connection, statement: LiteralString, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement, values, binary=True)).fetchall()
