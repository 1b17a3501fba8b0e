"""Appending by the log's owner, in a transaction that does more than append: the first entries of a log, and the entry
about an archive. A few entries, written with psycopg's own means."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from triplane.audit.entry import Prepared, chain_leaves

_ROW = "ROW({})::log.new_entry"
_APPEND = "SELECT log.log_append(%s, %s, %s, %s, %s, ARRAY[{}], %s)"


def append_within(
    connection: psycopg.Connection[Any],
    origin: str,
    entries: Sequence[Prepared],
    *,
    size: int,
    leaf: bytes,
    time: str,
    writer: str = "migrate",
    epoch: int = 0,
) -> bool:
    """Append behind ``size`` entries that end in ``leaf``, all at ``time``; False when the log does not. Nothing is
    committed here. Raises what psycopg raises."""
    rows = [
        (
            *entry.context,
            *(entry.id, entry.name, entry.uid, entry.generation, entry.blobs, entry.data.decode(), entry.body_sha256),
        )
        for entry in entries
    ]
    values = [item for row in rows for item in row]
    row = sql.SQL(_ROW).format(sql.SQL(", ").join([sql.Placeholder()] * len(rows[0])))
    statement = sql.SQL(_APPEND).format(sql.SQL(", ").join([row] * len(rows)))
    leaves = chain_leaves(entries, size, leaf, time)
    cursor = connection.execute(statement, (origin, writer, epoch, size, time, *values, leaves))
    return cursor.fetchone() == (True,)
