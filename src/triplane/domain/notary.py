"""What the notary decides: whether new entries continue what it has read, and when a place is due. Pure.

A notary believes neither stored hashes nor the head row: it hashes the octets again, holds each entry to the one
before, and signs only the tree it has built itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from triplane.audit.checkpoint import Checkpoint
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV, Recorded
from triplane.audit.subtrees import GrowingTree
from triplane.errors import Contradicted

BACKOFF_SECONDS: Final = (5.0, 15.0, 60.0, 300.0)
"""Pauses after a place has failed, once, twice, and so on."""


class Reading:
    """The log as far as it has been read, entry by entry."""

    def __init__(self, origin: str, tree: GrowingTree | None = None, prev: str = GENESIS_PREV) -> None:
        self.origin = origin
        self.tree = tree or GrowingTree()
        self.prev = prev
        """Leaf hash of the last entry read, in hex."""

    @property
    def head(self) -> Checkpoint:
        """What can be signed."""
        return Checkpoint(self.origin, self.tree.size, self.tree.root())

    def extend(self, page: Sequence[Recorded]) -> None:
        """Take up the next entries. Raises ``Contradicted`` naming the first that does not continue the log."""
        for recorded in page:
            leaf = leaf_hash(recorded.octets)
            if fault := self._fault(recorded, leaf.hex()):
                raise Contradicted(
                    f"entry {recorded.seq} of {self.origin} is not signed: {fault}. Somebody wrote to the database "
                    "past the log: stop appending, run `triplane log verify`, restore what was changed"
                )
            self.tree.add(leaf)
            self.prev = leaf.hex()

    def _fault(self, recorded: Recorded, leaf: str) -> str | None:
        entry = recorded.entry
        if recorded.seq != self.tree.size:
            return f"entry {self.tree.size} is missing before it"
        if recorded.leaf_hash != leaf:
            return f"its octets hash to {leaf}, the stored leaf hash is {recorded.leaf_hash}"
        if entry.get("origin") != self.origin or entry.get("seq") != recorded.seq:
            return f"its octets say that it is entry {entry.get('seq')} of {entry.get('origin')}"
        if entry.get("prev") != self.prev:
            return f"its prev is {entry.get('prev')}, the leaf hash of the entry before is {self.prev}"
        return None


def check_head(reading: Reading, size: int, leaf: str) -> None:
    """Raises ``Contradicted`` unless the log still reaches as far as it has been read."""
    if size < reading.tree.size or (size == reading.tree.size and leaf != reading.prev):
        raise Contradicted(
            f"{reading.origin} had {reading.tree.size} entries ending in {reading.prev} when it was read last, and has "
            f"{size} ending in {leaf} now: entries were taken away or exchanged under the running operator. "
            "Stop appending, run `triplane log verify`, restore what is missing"
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is known of one place that gets checkpoints."""

    size: int = -1
    """Of the last checkpoint it took."""
    at: float | None = None
    """Monotonic seconds when it took it."""
    failures: int = 0
    """In a row."""
    failed_at: float = 0.0

    def took(self, size: int, now: float) -> "Delivery":
        return Delivery(size, now)

    def failed(self, now: float) -> "Delivery":
        return Delivery(self.size, self.at, self.failures + 1, now)


def due_at(delivery: Delivery, size: int, every_seconds: float = 0.0) -> float | None:
    """When (monotonic seconds) the place is to be given the checkpoint of this size; None when it has it. The past
    means at once."""
    if delivery.size == size:
        return None
    paced = float("-inf") if delivery.at is None else delivery.at + every_seconds
    if not delivery.failures:
        return paced
    pause = BACKOFF_SECONDS[min(delivery.failures, len(BACKOFF_SECONDS)) - 1]
    return max(paced, delivery.failed_at + pause)
