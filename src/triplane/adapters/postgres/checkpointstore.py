"""Published checkpoints and kept subtrees in Postgres: a copy for readers, beside the log they are of.

Whoever owns the database can change all of it. A checkpoint is therefore believed for its signatures, and a hash for
the signed root it leads to, by whoever reads them.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from triplane.adapters.postgres.connection import Pool, translated
from triplane.audit.checkpoint import add_signatures, parse_checkpoint
from triplane.audit.merkle import HASH_OCTETS, Node
from triplane.audit.note import parse_note
from triplane.audit.notekey import NoteFault, refuse
from triplane.audit.subtrees import check_committed, check_kept, folded, row_of
from triplane.audit.tiles import split_hashes
from triplane.errors import Conflict, Corrupt, InvalidInput, Unavailable

LARGEST_PAGE = 10_000
CONTRADICTED = "TP005"
_TRIES = 3
"""Others that add signatures at the same time come between reading and writing so often at most."""

_LATEST = "SELECT note FROM log.checkpoints WHERE origin = %s ORDER BY size DESC LIMIT 1"
_AT = "SELECT note FROM log.checkpoints WHERE origin = %s AND size = %s"
_PUBLISHED = "SELECT size, note FROM log.checkpoints WHERE origin = %s AND size > %s ORDER BY size LIMIT %s"
_PUBLISH = "SELECT log.log_publish(%s, %s, %s, %s)"
_KEEP = "SELECT log.log_keep_subtrees(%s, %s::smallint[], %s::bigint[], %s::bytea[])"
# One snapshot: the log's size, and for each row its hashes one after another. OFFSET 0: see eventlog._GET.
_HASHES = """
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(%(levels)s::int[], %(firsts)s::bigint[], %(counts)s::bigint[])
            WITH ORDINALITY AS w(level, first, count, place))
    SELECT 0 AS place, h.size, ''::bytea AS hashes FROM log.heads h WHERE h.origin = %(origin)s
    UNION ALL
    SELECT w.place, 0, string_agg(e.leaf, ''::bytea ORDER BY e.seq) FROM wanted w CROSS JOIN LATERAL (
        SELECT seq, leaf FROM log.entries
        WHERE origin = %(origin)s AND seq >= w.first AND seq < w.first + w.count
        UNION SELECT seq, leaf FROM log.archived_entries -- where both are, its removal is still to come
        WHERE origin = %(origin)s AND seq >= w.first AND seq < w.first + w.count OFFSET 0) e
    WHERE w.level = 0 GROUP BY w.place
    UNION ALL
    SELECT w.place, 0, string_agg(s.hash, ''::bytea ORDER BY s.index) FROM wanted w CROSS JOIN LATERAL (
        SELECT index, hash FROM log.subtrees
        WHERE origin = %(origin)s AND level = w.level AND index >= w.first AND index < w.first + w.count OFFSET 0) s
    WHERE w.level > 0 GROUP BY w.place"""


class PostgresCheckpointStore:
    """``CheckpointStore`` on Postgres, for the log of this origin; ``pool`` belongs to the caller."""

    def __init__(self, pool: Pool, origin: str) -> None:
        self._pool = pool
        self._origin = origin

    async def latest(self) -> bytes | None:
        """See ``CheckpointStore.latest``."""
        rows = await self._rows("read the latest checkpoint", _LATEST, (self._origin,))
        return rows[0][0] if rows else None

    async def at(self, size: int) -> bytes | None:
        """See ``CheckpointStore.at``."""
        rows = await self._rows("read a checkpoint", _AT, (self._origin, size))
        return rows[0][0] if rows else None

    async def published(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, bytes]]:
        """See ``CheckpointStore.published``."""
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(f"limit {limit} is not from 1 to {LARGEST_PAGE}: page with `after`")
        rows = await self._rows("read checkpoints", _PUBLISHED, (self._origin, after, limit))
        return [(size, note) for size, note in rows]

    async def publish(self, note: bytes) -> None:
        """See ``CheckpointStore.publish``."""
        checkpoint, _ = parse_checkpoint(note)
        if checkpoint.origin != self._origin:
            refuse(NoteFault.OTHER_ORIGIN, f"the checkpoint is of {checkpoint.origin[:200]!r}, not of {self._origin}")
        for _ in range(_TRIES):
            held = await self.at(checkpoint.size)
            offered = note
            if held is not None and parse_note(held).text == parse_note(note).text:
                offered = add_signatures(held, [item.line for item in parse_note(note).signatures])
            try:
                values = (self._origin, checkpoint.size, checkpoint.root, offered)
                await self._rows("publish a checkpoint", _PUBLISH, values)
            except Conflict:
                if await self.at(checkpoint.size) == held:
                    raise
            else:
                return
        raise Unavailable(f"others kept signing the checkpoint of {checkpoint.size} entries: publish it again")

    async def hashes(self, nodes: Sequence[Node]) -> Sequence[bytes]:
        """See ``CheckpointStore.hashes``: one round trip, at most 128 hashes for each node."""
        rows = [row_of(node) for node in nodes]
        values = {
            "origin": self._origin,
            "levels": [row.level for row in rows],
            "firsts": [row.first for row in rows],
            "counts": [row.count for row in rows],
        }
        found = await self._rows("read hashes of the tree", _HASHES, values)
        octets = {place: hashes for place, _, hashes in found}
        if 0 not in octets:
            raise Corrupt(f"the head row of {self._origin} is gone: verify the log, restore it from a backup")
        check_committed(nodes, next(size for place, size, _ in found if place == 0))
        answer = []
        for place, row in enumerate(rows, 1):
            hashes = octets.get(place) or b""
            if len(hashes) != row.count * HASH_OCTETS:
                kept = "entries" if row.level == 0 else f"subtrees of {1 << row.level} entries"
                raise Corrupt(
                    f"{self._origin}: of the {row.count} {kept} from {row.first} on, "
                    f"{len(hashes) // HASH_OCTETS} hashes are kept: run `triplane log verify`, which says what to do"
                )
            answer.append(folded(split_hashes(hashes)))
        return answer

    async def keep(self, hashes: Sequence[tuple[Node, bytes]]) -> None:
        """See ``CheckpointStore.keep``."""
        check_kept(hashes)
        if hashes:
            levels, indexes = [node.level for node, _ in hashes], [node.index for node, _ in hashes]
            values = (self._origin, levels, indexes, [hash_ for _, hash_ in hashes])
            await self._rows("keep hashes of the tree", _KEEP, values)

    async def _rows(self, action: str, statement: LiteralString, values: Any) -> list[tuple[Any, ...]]:
        try:
            with translated(action):
                async with self._pool.connection() as connection:
                    cursor = await connection.execute(statement, values, binary=True)
                    return await cursor.fetchall()
        except psycopg.Error as error:
            if error.sqlstate == CONTRADICTED:
                raise Conflict(f"could not {action}: {str(error).splitlines()[0]}") from error
            raise
