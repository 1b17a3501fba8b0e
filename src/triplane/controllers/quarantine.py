"""What lies in quarantine and no entry tells of: whoever moved it aside could not append, or died before it did."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from triplane.audit.model import EventFilter
from triplane.domain.events import blob_quarantined, blob_uid
from triplane.ports import EventLog, KeptContent

MOST: Final = 10_000
_QUARANTINED: Final = frozenset({"blob.quarantined"})


async def unlogged(content: KeptContent, log: EventLog) -> Mapping[str, range]:
    """By digest, which ``n`` of ``blob.quarantined`` are lacking: more lies there than entries tell of. What an admin
    took away from quarantine leaves entries, and is not missed. Raises ``Unavailable``."""
    lying = Counter([digest async for digest in content.quarantined()])
    found: dict[str, range] = {}
    for digest, count in sorted(lying.items()):
        told = len(await log.query(EventFilter(types=_QUARANTINED, uid=blob_uid(digest)), limit=MOST))
        if told < count:
            found[digest] = range(told + 1, count + 1)
    return found


async def report_quarantined(content: KeptContent, log: EventLog) -> tuple[str, ...]:
    """Log them; their digests. Several may do it at once: they append the same. Raises ``Unavailable``, ``Fenced``."""
    lacking = await unlogged(content, log)
    await log.append([blob_quarantined(digest, n) for digest, numbers in lacking.items() for n in numbers])
    return tuple(lacking)
