"""The collector: gather what names blobs → decide what may go → say so in the log → remove it.

Order is what makes it safe. The lease first: its time is the one that ages are measured against, so everything stored
from then on is young. Then the marks, then the list. Each removal looks once more at age, holds and use. A collector
that dies anywhere leaves at most garbage, and an entry that names what it meant to remove.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
import structlog

from triplane.audit.model import Recorded
from triplane.domain.collection import (
    Kept,
    Marks,
    Plan,
    Rules,
    StoredBlob,
    digests_in,
    kept_because,
    octets_of,
    plan,
    references_of,
)
from triplane.domain.events import blobs_collected, collection_manifest
from triplane.errors import Archived, InvalidInput, Unavailable
from triplane.ports import CollectorLease, EventLog, GraphStore, KeptContent, SessionStore

log = structlog.get_logger(__name__)

PAGE = 10_000
BATCH = 1_000
"""Blobs between two renewals of the lease, and in one entry of the log."""
LEASE_SECONDS = 300.0
EXAMPLES = 100
"""Condemned blobs that are named in the answer; all of them are in the log's manifest."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one run did."""

    seen: int
    condemned: int
    removed: int
    octets: int
    """Of the removed ones; of a dry run, those that would be."""
    tidied: int
    kept: dict[Kept, int]
    refused: str = ""
    """Why nothing was removed; empty when nothing spoke against it."""
    examples: tuple[str, ...] = ()
    """The first of the condemned."""


class LogReferences:
    """What the log needs, gathered once: later runs read only what was appended since."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._next = -1
        self._found: set[bytes] = set()

    async def gather(self) -> set[bytes]:
        """Everything named by entries up to the head as it is now. About 100 octets of memory each."""
        while page := await self._page():
            if page[0].seq != self._next + 1 or page[-1].seq - page[0].seq != len(page) - 1:
                raise Unavailable(
                    f"the log does not show every entry after {self._next}: what the hidden ones need is not known, so "
                    "nothing is collected. Verify the log"
                )
            self._found.update(references_of(page))
            self._next = page[-1].seq
        return self._found

    async def _page(self) -> list[Recorded]:
        while True:
            try:
                return await self._log.query(after=self._next, limit=PAGE)
            except Archived:  # before this first read of them, or while it was not looking
                archived = await self._log.archived_references()
                self._found |= archived.named
                self._next = max(self._next, archived.upto - 1)


class Collector:
    """Collects from one content store. Keep the object: it remembers how far it has read the log."""

    def __init__(
        self, content: KeptContent, event_log: EventLog, sessions: SessionStore, graph: GraphStore, rules: Rules
    ) -> None:
        self._content = content
        self._log = event_log
        self._sessions = sessions
        self._graph = graph
        self._rules = rules
        self._logged = LogReferences(event_log)

    async def run(self, *, dry: bool = False) -> Collected:
        """One run; a ``dry`` one removes nothing and logs nothing.

        Raises ``Conflict`` when another collector is at work, ``InvalidInput`` when the store is another log's,
        ``Fenced`` when one has taken over, ``Unavailable`` when anything that might name a blob cannot be read: then
        nothing is removed; ``Corrupt`` when what archived entries name was altered.
        """
        async with self._content.lease(LEASE_SECONDS) as lease:
            await self._insist_on_own_store()
            before = lease.began - self._rules.grace
            marks = await self._gather()
            await lease.renew()
            decided, kept = await self._decide(marks, before)
            removed, octets, tidied = 0, 0, 0
            if decided.refused:
                log.warning("collection refused", reason=decided.refused)
            elif not dry:
                for batch in _batches(decided.condemned):
                    gone = await self._remove(batch, lease, before)
                    removed, octets = removed + len(gone), octets + sum(blob.size for blob in gone)
                await lease.renew()
                tidied = await self._content.tidy(before=before)
            else:
                octets = sum(blob.size for blob in decided.condemned)
            return Collected(
                decided.seen,
                len(decided.condemned),
                removed,
                octets,
                tidied,
                kept,
                refused=decided.refused,
                examples=tuple(blob.digest for blob in decided.condemned[:EXAMPLES]),
            )

    async def _insist_on_own_store(self) -> None:
        origin = self._log.origin
        owner = await self._content.owner(origin)
        if owner != origin:
            raise InvalidInput(
                f"the content store belongs to the log {owner or '(unreadable)'}, not to {origin}. What that log needs "
                "is not known here, so nothing is collected: give each installation a store of its own; where the "
                "other is gone for good, remove the store's `owner`"
            )

    async def _gather(self) -> Marks:
        """Holds first and the log last: what is released is named by then, and what is named was stored before."""
        held = await self._content.held()
        found = {octets_of(digest) for digest in await self._sessions.blob_references()}
        found |= await self._in_graph()
        found |= await self._logged.gather()
        return Marks(frozenset(found), held)

    async def _in_graph(self) -> set[bytes]:
        """Specs are blobs, and name others: those of every generation that is kept."""
        found: set[bytes] = set()
        after: tuple[str, int] | None = None
        while page := await self._graph.page_records(after, PAGE):
            for record in page:
                found.update(digests_in(orjson.dumps(record, default=repr)))
            after = (page[-1].uid, page[-1].generation)
        return found

    async def _decide(self, marks: Marks, before: datetime) -> tuple[Plan, dict[Kept, int]]:
        condemned: list[StoredBlob] = []
        kept = dict.fromkeys(Kept, 0)
        seen = 0
        async for blob in self._content.stored():
            seen += 1
            reason = kept_because(blob, marks, before)
            if reason is None:
                condemned.append(blob)
            else:
                kept[reason] += 1
        return plan(tuple(condemned), seen, self._rules), kept

    async def _remove(self, batch: Sequence[StoredBlob], lease: CollectorLease, before: datetime) -> list[StoredBlob]:
        """The entry before the act: what is gone without one is lost, never collected."""
        manifest = collection_manifest(lease.began.isoformat(), [blob.digest for blob in batch])
        await self._content.store(manifest)
        await self._log.append([blobs_collected(manifest, len(batch), sum(blob.size for blob in batch))])
        await lease.renew()
        return [blob for blob in batch if await self._content.collect(blob.digest, before=before)]


def _batches(blobs: Sequence[StoredBlob]) -> list[Sequence[StoredBlob]]:
    return [blobs[start : start + BATCH] for start in range(0, len(blobs), BATCH)]
