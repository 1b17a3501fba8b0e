"""Which entry of the log a question about the past is meant of: its sequence number, or a time."""

import re
from datetime import datetime
from typing import Annotated, Final

from fastapi import Query

from triplane.domain.asrun import moment
from triplane.errors import InvalidInput
from triplane.gateway.state import Gateway

AsOf = Annotated[str | None, Query(alias="asOf")]
"""A sequence number, a day or a time (RFC 3339)."""
_NUMBER: Final = re.compile(r"\d{1,18}")


async def sequence(gateway: Gateway, as_of: str | None) -> int | None:
    """The entry that is meant: the one of this number, or the last one recorded up to this time (-1: there was none).
    None when nothing is said: now.

    Raises ``InvalidInput`` when there is no such entry yet.
    """
    if as_of is None:
        return None
    size, _ = await gateway.backends.log.head()
    if _NUMBER.fullmatch(as_of):
        if int(as_of) >= size:
            raise InvalidInput(f"there is no entry {as_of} yet: the log ends with entry {size - 1}")
        return int(as_of)
    return await _last_before(gateway, moment(as_of), size)


async def _last_before(gateway: Gateway, until: datetime, size: int) -> int:
    """By halves: the times of a log never go back. Archived entries count: what the graph was then is still kept."""
    low, high = -1, size - 1
    while low < high:
        middle = (low + high + 1) // 2
        if moment(await gateway.backends.log.time_at(middle)) <= until:
            low = middle
        else:
            high = middle - 1
    return low
