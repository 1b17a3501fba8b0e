"""Keeps the graph store the projection of the log that it is: at every append, and after every crash.

Appending and applying are two steps. What a crash, or a store that was away, leaves between them is made up for by
``GraphProjector``, which follows the log with a durable cursor and applies what is not there yet.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from triplane.audit.model import EventBody, EventFilter, JsonObject, Receipt, Recorded
from triplane.controllers.context import Context
from triplane.domain.projection import GONE, OBSERVED, PROJECTED, LogEntry, documents_of, project
from triplane.domain.resourcegraph import GraphChange
from triplane.errors import BlobMissing, Corrupt, TriplaneError
from triplane.ports import EventLog, GraphStore
from triplane.ports.forwardedlog import ForwardedLog

log = structlog.get_logger(__name__)

CURSOR = "graph"
PAGE = 1000
LOADS = 16
"""Documents fetched at a time."""


class ProjectedLog(ForwardedLog):
    """An ``EventLog`` whose appends show in the graph at once. What was observed the ``Observer`` applies itself: it
    has the documents."""

    def __init__(self, inner: EventLog, graph: GraphStore) -> None:
        super().__init__(inner)
        self._graph = graph
        self.behind = False
        """Something was appended that the graph did not take: the ``GraphProjector`` must make up for it."""

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``. When the graph store is away this raises and the entries stand; appending again
        does no harm, and the ``GraphProjector`` comes by."""
        receipts = await self._inner.append(bodies)
        entries = [
            LogEntry.of_body(body, receipt.seq)
            for body, receipt in zip(bodies, receipts, strict=True)
            if body.type in PROJECTED and body.type not in (OBSERVED, GONE)
        ]
        if change := GraphChange.merged(project(entry, {}) for entry in entries):
            try:
                await self._graph.apply(change)
            except TriplaneError:
                self.behind = True
                raise
        return receipts


class GraphProjector:
    """Applies what the log says of the graph and the graph does not show yet."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def catch_up(self) -> int:
        """Bring the graph up to the head of the log; returns how many entries were looked at. Costs one read when
        nothing was appended. Raises ``Unavailable``; what was done stays done."""
        context = self._context
        seen = after = await context.sessions.cursor(CURSOR)
        size, _ = await context.log.head()
        looked = 0
        while after < size - 1:
            page = await context.log.query(EventFilter(types=PROJECTED), after=after, limit=PAGE)
            await self._apply(page)
            looked += len(page)
            # A page that is not full reaches the head there was before it was read, of other types what it may.
            after = page[-1].seq if len(page) == PAGE else max(size - 1, page[-1].seq if page else -1)
            await context.sessions.set_cursor(CURSOR, after)
        if looked and seen >= 0:
            log.debug("the graph has caught up", entries=looked, to=after)
        return looked

    async def _apply(self, page: Sequence[Recorded]) -> None:
        entries = [LogEntry.of_recorded(recorded) for recorded in page]
        observed = {(entry.subject.uid, entry.subject.generation) for entry in entries if entry.type == OBSERVED}
        present = await self._context.graph.present(observed) if observed else frozenset()
        # A generation comes with its edges, or not at all: what is there needs no documents.
        missing = [
            entry
            for entry in entries
            if entry.type != OBSERVED or (entry.subject.uid, entry.subject.generation) not in present
        ]
        documents = await self._load({digest for entry in missing for digest in documents_of(entry)})
        changes = []
        for entry in missing:
            if all(digest in documents for digest in documents_of(entry)):
                changes.append(project(entry, documents))
            else:
                log.warning("a generation cannot be kept: its document is no longer stored", entry=entry.id)
        if change := GraphChange.merged(changes):
            await self._context.graph.apply(change)

    async def _load(self, digests: set[str]) -> dict[str, JsonObject]:
        gate = asyncio.Semaphore(LOADS)

        async def load(digest: str) -> tuple[str, Any]:
            async with gate:
                try:
                    return digest, await self._context.load_json(digest)
                except (BlobMissing, Corrupt):
                    return digest, None

        found = await asyncio.gather(*(load(digest) for digest in sorted(digests)))
        return {digest: document for digest, document in found if isinstance(document, dict)}
