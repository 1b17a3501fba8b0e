"""Erasure: said in the log first, then done. What a crash leaves between the two is ended by the next collection.

Holds do not bar it: they are against the collector.
"""

from datetime import datetime, timedelta
from typing import Final

from triplane.audit.model import EventFilter
from triplane.domain.events import blob_erased, blob_uid
from triplane.ports import EventLog, KeptContent, SessionStore

PAGE: Final = 1000
STORED_LATELY: Final = timedelta(minutes=15)
"""Longer than any store is late in noting that content was stored again (``KeptContent.stored``)."""
_ERASED: Final = frozenset({"blob.erased"})


async def erase(content: KeptContent, log: EventLog, sessions: SessionStore, digest: str) -> None:
    """Erase a blob: durable when this returns. Raises ``BlobMissing`` when there is none, and ``Unavailable``: the log
    may tell of it by then, so repeat it."""
    await content.size(digest)
    earlier = await log.query(EventFilter(types=_ERASED, uid=blob_uid(digest)), limit=10_000)
    await log.append([blob_erased(digest, 1 + len(earlier))])
    await sessions.disown_blob(digest)
    await content.delete(digest)


async def end_erasures(content: KeptContent, log: EventLog, sessions: SessionStore) -> int:
    """Remove what the log says was erased, and is still there as it was then; returns how many.

    What belongs to a namespace was put again since, and so was what was stored after the erasure; what was stored
    shortly before it might have been, and stays. A hold delays it: the next call ends it.
    """
    times: dict[str, datetime] = {}
    after = -1
    while page := await log.query(EventFilter(types=_ERASED), after=after, limit=PAGE):
        for recorded in page:
            said = datetime.fromisoformat(recorded.entry["time"])
            digest = recorded.entry["data"]["digest"]
            times[digest] = max(said, times.get(digest, said))
        after = page[-1].seq
    if not times:
        return 0
    ended = 0
    async for blob in content.stored():
        said_at = times.get(blob.digest)
        if said_at is None or blob.stored_at >= said_at - STORED_LATELY or await sessions.blob_owned(blob.digest):
            continue
        ended += await content.collect(blob.digest, before=said_at - STORED_LATELY)
    return ended
