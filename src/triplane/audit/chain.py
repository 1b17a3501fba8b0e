"""Is this sequence of stored entries the chain it claims to be? Pure: whoever reads the rows feeds them in.

Each row is checked in a fixed order, from what an attacker must break first to what only a projection can
tell, so that one alteration has one documented reason and the number of the first bad entry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from triplane.audit.entry import open_entry
from triplane.audit.merkle import CompactRange, leaf_hash
from triplane.audit.model import GENESIS_PREV, Break, JsonObject, Verification
from triplane.errors import InvalidEntry

PROJECTIONS = ("id", "stream", "type", "time", "actor", "kind", "namespace", "name", "uid")
"""Columns beside the octets that queries rely on."""


class BreakReason(StrEnum):
    """Why a chain is broken (docs/reference/log-format.md)."""

    ENTRY_MISSING = "EntryMissing"
    ENTRY_REPEATED = "EntryRepeated"
    LEAF_HASH_MISMATCH = "LeafHashMismatch"
    MALFORMED = "Malformed"
    ORIGIN_MISMATCH = "OriginMismatch"
    SEQUENCE_MISMATCH = "SequenceMismatch"
    PREV_MISMATCH = "PrevMismatch"
    TIME_BACKWARDS = "TimeBackwards"
    ID_REPEATED = "IdRepeated"
    PROJECTION_MISMATCH = "ProjectionMismatch"
    ID_INDEX_MISMATCH = "IdIndexMismatch"
    HEAD_MISMATCH = "HeadMismatch"
    CHECKPOINT_MISMATCH = "CheckpointMismatch"
    SUBTREE_MISMATCH = "SubtreeMismatch"


_RESTORE = (
    "stop the writers, keep this database as evidence, and restore the log from a backup that verifies against the "
    "latest checkpoint you hold elsewhere"
)
_REPROJECT = (
    "the entries themselves hold: only what queries go by is wrong; keep a copy as evidence, and restore the column "
    "or index from a backup, or from the octets"
)
_REKEEP = (
    "the entries themselves hold: only what proofs are made of is wrong; keep a copy of log.subtrees as evidence, stop "
    "the operator, delete every row of it as a superuser (its triggers disabled meanwhile), and start the operator: "
    "with the next entry the notary hashes the log again and keeps them anew. Where entries are archived it cannot: "
    "restore the table from a backup"
)
REMEDIES: Mapping[BreakReason, str] = dict.fromkeys(BreakReason, _RESTORE) | {
    BreakReason.PROJECTION_MISMATCH: _REPROJECT,
    BreakReason.ID_INDEX_MISMATCH: _REPROJECT,
    BreakReason.SUBTREE_MISMATCH: _REKEEP,
}
"""What to do about each."""


def broken_at(seq: int, reason: BreakReason, message: str) -> Break:
    """The break, with what to do about it."""
    return Break(seq, reason.value, message, REMEDIES[reason])


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One row as a backend holds it."""

    seq: int
    octets: bytes
    """Empty where the backend holds nothing; so ``leaf``."""
    leaf: bytes
    projections: tuple[object, ...]
    """Values of ``PROJECTIONS``."""
    indexed: tuple[object, object] | None
    """(seq, body SHA-256) that the id index holds for the projected id."""


def projections(entry: JsonObject) -> tuple[str, ...]:
    """What ``PROJECTIONS`` must hold for a parsed entry."""
    subject = entry["subject"]
    return (
        entry["id"],
        entry["stream"],
        entry["type"],
        entry["time"],
        entry["actor"],
        subject["kind"],
        subject["namespace"],
        subject["name"],
        subject["uid"],
    )


class ChainVerifier:
    """Feed rows in order of seq; ``broken`` is the first thing wrong, and nothing is checked after it.

    ``anchor`` holds the octets of entry ``first - 1`` when verification starts later than 0: the left edge is
    hashed here, not believed.
    """

    def __init__(self, origin: str, first: int = 0, anchor: bytes | None = None) -> None:
        self.origin = origin
        self.first = self.next = first
        self.broken: Break | None = None
        self.prev = GENESIS_PREV if anchor is None else leaf_hash(anchor).hex()
        self._time = ""
        self._ids: set[str] = set()
        self._tree = CompactRange()
        if first > 0 and anchor is None:
            self._break(first - 1, BreakReason.ENTRY_MISSING, f"entry {first - 1}, the left edge, is missing")

    @classmethod
    def following(cls, origin: str, first: int, prev: str, time: str) -> "ChainVerifier":
        """One that goes on behind entries that were checked before: ``prev`` is the leaf hash of the last of them,
        ``time`` its time."""
        made = cls(origin)
        made.first = made.next = first
        made.prev, made._time = prev, time
        return made

    def feed(self, row: StoredEntry) -> bool:
        """Check the next row; False once the chain is broken."""
        if self.broken is None:
            self._check(row)
        return self.broken is None

    def close(self, size: int, head: str, time: str) -> None:
        """Compare the end with what the head row says (size, leaf hash and time of the last entry); only for a
        verification up to the head. The time is not compared where no entry was checked and the last one's is unknown.
        """
        if self.broken is None and (size != self.next or head != self.prev or (self._time and time != self._time)):
            if size > self.next:
                self._break(
                    self.next,
                    BreakReason.ENTRY_MISSING,
                    f"entry {self.next} is missing: the head names {size} entries",
                )
            else:
                self._break(
                    self.next,
                    BreakReason.HEAD_MISMATCH,
                    f"the head says {size} entries, leaf {head} and time {time!r}; the entries are {self.next} and end "
                    f"in {self.prev} at {self._time!r}",
                )

    def stray(self, seq: int, event_id: str) -> None:
        """Break because the id index names an entry for an id that is not its own."""
        if self.broken is None:
            self._break(
                seq,
                BreakReason.ID_INDEX_MISMATCH,
                f"the id index names entry {seq} for {event_id}, which is not its id",
            )

    def expect(self, size: int) -> None:
        """Break unless everything before ``size`` was there; for a verification that ends before the head."""
        if self.broken is None and self.next < size:
            self._break(self.next, BreakReason.ENTRY_MISSING, f"entry {self.next} is missing, the log ends")

    def result(self) -> Verification:
        """What has been established so far."""
        root = self._tree.root().hex() if self.first == 0 and self._tree.size else ""
        return Verification(
            self.origin,
            self.first,
            self.next - 1,
            self.next - self.first,
            root if self.broken is None else "",
            self.broken,
        )

    def _break(self, seq: int, reason: BreakReason, message: str) -> None:
        self.broken = broken_at(seq, reason, message)

    def _check(self, row: StoredEntry) -> None:
        n = self.next
        if row.seq != n:
            if row.seq > n:
                return self._break(
                    n, BreakReason.ENTRY_MISSING, f"entry {n} is missing: the next stored one is {row.seq}"
                )
            return self._break(row.seq, BreakReason.ENTRY_REPEATED, f"entry {row.seq} is stored more than once")
        leaf = leaf_hash(row.octets)
        if leaf != row.leaf:
            return self._break(
                n,
                BreakReason.LEAF_HASH_MISMATCH,
                f"entry {n}: its octets hash to {leaf.hex()}, the stored leaf hash is {row.leaf.hex()}",
            )
        try:
            opened = open_entry(row.octets)
        except InvalidEntry as error:
            return self._break(n, BreakReason.MALFORMED, f"entry {n}: {error}")
        entry = opened.entry
        problem = self._chain_problem(n, entry) or self._index_problem(n, entry, opened.body_sha256, row)
        if problem is not None:
            return self._break(n, *problem)
        self._ids.add(entry["id"])
        self._time = entry["time"]
        self._tree.add(leaf)
        self.prev = leaf.hex()
        self.next = n + 1
        return None

    def _chain_problem(self, n: int, entry: JsonObject) -> tuple[BreakReason, str] | None:
        if entry["origin"] != self.origin:
            return (
                BreakReason.ORIGIN_MISMATCH,
                f"entry {n} is of origin {entry['origin']}, this log is {self.origin}",
            )
        if entry["seq"] != n:
            return BreakReason.SEQUENCE_MISMATCH, f"entry {n}: its octets say seq {entry['seq']}"
        if entry["prev"] != self.prev:
            return (
                BreakReason.PREV_MISMATCH,
                f"entry {n}: prev is {entry['prev']}, the leaf hash of entry {n - 1} is {self.prev}",
            )
        if entry["time"] < self._time:
            return (
                BreakReason.TIME_BACKWARDS,
                f"entry {n}: time {entry['time']} is before {self._time} of entry {n - 1}",
            )
        if entry["id"] in self._ids:
            return BreakReason.ID_REPEATED, f"entry {n}: the id {entry['id']} occurred before"
        return None

    def _index_problem(
        self, n: int, entry: JsonObject, body: bytes, row: StoredEntry
    ) -> tuple[BreakReason, str] | None:
        truth = projections(entry)
        if row.projections != truth:
            name, stored, true = next(
                triple for triple in zip(PROJECTIONS, row.projections, truth, strict=True) if triple[1] != triple[2]
            )
            return (
                BreakReason.PROJECTION_MISMATCH,
                f"entry {n}: the column {name} holds {stored!r}, the octets say {true!r}",
            )
        if row.indexed is None or row.indexed != (n, body):
            holds = "" if row.indexed is None else f"; it names entry {row.indexed[0]}"
            return (
                BreakReason.ID_INDEX_MISMATCH,
                f"entry {n}: the id index does not hold {entry['id']} with this seq and body{holds}",
            )
        return None


def verify(rows: Iterable[StoredEntry], origin: str) -> Verification:
    """Check a whole chain from genesis."""
    verifier = ChainVerifier(origin)
    for row in rows:
        if not verifier.feed(row):
            break
    return verifier.result()
