"""One part of ``verify_chain``: a few thousand entries, read and checked.

Only octets are believed, and only as far as they hash and parse: leaf hash, ``seq``, the columns beside them and the id
index are all recomputed from them and compared. The id index is read in the order in which it lies on disk, which is
about that of the entries; what is not found that way is looked up by id.

Nothing here says what is wrong: a part that is not sound is read again by ``sweep``, which names entry and reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict

from triplane.adapters.postgres.connection import CONNECT_SECONDS, translated
from triplane.audit.chain import projections
from triplane.audit.entry import open_entry
from triplane.audit.scan import Scanned, scanner
from triplane.audit.verifying import Segment, segment_of
from triplane.errors import InvalidEntry

Connection = psycopg.Connection[tuple[Any, ...]]
Pointer = tuple[str, int, bytes]
"""A row of the id index: id, seq, SHA-256 of the body."""

# One text for all columns: no value of the format holds a line feed, so that none can hide in its neighbour.
_ENTRIES: Final = """
    SELECT seq, leaf, octets, concat_ws(E'\\n', id, stream, type, time, actor, kind, namespace, name, uid)
    FROM log.entries WHERE origin = %s AND seq >= %s AND seq < %s ORDER BY seq"""
_INDEX: Final = "SELECT id, seq, body_sha256 FROM log.entry_ids WHERE origin = %s AND seq >= %s AND seq < %s"
_BLOCKS: Final = " AND ctid >= %s::tid AND ctid < %s::tid"
LOOK_UP: Final = "SELECT id, seq, body_sha256 FROM log.entry_ids WHERE origin = %s AND id = ANY (%s)"
_LOOK_UP_AT_ONCE: Final = 1000
_LEAF_HASH: Final = sha256(b"\x00")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Which entries to check, and what to bring back of them."""

    first: int
    end: int
    blocks: tuple[int, int] | None
    """Where on disk the id index is expected to hold them: first block, and the one behind the last."""
    wanted: frozenset[int]
    """Tiles whose leaf hashes are needed."""
    tree: bool
    """Whether ``first`` is at a tile's edge and hashes of the tree are wanted."""


class Checker:
    """Checks chunks of one origin over one connection. Not for two threads at once. Raises ``Unavailable``."""

    def __init__(self, conninfo: str, origin: str) -> None:
        self._origin = origin
        self._scan = scanner(origin)
        with translated("verify the log"):
            self._connection: Connection = psycopg.connect(
                conninfo,
                autocommit=True,
                application_name="triplane verify",
                connect_timeout=CONNECT_SECONDS,
                # A caller may have a role of its own. A thread that waits for a lock could not be told to stop.
                options=f"{conninfo_to_dict(conninfo).get('options') or ''} -c jit=off -c lock_timeout=10s",
            )

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def check(self, chunk: Chunk) -> Segment | None:
        """The segment that these entries are; None when anything about them is not as it must be."""
        with translated("verify the log"):
            return self._check(chunk)

    def _check(self, chunk: Chunk) -> Segment | None:
        span = (self._origin, chunk.first, chunk.end)
        index = set(self._index(chunk, span))
        scan, origin, start = self._scan, self._origin, _LEAF_HASH.copy
        leaves: list[bytes] = []
        missed: list[Pointer] = []
        before = begun = prev = time = b""
        number = chunk.first
        for seq, stored, octets, columns in self._connection.execute(_ENTRIES, span, binary=True).fetchall():
            if octets is None:  # whoever owns the table can allow it
                return None
            hashed = start()
            hashed.update(octets)
            leaf = hashed.digest()
            found = scan(octets) or _opened(octets, origin)
            if found is None or leaf != stored or seq != number:
                return None
            named, numbered, at, texts, body = found
            if leaves:
                if named != prev:
                    return None
            else:
                before, begun = named, at
            if numbered != b"%d" % number or at < time or columns.encode() != b"\n".join(texts):
                return None
            pointer = (texts[0].decode(), number, body)
            if pointer not in index:
                missed.append(pointer)
            leaves.append(leaf)
            prev, time = leaf.hex().encode(), at
            number += 1
        if number != chunk.end or not self._are_indexed(missed):
            return None
        edges = (chunk.first, before.decode(), begun.decode(), time.decode())
        return segment_of(leaves, chunk.wanted, edges, tree=chunk.tree)

    def _index(self, chunk: Chunk, span: tuple[str, int, int]) -> list[Pointer]:
        statement: LiteralString = _INDEX
        values: tuple[Any, ...] = span
        if chunk.blocks is not None:
            statement += _BLOCKS
            values += tuple(f"({block},0)" for block in chunk.blocks)
        return self._connection.execute(statement, values, binary=True).fetchall()

    def _are_indexed(self, missed: Sequence[Pointer]) -> bool:
        for at in range(0, len(missed), _LOOK_UP_AT_ONCE):
            part = missed[at : at + _LOOK_UP_AT_ONCE]
            cursor = self._connection.execute(LOOK_UP, (self._origin, [one[0] for one in part]), binary=True)
            if set(cursor) != set(part):
                return False
        return True


def _opened(octets: bytes, origin: str) -> Scanned | None:
    """What a scan gives, the long way."""
    try:
        opened = open_entry(octets)
    except InvalidEntry:
        return None
    entry = opened.entry
    if entry["origin"] != origin:
        return None
    texts = tuple(text.encode() for text in projections(entry))
    return entry["prev"].encode(), b"%d" % entry["seq"], texts[3], texts, opened.body_sha256
