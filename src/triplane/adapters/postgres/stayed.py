"""Are the entries that archiving leaves in the database what they were, and all there?

Their leaf hashes are those of the archived tree, whose root the caller has compared. How many stayed of each archived
range stands in its ``log.archived``; the ranges must join from 0 to the boundary, and the last of these entries is in
the chain that is verified behind it. So none can be taken away with what tells of it. It says as well what the
database keeps of all that archived entries name.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
import psycopg

from triplane.adapters.postgres.archivedreferences import compared, told
from triplane.audit.chain import PROJECTIONS, BreakReason, broken_at, projections
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import Break, JsonObject
from triplane.audit.types import STAYING

_ROWS: Final = 1000
_SELECT: Final = """
    SELECT e.seq, e.octets, coalesce(a.leaf, e.leaf),
        e.id, e.stream, e.type, e.time, e.actor, e.kind, e.namespace, e.name, e.uid  -- as chain.PROJECTIONS
    FROM log.entries e LEFT JOIN log.archived_entries a ON a.origin = e.origin AND a.seq = e.seq
    WHERE e.origin = %s AND (e.seq < %s OR e.type = 'log.archived') ORDER BY e.seq"""


async def check_stayed(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], origin: str, upto: int, size: int
) -> Break | None:
    """The first thing wrong with what stayed below ``upto``; within the caller's transaction. A break behind ``upto``,
    at the log's end, is that nothing tells of the last archiving: where that was taken away, the chain may say."""
    stayed: list[int] = []
    ranges: list[JsonObject] = []
    async with connection.cursor("stayed", binary=True) as cursor:
        await cursor.execute(_SELECT, (origin, upto))
        while rows := await cursor.fetchmany(_ROWS):
            for seq, octets, leaf, *columns in rows:
                if octets is None or leaf_hash(octets) != leaf:
                    message = f"entry {seq} stayed when others were archived; its octets hash to another leaf hash"
                    return broken_at(seq, BreakReason.LEAF_HASH_MISMATCH, message)
                entry = orjson.loads(octets)
                if tuple(columns) != projections(entry):
                    name = next(
                        name
                        for name, column, said in zip(PROJECTIONS, columns, projections(entry), strict=True)
                        if column != said
                    )
                    message = f"entry {seq} stayed when others were archived; the column {name} is not what it says"
                    return broken_at(seq, BreakReason.PROJECTION_MISMATCH, message)
                if entry["type"] == "log.archived" and entry["data"]["upto"] <= upto:
                    ranges.append(entry["data"])
                if seq < upto and entry["type"] in STAYING:
                    stayed.append(seq)
    return _complete(ranges, stayed, upto, max(size, upto))


async def check_references(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], origin: str, upto: int
) -> Break | None:
    """Whether what the entries below ``upto`` name is what the last of those that stayed says, which ``check_stayed``
    has found sound; within the caller's transaction."""
    said = await told(connection, origin, upto)
    problem = "" if said is None else await compared(connection, origin, said)
    return broken_at(said.seq, BreakReason.PROJECTION_MISMATCH, problem) if said is not None and problem else None


def _complete(ranges: Sequence[JsonObject], stayed: Sequence[int], upto: int, end: int) -> Break | None:
    joined = 0
    for data in sorted(ranges, key=lambda data: int(data["upto"])):
        if data["first"] != joined:
            message = (
                f"the `log.archived` is missing that tells that entries {joined} to {data['first'] - 1} are archived"
            )
            return broken_at(joined, BreakReason.ENTRY_MISSING, message)
        joined, first = data["upto"], joined
        have = sum(first <= seq < joined for seq in stayed)
        if have != data["staying"]:
            stay = data["staying"]
            message = f"of the entries {first} to {joined - 1} {stay} stayed when they were archived, {have} are there"
            return broken_at(first, BreakReason.ENTRY_MISSING, message)
    if joined != upto:
        message = (
            f"entry {end} is missing: the log ends before the `log.archived` that tells that entries {joined} to "
            f"{upto - 1} are archived; entries were cut off"
        )
        return broken_at(end, BreakReason.ENTRY_MISSING, message)
    return None
