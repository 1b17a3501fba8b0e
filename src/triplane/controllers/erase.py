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

    Every put renews the time of storing: what was stored after the erasure was put again, and stays; what was stored
    shortly before it might have been, and stays too. A hold delays it: the next call ends it.
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
        if said_at is None or blob.stored_at >= said_at - STORED_LATELY:
            continue
        owners = await sessions.disown_blob(blob.digest)  # first: what is gone and owned would pass for lost
        if await content.collect(blob.digest, before=said_at - STORED_LATELY):
            ended += 1
            continue
        if owners and await content.exists(blob.digest):  # else another process has ended it
            for namespace in owners:  # held, or put again since it was listed: then one of them may be its new owner
                await sessions.own_blob(namespace, blob.digest)
    return ended
