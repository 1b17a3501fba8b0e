"""What archived entries name, held against what the log says of it.

The rows are no entries, and no tree holds them. So each ``log.archived`` has their number and the SHA-256 over all of
them, ascending: 32 octets of the digest, then one, 1 where an entry needs it as a blob. An earlier version wrote
neither: then it is not known what archived entries name, also after later ones were archived.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, Self

import orjson
import psycopg

from triplane.audit.merkle import leaf_hash
from triplane.domain.collection import ArchivedReferences, ReferencesFacts
from triplane.errors import Corrupt

ROWS: Final[LiteralString] = (
    "SELECT digest, needed FROM log.archived_references WHERE origin = %s ORDER BY digest, needed"
)
AT_ONCE: Final = 20_000
# By the index over UIDs: the subject is the origin.
TOLD: Final[LiteralString] = """
    SELECT e.seq, e.octets, coalesce(a.leaf, e.leaf)
    FROM log.entries e LEFT JOIN log.archived_entries a ON a.origin = e.origin AND a.seq = e.seq
    WHERE e.origin = %s AND e.uid = %s AND e.type = 'log.archived' AND e.seq >= %s ORDER BY e.seq DESC LIMIT 1"""
UPTO: Final[LiteralString] = "SELECT coalesce(max(upto_seq), 0) FROM log.archives WHERE origin = %s"

Row = tuple[bytes, bool]
Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Counted:
    """How many rows, and their hash, as they pass by."""

    def __init__(self) -> None:
        self._count = 0
        self._hash = hashlib.sha256()

    @property
    def facts(self) -> ReferencesFacts:
        """Of all that passed by."""
        return ReferencesFacts(self._count, self._hash.hexdigest())

    def add(self, page: Sequence[Row]) -> Self:
        """Those that come next."""
        self._count += len(page)
        self._hash.update(b"".join(digest + bytes([needed]) for digest, needed in page))
        return self


@dataclass(frozen=True, slots=True)
class Told:
    """What entry ``seq`` says of the rows."""

    seq: int
    facts: ReferencesFacts

    def problem(self, found: ReferencesFacts) -> str:
        """What is wrong with those that were found; empty when they are what they were."""
        if found == self.facts:
            return ""
        said = f"entry {self.seq} says" if self.seq >= 0 else "nothing is archived:"
        return (
            f"log.archived_references was altered: it has {found.count} rows with hash {found.hash}, {said} "
            f"{self.facts.count} with hash {self.facts.hash}"
        )


def told_values(origin: str, upto: int) -> tuple[str, str, int]:
    """The values of ``TOLD``."""
    return origin, origin.partition("/")[2], upto


def told_in(row: Sequence[Any] | None, upto: int) -> Told | None:
    """What the newest ``log.archived`` says; None when nothing does. Raises ``Corrupt`` when the entry was altered."""
    if upto == 0:
        return Told(-1, Counted().facts)
    if row is None:
        return None
    seq, octets, leaf = row
    if leaf_hash(octets) != leaf:
        raise Corrupt(f"entry {seq}, which says what is archived, was altered: run `triplane log verify`")
    data = orjson.loads(octets)["data"]
    if data["upto"] != upto or "referencesHash" not in data:
        return None
    return Told(seq, ReferencesFacts(data["references"], data["referencesHash"]))


def refuse_altered(problem: str) -> None:
    """Raises ``Corrupt`` for a problem."""
    if problem:
        raise Corrupt(
            f"{problem}. Nothing is collected, backed up or archived by it: `triplane log verify --archive DIR` names "
            "what is missing; keep this database as evidence, and restore the table from a backup"
        )


async def told(connection: Connection, origin: str, upto: int) -> Told | None:
    """What the log says of the rows for this boundary. Raises as ``told_in``."""
    cursor = await connection.execute(TOLD, told_values(origin, upto), binary=True)
    return told_in(await cursor.fetchone(), upto)


async def compared(
    connection: Connection, origin: str, said: Told, take: Callable[[Sequence[Row]], None] = lambda _: None
) -> str:
    """Read all rows, and the problem with them (``Told.problem``); within the caller's transaction. ``take`` is given
    each page before it is known whether they are right."""
    found = Counted()
    async with connection.cursor("archived_references", binary=True) as cursor:
        await cursor.execute(ROWS, (origin,))
        while page := await cursor.fetchmany(AT_ONCE):
            take([(row[0], row[1]) for row in page])
            found.add([(row[0], row[1]) for row in page])
    return said.problem(found.facts)


async def read(connection: Connection, origin: str) -> ArchivedReferences | None:
    """All of it, in a snapshot of its own; None when it is not known. Raises ``Corrupt`` when it was altered."""
    # A second look: in a snapshot older than the end of an archiving, nothing is in a partition that was replaced.
    return await _read(connection, origin) or await _read(connection, origin)


async def _read(connection: Connection, origin: str) -> ArchivedReferences | None:
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return await read_within(connection, origin)


async def read_within(connection: Connection, origin: str) -> ArchivedReferences | None:
    """As ``read``, within the caller's snapshot."""
    row = await (await connection.execute(UPTO, (origin,))).fetchone()
    upto = 0 if row is None else int(row[0])
    if (said := await told(connection, origin, upto)) is None:
        return None
    named: set[bytes] = set()
    needed: set[bytes] = set()

    def take(page: Sequence[Row]) -> None:
        named.update(digest for digest, _ in page)
        needed.update(digest for digest, is_needed in page if is_needed)

    refuse_altered(await compared(connection, origin, said, take))
    return ArchivedReferences(upto, frozenset(named), frozenset(needed))
