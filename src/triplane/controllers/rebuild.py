"""The resource graph made anew from the log, compared with the live one, or put in its place.

The same projection as at every append (``domain/projection.py``), applied to every entry from the first: so rebuilt
and live are the same, or one of them is wrong. Specs come from the content store; where one is no longer there, the
live row's serves if its digest is the recorded one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import orjson

from triplane.audit.digest import digest_of_json
from triplane.audit.model import EventFilter, JsonObject
from triplane.domain.projection import OBSERVED, PROJECTED, LogEntry, documents_of, project
from triplane.domain.resourcegraph import Edge, GraphChange, ResourceRecord
from triplane.errors import BlobMissing, Corrupt
from triplane.ports import EventLog, GraphStore

PAGE: Final = 1000
LOADS: Final = 16
LOOKS: Final = 4
LOOK_SECONDS: Final = 0.5
"""Between an append and its projection lie milliseconds: a difference counts if it is there at every look."""
_FIELDS: Final = tuple(found.name for found in fields(ResourceRecord) if found.name not in ("uid", "generation"))

LABELS_KEPT: Final = 10_000
"""Documents of labels remembered: many generations have the same."""

Load = Callable[[str], Awaitable[bytes]]
"""The octets of a blob by digest; raises ``BlobMissing`` or ``Corrupt``."""
Progress = Callable[[int, int], None]
"""Called with how many entries were read, and of how many."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a page of entries says."""

    change: GraphChange
    entries: int
    unreadable: Mapping[tuple[str, int], str]
    upto: int


@dataclass
class Rebuilt:
    """The graph as the log says it is, up to an entry."""

    upto: int = -1
    """Sequence of the last entry it rests on."""
    entries: int = 0
    """Entries that say something about the graph."""
    records: dict[tuple[str, int], ResourceRecord] = field(default_factory=dict)
    edges: dict[tuple[str, str, str, str], Edge] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    unreadable: dict[tuple[str, int], str] = field(default_factory=dict)
    """Generations whose document is neither stored nor kept, and its digest."""

    def add(self, change: GraphChange) -> None:
        """Entries are added in the order of the log: what is there already is the earlier."""
        for record in change.records:
            self.records.setdefault((record.uid, record.generation), record)
        for edge in change.edges:
            self.edges.setdefault(edge.identity, edge)
        for uid, seq in change.gone:
            self.gone.setdefault(uid, seq)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the live graph and the rebuilt one do not agree on."""

    what: str
    """Kind, UID and generation; or the ends of an edge and its kind."""
    field: str
    """``row`` or ``edge`` when it is missing on one side."""
    rebuilt: Any
    live: Any

    def __str__(self) -> str:
        if self.field in ("row", "edge"):
            return f"{self.what}: {self.field} {'missing' if self.live is None else 'not in the log'}"
        return f"{self.what}: {self.field} is {self.live!r}, by the log {self.rebuilt!r}"


@dataclass
class Replaced:
    """What was put in place of the graph there was."""

    upto: int = -1
    """Sequence of the last entry it rests on."""
    entries: int = 0
    records: int = 0
    edges: int = 0
    unreadable: dict[tuple[str, int], str] = field(default_factory=dict)
    """Generations whose document is neither stored nor kept, and its digest: their rows stay as they were."""


class Rebuilder:
    """Projects a log from its beginning; ``live`` is only read."""

    def __init__(self, log: EventLog, live: GraphStore, load: Load) -> None:
        self._log = log
        self._live = live
        self._load = load
        self._labels: dict[str, JsonObject] = {}

    async def rebuild(self) -> Rebuilt:
        """The graph up to the head of the log as it is now. Raises ``Unavailable``."""
        rebuilt = Rebuilt()
        await self.advance(rebuilt)
        return rebuilt

    async def advance(self, rebuilt: Rebuilt) -> None:
        """Take in what was appended since."""
        size, _ = await self._log.head()
        async for said in self._say(rebuilt.upto, size - 1):
            rebuilt.add(said.change)
            rebuilt.entries += said.entries
            rebuilt.unreadable |= said.unreadable
        rebuilt.upto = max(rebuilt.upto, size - 1)

    async def put_in_place(self, graph: GraphStore, progress: Progress = lambda done, size: None) -> Replaced:
        """Make ``graph`` what the log says, while others append and apply. What the log says is handed on page by page:
        this process holds no more than one. Raises ``Conflict`` while another process does the same."""
        size, _ = await self._log.head()
        made = Replaced(size - 1)
        keep: set[str] = set()

        async def changes() -> AsyncIterator[GraphChange]:
            async for said in self._say(-1, made.upto):
                made.entries += said.entries
                made.unreadable |= said.unreadable
                keep.update(uid for uid, _ in said.unreadable)
                yield said.change
                progress(said.upto + 1, size)

        made.records, made.edges = await graph.replace(changes(), upto=made.upto, keep=keep)
        # An entry that was applied meanwhile may have found its place taken by what the log does not say, and that is
        # gone now. From here on whoever applies finds the graph that the log describes.
        size, _ = await self._log.head()
        async for said in self._say(made.upto, size - 1):
            await graph.apply(said.change)
        return made

    async def _say(self, after: int, upto: int) -> AsyncIterator[_Said]:
        """What the entries behind ``after`` up to ``upto`` say, a page at a time."""
        while after < upto:
            page = await self._log.query(EventFilter(types=PROJECTED), after=after, limit=PAGE)
            after = page[-1].seq if len(page) == PAGE else upto
            entries = [LogEntry.of_recorded(recorded) for recorded in page if recorded.seq <= upto]
            documents = await self._documents(entries)
            unreadable: dict[tuple[str, int], str] = {}
            changes = [self._project(entry, documents, unreadable) for entry in entries]
            yield _Said(GraphChange.merged(changes), len(entries), unreadable, min(after, upto))

    def _project(
        self, entry: LogEntry, documents: Mapping[str, JsonObject], unreadable: dict[tuple[str, int], str]
    ) -> GraphChange:
        missing = [digest for digest in documents_of(entry) if digest not in documents]
        if not missing:
            return project(entry, documents)
        unreadable[entry.subject.uid, entry.subject.generation] = missing[0]
        # The entry alone still says who owned it.
        partly = project(entry, {**documents, **{digest: {} for digest in missing}})
        return GraphChange(edges=partly.edges)

    async def _documents(self, entries: Sequence[LogEntry]) -> dict[str, JsonObject]:
        wanted = {digest: entry for entry in entries if entry.type == OBSERVED for digest in documents_of(entry)}
        gate = asyncio.Semaphore(LOADS)

        async def load(digest: str, entry: LogEntry) -> tuple[str, JsonObject | None]:
            async with gate:
                return digest, await self._document(digest, entry)

        found = await asyncio.gather(*(load(*item) for item in wanted.items()))
        return {digest: document for digest, document in found if document is not None}

    async def _document(self, digest: str, entry: LogEntry) -> JsonObject | None:
        labels = digest == entry.data.get("labelsDigest")
        if labels and digest in self._labels:
            return self._labels[digest]
        try:
            document = orjson.loads(await self._load(digest))
        except (BlobMissing, Corrupt):
            document = await self._kept(digest, entry, labels)
        if not isinstance(document, dict):
            return None
        if labels:
            if len(self._labels) >= LABELS_KEPT:
                self._labels.clear()
            self._labels[digest] = document
        return document

    async def _kept(self, digest: str, entry: LogEntry, labels: bool) -> JsonObject | None:
        """What the live row has, if it is what was recorded."""
        row = await self._live.get(entry.subject.uid, entry.subject.generation)
        if row is None:
            return None
        own = dict(entry.subject.labels)
        kept = {key: value for key, value in row.labels.items() if key not in own} if labels else row.spec
        return kept if digest_of_json(kept) == digest else None


async def differences(rebuilder: Rebuilder, live: GraphStore) -> tuple[Rebuilt, list[Difference]]:
    """What the live graph and the log do not agree on, also while work goes on. I6 of the fault campaign."""
    rebuilt = await rebuilder.rebuild()
    found = await compare(rebuilt, live)
    for _ in range(LOOKS - 1):
        if not found:
            break
        await asyncio.sleep(LOOK_SECONDS)
        await rebuilder.advance(rebuilt)
        found = await compare(rebuilt, live)
    return rebuilt, found


async def compare(rebuilt: Rebuilt, live: GraphStore) -> list[Difference]:
    """One look: live rows and edges against the rebuilt ones. What later entries brought is not compared."""
    return [*await _compare_records(rebuilt, live), *await _compare_edges(rebuilt, live)]


async def _compare_records(rebuilt: Rebuilt, live: GraphStore) -> list[Difference]:
    found: list[Difference] = []
    left = set(rebuilt.records)
    after: tuple[str, int] | None = None
    while page := await live.page_records(after, PAGE):
        after = (page[-1].uid, page[-1].generation)
        for row in page:
            key = (row.uid, row.generation)
            expected = rebuilt.records.get(key)
            left.discard(key)
            if expected is not None:
                found += _unequal(expected, row, gone=row.uid in rebuilt.gone)
            elif row.seq <= rebuilt.upto and key not in rebuilt.unreadable:
                found.append(Difference(_name(row), "row", None, "there"))
    found += [Difference(_name(rebuilt.records[key]), "row", "there", None) for key in sorted(left)]
    found += [
        Difference(f"{uid} generation {generation}", "document", digest, "neither stored nor kept")
        for (uid, generation), digest in sorted(rebuilt.unreadable.items())
    ]
    return found


def _unequal(expected: ResourceRecord, row: ResourceRecord, *, gone: bool) -> list[Difference]:
    pairs = [(name, getattr(expected, name), getattr(row, name)) for name in _FIELDS if name != "gone"]
    pairs.append(("gone", gone, row.gone))
    return [Difference(_name(row), name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]


async def _compare_edges(rebuilt: Rebuilt, live: GraphStore) -> list[Difference]:
    found: list[Difference] = []
    left = set(rebuilt.edges)
    after: tuple[str, str, str, str] | None = None
    while page := await live.page_edges(after, PAGE):
        after = page[-1].identity
        for edge in page:
            expected = rebuilt.edges.get(edge.identity)
            left.discard(edge.identity)
            if expected is None and edge.seq <= rebuilt.upto:
                found += [] if _excused(rebuilt, edge) else [Difference(_edge_name(edge), "edge", None, "there")]
            elif expected is not None and expected != edge:
                found += [
                    Difference(_edge_name(edge), name, getattr(expected, name), getattr(edge, name))
                    for name in ("seq", "data")
                    if getattr(expected, name) != getattr(edge, name)
                ]
    return found + [Difference(_edge_name(rebuilt.edges[key]), "edge", "there", None) for key in sorted(left)]


def _excused(rebuilt: Rebuilt, edge: Edge) -> bool:
    """It came of a document that is no longer there; that is told once, of the document."""
    return any(uid in (edge.source, edge.target) for uid, _ in rebuilt.unreadable)


def _name(row: ResourceRecord) -> str:
    return f"{row.kind} {row.namespace}/{row.name} {row.uid} generation {row.generation}"


def _edge_name(edge: Edge) -> str:
    key = f" ({edge.key})" if edge.key else ""
    return f"{edge.source} {edge.kind} {edge.target}{key}"
