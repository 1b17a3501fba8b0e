"""Walks the resource graph around a thing, as far as the reader may see, and tells of it line by line.

While it walks it holds a connection of the store. So it walks at the reader's pace only as long as the reader keeps
one: who does not take a line for some seconds, or takes minutes in all, is cut off, and the connection is another's.
What is cut off has no last line.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from triplane.domain.provenance import (
    Way,
    edge_document,
    inward_kinds,
    is_digest,
    node_document,
    outward_kinds,
    shows,
)
from triplane.domain.resourcegraph import NO_KIND
from triplane.errors import TriplaneError
from triplane.gateway.state import Gateway
from triplane.ports import GraphReader, Hop, ResourceRecord, Route

log = structlog.get_logger(__name__)

MAX_NODES: Final = 1_000_000
MAX_DEPTH: Final = 100_000
PATIENCE_SECONDS: Final = 10.0
"""How long a reader may take for what is at hand."""
LONGEST_SECONDS: Final = 300.0
_TOGETHER: Final = 200
"""Hops looked up, and sent, at a time."""
_AHEAD: Final = 2
"""Chunks made before the reader takes the first."""
_REVIEWS: Final = frozenset({"reviews"})


@dataclass(frozen=True, slots=True)
class Walk:
    """What is asked for."""

    subject: str
    way: Way
    depth: int
    limit: int
    namespaces: frozenset[str]
    """Of the things that may be met."""
    as_of: int | None

    def route(self, way: Way) -> Route:
        """One way. Who judged a thing belongs to where it came from, though it came later."""
        return Route(
            outward_kinds(way),
            inward_kinds(way),
            _REVIEWS if way is Way.UP else NO_KIND,
            self.namespaces,
            self.depth,
            self.limit + 1,  # whether there is more shows when one more is met
            every=True,
        )


def streamed(gateway: Gateway, graph: GraphReader, walk: Walk, turn: ExitStack) -> AsyncIterator[bytes]:
    """The lines, in chunks. The turn ends with the walk."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)
    walking = asyncio.create_task(_walking(gateway, graph, walk, queue))
    walking.add_done_callback(lambda _: turn.close())
    return _taken(queue, walking)


async def _walking(gateway: Gateway, graph: GraphReader, walk: Walk, queue: asyncio.Queue[bytes]) -> None:
    """Puts the chunks where the reader takes them."""
    stopping = asyncio.ensure_future(gateway.stopping.wait())
    try:
        async with asyncio.timeout(LONGEST_SECONDS), aclosing(_chunks(graph, walk)) as chunks:
            async for chunk in chunks:
                putting = asyncio.ensure_future(queue.put(chunk))
                done, _ = await asyncio.wait(
                    {putting, stopping}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if putting not in done:
                    putting.cancel()
                    log.info("a reader of a lineage was cut off", subject=walk.subject, stopping=bool(done))
                    return
    except TimeoutError:
        log.info("a reader of a lineage was cut off after all the time it may take", subject=walk.subject)
    except TriplaneError as error:
        log.warning("a lineage broke off", subject=walk.subject, error=str(error))
    finally:
        stopping.cancel()


async def _taken(queue: asyncio.Queue[bytes], walking: asyncio.Task[None]) -> AsyncIterator[bytes]:
    try:
        while True:
            taking = asyncio.ensure_future(queue.get())
            try:
                await asyncio.wait({taking, walking}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done() and queue.empty():
                    return
                chunk = await taking
            finally:
                taking.cancel()
            yield chunk
    finally:
        walking.cancel()


async def _chunks(graph: GraphReader, walk: Walk) -> AsyncGenerator[bytes, None]:
    """Every line, a few hundred at a time."""
    start = None if is_digest(walk.subject) else await graph.get(walk.subject)
    said = {"start": [walk.subject], "way": walk.way.value, "depth": walk.depth, "asOf": walk.as_of}
    yield _lines([{"walk": said}, {"node": node_document(walk.subject, 0, start)}])
    nodes, truncated = 1, False
    for way in (Way.UP, Way.DOWN):
        if walk.way not in (way, Way.BOTH):
            continue
        telling = _Telling(graph, walk, way)
        async with aclosing(graph.traverse(walk.subject, walk.route(way))) as hops:  # type: ignore[type-var]
            together: list[Hop] = []
            async for hop in hops:
                together.append(hop)
                if len(together) == _TOGETHER:
                    yield _lines(await telling.told(together))
                    together = []
            yield _lines(await telling.told(together))
        nodes += telling.nodes
        truncated = truncated or telling.cut is not None
    yield _lines([{"end": {"nodes": nodes, "truncated": truncated}}])


class _Telling:
    """What one way tells of: each end with the edge that leads to it, then the other edges."""

    def __init__(self, graph: GraphReader, walk: Walk, way: Way) -> None:
        self._graph = graph
        self._limit = walk.limit
        self._sign = -1 if way is Way.UP else 1
        self.nodes = 0
        self.cut: str | None = None
        """The end that was one too many."""

    async def told(self, hops: Sequence[Hop]) -> list[dict[str, Any]]:
        ends = {hop.id for hop in hops if not hop.again} | {hop.via.target for hop in hops if hop.via.kind == "owns"}
        records = await self._graph.get_many([end for end in ends if not is_digest(end)]) if ends else {}
        return [line for hop in hops for line in self._of(hop, records)]

    def _of(self, hop: Hop, records: Mapping[str, ResourceRecord]) -> list[dict[str, Any]]:
        if not hop.again and self.nodes == self._limit:
            self.cut = hop.id
        if self.cut is not None and self.cut in (hop.id, hop.via.source, hop.via.target):
            return []
        lines: list[dict[str, Any]] = []
        if not hop.again:
            self.nodes += 1
            lines.append({"node": node_document(hop.id, self._sign * hop.depth, records.get(hop.id))})
        if shows(hop.via, records.get(hop.via.target)):
            lines.append({"edge": edge_document(hop.via)})
        return lines


def _lines(documents: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)
