"""Is the head row that of the last entry? Whoever continues the log takes size, leaf hash and time from that row.

The time matters as much as the hash: an entry is never earlier than the head, so behind a head of the year 2099 all
entries would be of 2099, each of them signed, and for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from triplane.errors import Corrupt

LAST_ENTRY: Final = "SELECT leaf, time FROM log.entries WHERE origin = %s AND seq = %s"
"""For the number before the head's size, in a statement after the one that took the head row: what is committed then is
the last entry. It is never an archived one: ``log.archived`` stands behind those."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends."""

    size: int
    leaf: bytes
    time: str


def check_end(origin: str, head: Head, last: Sequence[Any] | None) -> None:
    """Raise ``Corrupt`` unless the head is that of ``last``, a row of ``LAST_ENTRY``. An empty log has none."""
    if head.size == 0 or last == (head.leaf, head.time):
        return
    found = "it is missing" if last is None else f"it has leaf {bytes(last[0] or b'').hex()} and time {last[1]!r}"
    raise Corrupt(
        f"the head row of {origin} says that entry {head.size - 1} is the last, with leaf {head.leaf.hex()} and time "
        f"{head.time!r}, but {found}: nothing is appended; run `triplane log verify`, restore what was changed"
    )
