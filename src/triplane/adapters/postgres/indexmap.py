"""Where on disk the id index holds which entries, about: a check reads it in the order in which it lies there."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

import psycopg

_SAMPLE_BLOCKS: Final = 8
_FEWEST_BLOCKS: Final = 64
"""A smaller id index is read whole for each chunk."""
_BLOCKS: Final = "SELECT pg_relation_size('log.entry_ids') / current_setting('block_size')::int"
_SAMPLES: Final = """
    SELECT ((i.ctid::text::point)[0])::bigint, i.seq FROM log.entry_ids i
    WHERE i.ctid = ANY (ARRAY(SELECT format('(%%s,1)', b)::tid FROM generate_series(0, %s, %s) b)) ORDER BY 1"""


@dataclass(frozen=True, slots=True)
class IndexMap:
    """Samples of the id index, which is filled as the log is: in which block which entry's row was seen. Only a hint:
    a row that is elsewhere is looked up."""

    at: tuple[int, ...]
    seqs: tuple[int, ...]

    def blocks(self, first: int, end: int) -> tuple[int, int] | None:
        """Where rows of ``first`` to ``end - 1`` are expected; None where nothing is known."""
        if not self.at:
            return None
        low = max(bisect_left(self.seqs, first) - 2, 0)
        high = bisect_left(self.seqs, end) + 2
        return self.at[low], self.at[high] if high < len(self.at) else 2**32 - 1


async def index_map(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> IndexMap:
    """The map as of now; one that knows nothing for a small index. Raises what psycopg raises."""
    (blocks,) = await (await connection.execute(_BLOCKS, binary=True)).fetchone() or (0,)
    if blocks < _FEWEST_BLOCKS:
        return IndexMap((), ())
    cursor = await connection.execute(_SAMPLES, (blocks - 1, _SAMPLE_BLOCKS), binary=True)
    samples = await cursor.fetchall()
    return IndexMap(tuple(block for block, _ in samples), tuple(seq for _, seq in samples))
