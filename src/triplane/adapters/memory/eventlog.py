"""The event log in memory: the same octets, receipts and refusals as in Postgres, for tests and for
embedding."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from triplane.audit.arrangement import Known, arrange
from triplane.audit.chain import ChainVerifier, StoredEntry, projections
from triplane.audit.entry import Sealed, first_entries, format_time, prepare, seal_all
from triplane.audit.model import GENESIS_PREV, EventBody, EventFilter, Receipt, Recorded, Verification
from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import GENESIS, Given, Progress, Segment, Trunk, check_range, segment_of
from triplane.domain.collection import ArchivedReferences
from triplane.errors import Fenced, InvalidInput, NotFound, Unavailable

LARGEST_QUERY = 10_000


@dataclass(slots=True)
class MemoryLog:
    """What several ``MemoryEventLog`` share: one origin's entries, ids, epochs and waiting streams."""

    origin: str
    rows: list[tuple[Recorded, bytes]] = field(default_factory=list)
    """Entries with their body's SHA-256."""
    ids: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    bells: set[asyncio.Event] = field(default_factory=set)

    @classmethod
    def create(cls, host: str = "localhost", now: datetime | None = None) -> "MemoryLog":
        """A new origin with its first two entries, as ``triplane migrate`` makes it."""
        install_id = secrets.token_hex(16)
        log = cls(f"{host}/{install_id}")
        log.extend(first_entries(host, install_id, now or datetime.now(UTC)))
        return log

    def extend(self, sealed: Sequence[Sealed]) -> None:
        """Append and wake the streams."""
        for entry in sealed:
            parsed = orjson.loads(entry.octets)
            self.ids[parsed["id"]] = len(self.rows)
            recorded = Recorded(len(self.rows), entry.octets, entry.leaf.hex(), parsed)
            self.rows.append((recorded, entry.body_sha256))
        for bell in self.bells:
            bell.set()


class MemoryEventLog:
    """``EventLog`` on a ``MemoryLog``; give several writers the same one."""

    def __init__(
        self,
        shared: MemoryLog | None = None,
        *,
        writer: str = "memory",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = shared or MemoryLog.create(now=now())
        self._writer = writer
        self._now = now
        self._epoch = 0
        self._closed = False

    @property
    def shared(self) -> MemoryLog:
        """What other writers of this log, and its checkpoints, are made on."""
        return self._log

    @property
    def origin(self) -> str:
        """``<host>/<install id>``."""
        return self._log.origin

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``."""
        prepared = [prepare(self.origin, body) for body in bodies]
        if self._closed:
            raise Unavailable("the log is closed: open it again")
        if not prepared:
            return []
        await self.check_epoch()
        ids = self._log.ids
        known = {body.id: self._known(ids[body.id]) for body in prepared if body.id in ids}
        arrangement = arrange([prepared], known)
        size, prev = len(self._log.rows), self._last_leaf()
        moment = max(format_time(self._now()), self._last_time())
        sealed = seal_all(arrangement.fresh, size, prev, moment)
        receipts = [
            Receipt(body.id, size + place, entry.leaf.hex(), moment)
            for place, (body, entry) in enumerate(zip(arrangement.fresh, sealed, strict=True))
        ]
        (outcome,) = arrangement.outcomes(receipts)
        if isinstance(outcome, Exception):
            raise outcome
        self._log.extend(sealed)
        return outcome

    async def get(self, event_id: str) -> Recorded | None:
        """See ``EventLog.get``."""
        return (await self.get_many([event_id])).get(event_id)

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """See ``EventLog.get_many``."""
        ids = self._log.ids
        return {event_id: self._log.rows[ids[event_id]][0] for event_id in event_ids if event_id in ids}

    async def query(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """See ``EventLog.query``."""
        if not 1 <= limit <= LARGEST_QUERY:
            raise InvalidInput(f"limit {limit} is not from 1 to {LARGEST_QUERY}: page with `after`")
        matching = [row for row, _ in self._log.rows[max(after + 1, 0) :] if where.matches(row)]
        return matching[::-1][:limit] if newest_first else matching[:limit]

    async def head(self) -> tuple[int, str]:
        """See ``EventLog.head``."""
        return len(self._log.rows), self._last_leaf()

    async def time_at(self, seq: int) -> str:
        """See ``EventLog.time_at``."""
        if not 0 <= seq < len(self._log.rows):
            raise NotFound(f"there is no entry {seq} in {self.origin}: it has {len(self._log.rows)} entries")
        return str(self._log.rows[seq][0].entry["time"])

    async def archived_references(self) -> ArchivedReferences:
        """See ``EventLog.archived_references``. Nothing is ever archived here."""
        return ArchivedReferences(0)

    async def stream(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
    ) -> AsyncIterator[Recorded]:
        """See ``EventLog.stream``."""
        bell = asyncio.Event()
        self._log.bells.add(bell)
        try:
            place = max(after + 1, 0)
            while True:
                while place < len(self._log.rows):
                    recorded = self._log.rows[place][0]
                    place += 1
                    if where.matches(recorded):
                        yield recorded
                bell.clear()
                await bell.wait()
        finally:
            self._log.bells.discard(bell)

    async def verify_chain(
        self,
        *,
        first: int = 0,
        last: int | None = None,
        given: Given = Given(),  # frozen
    ) -> Verification:
        """See ``EventLog.verify_chain``."""
        check_range(self.origin, first, last, len(self._log.rows))
        start = given.start or GENESIS
        first = first or start.size
        if first not in (0, start.size) and given.start is not None:
            raise InvalidInput(f"verification goes on behind {start.size} entries, it cannot begin at {first}")
        rows, end = self._log.rows, len(self._log.rows) if last is None else last + 1
        parted = last is None and given.part is not None and first + given.part < end
        end = first + given.part if parted and given.part is not None else end
        if first == start.size:
            verifier = ChainVerifier.following(self.origin, first, start.leaf, start.time)
        else:
            verifier = ChainVerifier(self.origin, first, rows[first - 1][0].octets)
        trunk = Trunk(first, given, verifier.prev, tree=first == start.size)
        for recorded, body in rows[first:end]:
            indexed = (self._log.ids.get(recorded.entry["id"]), body)
            stored = (bytes.fromhex(recorded.leaf_hash), projections(recorded.entry), indexed)
            if not verifier.feed(StoredEntry(recorded.seq, recorded.octets, *stored)):
                break
        if last is None and not parted:
            verifier.close(len(rows), self._last_leaf(), self._last_time())
        else:
            verifier.expect(end)
        broken = verifier.broken
        while broken is None and trunk.next < verifier.next:
            broken = trunk.join(self._segment(trunk, min(verifier.next, trunk.next + WIDTH)))
            if given.tell is not None:
                given.tell(Progress(trunk.next - first, end - first, trunk.state))
        if broken is None and last is None and not parted:
            broken = trunk.beyond()
        if verifier.broken is not None:  # what was sound before it counts
            trunk.next = verifier.next
        return trunk.result(self.origin, broken)

    def _segment(self, trunk: Trunk, end: int) -> Segment:
        part = [recorded for recorded, _ in self._log.rows[trunk.next : end]]
        edges = (trunk.next, trunk.prev, part[0].entry["time"], part[-1].entry["time"])
        leaves = [bytes.fromhex(recorded.leaf_hash) for recorded in part]
        return segment_of(leaves, trunk.wanted(trunk.next, end), edges, tree=trunk.has_tree)

    async def begin_epoch(self) -> int:
        """See ``EventLog.begin_epoch``."""
        self._epoch = self._log.epochs[self._writer] = self._log.epochs.get(self._writer, 0) + 1
        return self._epoch

    async def check_epoch(self) -> None:
        """See ``EventLog.check_epoch``."""
        current = self._log.epochs.get(self._writer, 0)
        if current != self._epoch:
            raise Fenced(
                f"writer {self._writer} is at epoch {current}, this process holds {self._epoch}: "
                "a newer process has taken over: stop this one"
            )

    async def close(self) -> None:
        """Refuse further appends."""
        self._closed = True

    def _last_leaf(self) -> str:
        return self._log.rows[-1][0].leaf_hash if self._log.rows else GENESIS_PREV

    def _last_time(self) -> str:
        return str(self._log.rows[-1][0].entry["time"]) if self._log.rows else ""

    def _known(self, place: int) -> Known:
        recorded, body = self._log.rows[place]
        receipt = Receipt(recorded.entry["id"], recorded.seq, recorded.leaf_hash, recorded.entry["time"])
        return Known(receipt, body)
