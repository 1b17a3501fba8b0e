"""Which log does the database hold? What is current says its head row; what else there is of a log, when that is gone.

A database without a current head row is empty only if nothing of any log is in it. Whoever took it for empty otherwise
would begin a new log in the place of one whose head was deleted, and that one would verify.
"""

from collections.abc import Sequence
from typing import Final

from triplane.errors import Corrupt

HELD: Final = """
    SELECT (SELECT origin FROM log.heads WHERE current),
        coalesce((SELECT origin FROM log.heads LIMIT 1), (SELECT origin FROM log.entries LIMIT 1),
            (SELECT origin FROM log.archives LIMIT 1), (SELECT origin FROM log.checkpoints LIMIT 1))"""
"""The current origin, and one of which anything is there."""


def current_origin(rows: Sequence[Sequence[str | None]]) -> str | None:
    """The current origin, of what ``HELD`` finds; None when there is no log. Raises ``Corrupt`` when there is one
    without its head."""
    ((current, other),) = rows
    if current is None and other is not None:
        raise Corrupt(
            f"the head row of the log {other} is gone, or is no longer the current one, though the log is there "
            "(log.entries, log.archives or log.checkpoints): no new log is begun in its place. Keep this database as "
            "evidence, and restore from a backup"
        )
    return current
