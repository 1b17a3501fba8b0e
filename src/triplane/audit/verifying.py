"""Verifying in parts: what a verification may begin from, what it is held against, and whom it tells.

A verification that begins in the middle believes something about what is before. It is sound only if a signed
checkpoint of at least that size is among what it is held against: the hashes it began from then lead to a signed
root, or the roots differ. Without one the result says ``unanchored``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from triplane.audit.chain import BreakReason, broken_at
from triplane.audit.checkpoint import Checkpoint
from triplane.audit.merkle import CompactRange, Node
from triplane.audit.model import GENESIS_PREV, Break, Verification
from triplane.audit.subtrees import GrowingTree
from triplane.audit.tiles import HEIGHT, WIDTH
from triplane.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TreeState:
    """The first ``size`` entries (a multiple of 256) as far as going on from them needs it."""

    size: int
    peaks: tuple[bytes, ...]
    """Hashes of ``merkle.root_plan(size).nodes``."""
    leaf: str
    """Hex leaf hash of entry ``size - 1``."""
    time: str
    """Its time; empty when it is not known."""

    def root(self) -> bytes:
        """Root over the first ``size`` entries. Raises ``InvalidProof`` when the peaks are not as many as they are."""
        return CompactRange(self.size, self.peaks).root()


GENESIS: Final = TreeState(0, (), GENESIS_PREV, "")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification is."""

    checked: int
    """Entries checked so far."""
    total: int
    """Entries to be checked, as far as is known."""
    state: TreeState | None
    """From where another verification may go on; None when this one keeps no tree."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a verification is given. The checkpoints' signatures have been verified by the caller."""

    start: TreeState | None = None
    """Begin behind these entries; nothing before them is read."""
    checkpoints: tuple[Checkpoint, ...] = ()
    tell: Callable[[Progress], None] | None = None
    """Called on the event loop after each part."""
    agreed: int = 0
    """Size of a signed checkpoint that what is before was found to agree with."""
    part: int | None = None
    """Stop behind so many entries, a multiple of 256, if the log has more; it is then not compared with the head."""
    processes: int = 0
    """Worker processes for a backend that has use for them; 0 checks in a thread of this one."""
    grown: Callable[[Node, bytes], None] | None = None
    """Called with each subtree worth keeping (of 256 ** n entries) that is complete, and its hash; each level in
    order. Not for what is before ``start``."""
    archived: Callable[[int], Sequence[bytes]] | None = None
    """The octets of the 256 archived entries from this number on, verified: a backend that has archived entries holds
    what it keeps of them against these."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive entries found sound among themselves, and what joins them to those before and behind."""

    first: int
    count: int
    prev: str
    """Leaf hash that the first of them names as its predecessor's."""
    begun: str
    """Time of the first."""
    leaf: str
    """Leaf hash of the last."""
    time: str
    """Time of the last."""
    tiles: tuple[bytes, ...] = ()
    """Roots of the full tiles of 256 entries they make; they begin at a tile's edge."""
    leaves: Mapping[int, bytes] = field(default_factory=dict)
    """Leaf hashes, one after another, of the tiles that were asked for and of a last one that is not full, by the
    number of their first entry."""


class Trunk:
    """Joins segments in order, keeps the tree over them, and holds it against checkpoints."""

    def __init__(self, first: int, given: Given, prev: str, *, tree: bool) -> None:
        start = given.start or GENESIS
        self.first = self.next = first
        self.prev, self.time = prev, start.time
        self._tree = GrowingTree(start.size // WIDTH, start.peaks) if tree else None
        self._grown = given.grown
        self._marks = sorted(given.checkpoints, key=lambda one: one.size)
        self._agreed = given.agreed
        self._compared: list[int] = [0] if tree and first == 0 and self._of_size(0) else []
        self._rest = b""
        self._root = b""

    def wanted(self, first: int, end: int) -> frozenset[int]:
        """Tiles (by their first entry) from ``first`` to ``end`` that a checkpoint cuts: their leaves are needed."""
        cut = {one.size - one.size % WIDTH for one in self._marks if one.size % WIDTH}
        return frozenset(tile for tile in cut if first <= tile < end)

    def continues(self, segment: Segment) -> bool:
        """Whether the segment follows what was joined so far."""
        return (
            segment.first == self.next
            and segment.count > 0
            and segment.prev == self.prev
            and segment.begun >= self.time
        )

    def join(self, segment: Segment) -> Break | None:
        """Add a segment that ``continues``; the break when a checkpoint within it has another root."""
        broken = self._grow(segment) if self._tree is not None else None
        self.next = segment.first + segment.count
        self.prev, self.time = segment.leaf, segment.time
        return broken

    @property
    def has_tree(self) -> bool:
        """Whether hashes of the tree are kept: not for a range that begins within a log, behind nothing known."""
        return self._tree is not None

    @property
    def state(self) -> TreeState | None:
        """Where another may go on; None where there is no tree, or it ends within a tile."""
        if self._tree is None or self.next % WIDTH:
            return None
        return TreeState(self.next, self._tree.peaks, self.prev, self.time)

    def beyond(self) -> Break | None:
        """The break when a checkpoint counts more entries than there are."""
        ahead = next((one for one in self._marks if one.size > self.next), None)
        if ahead is None:
            return None
        return broken_at(
            self.next,
            BreakReason.ENTRY_MISSING,
            f"entry {self.next} is missing: the log ends, but a checkpoint of {ahead.size} entries was signed; "
            "entries were cut off, or an older backup was restored",
        )

    def result(self, origin: str, broken: Break | None) -> Verification:
        """What has been established."""
        count = self.next - self.first
        root = ""
        if self._tree is not None and broken is None and self.next:
            root = self._partial(self._rest).hex()
        anchored = self.first == 0 or any(size >= self.first for size in self._compared)
        compared = tuple(dict.fromkeys(self._compared)) if broken is None else ()
        empty = broken is None and self.next == 0 and 0 in compared
        return Verification(
            origin, self.first, self.next - 1, count, root, broken, compared, not anchored, provably_empty=empty
        )

    def _grow(self, segment: Segment) -> Break | None:
        assert self._tree is not None
        end, at = segment.first + segment.count, segment.first
        self._rest = b""
        for root in segment.tiles:
            if broken := self._compare(at, at + WIDTH, segment.leaves.get(at, b"")):
                return broken
            self._tree.add(root)
            self._tell_grown(Node(HEIGHT, at // WIDTH), root)
            at += WIDTH
        if at < end:
            self._rest = segment.leaves[at]
            return self._compare(at, end + 1, self._rest)
        return self._compare(at, end + 1, b"")

    def _tell_grown(self, tile: Node, root: bytes) -> None:
        """Tell of this tile, and of the subtrees of tiles that it completed."""
        assert self._tree is not None
        if self._grown is not None:
            self._grown(tile, root)
            for node, hash_ in self._tree.completed:
                self._grown(Node(node.level + HEIGHT, node.index), hash_)
        self._tree.completed.clear()

    def _compare(self, begin: int, end: int, leaves: bytes) -> Break | None:
        """Hold the tree against every checkpoint of a size from ``begin`` to ``end - 1``; ``leaves`` follow it."""
        for one in self._marks:
            if begin <= one.size < end and one.size:
                root = self._partial(leaves[: (one.size - begin) * 32])
                if root != one.root:
                    return self._differs(one, root)
                self._compared.append(one.size)
        return None

    def _partial(self, leaves: bytes) -> bytes:
        """Root over the tiles so far and these leaves behind them."""
        assert self._tree is not None
        behind = CompactRange()
        for at in range(0, len(leaves), 32):
            behind.add(leaves[at : at + 32])
        return CompactRange(self._tree.size * WIDTH + behind.size, (*self._tree.peaks, *behind.peaks)).root()

    def _differs(self, one: Checkpoint, root: bytes) -> Break:
        known = max((size for size in self._compared if size <= one.size), default=self._agreed)
        return broken_at(
            known,
            BreakReason.CHECKPOINT_MISMATCH,
            f"entries {known} to {one.size - 1} are not those that were signed: their root is {root.hex()}, the "
            f"checkpoint of {one.size} entries has {one.root.hex()}; at least one of them, or one before that was not "
            "read now, was rewritten together with all hashes behind it",
        )

    def _of_size(self, size: int) -> bool:
        return any(one.size == size for one in self._marks)


def check_range(origin: str, first: int, last: int | None, size: int) -> None:
    """Raises ``InvalidInput`` for a range that is none, or that goes beyond a log of this size: nothing is wrong with
    the log then."""
    if first < 0 or (last is not None and last < first):
        raise InvalidInput(f"cannot verify from {first} to {last}: a range is 0 <= first <= last")
    if first > size or (last is not None and last >= size):
        asked = f"from {first} on" if last is None else f"from {first} to {last}"
        has = f"{size} entries, 0 to {size - 1}" if size else "no entry"
        raise InvalidInput(f"cannot verify {asked}: the log {origin} has {has}; ask for a range within it")


def tile_roots(leaves: Sequence[bytes]) -> list[bytes]:
    """Roots of the full tiles that these leaf hashes make."""
    roots = []
    for begin in range(0, len(leaves) - WIDTH + 1, WIDTH):
        level: list[bytes] = list(leaves[begin : begin + WIDTH])
        while len(level) > 1:
            pairs = iter(level)
            level = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        roots += level
    return roots


def segment_of(
    leaves: Sequence[bytes], wanted: Iterable[int], edges: tuple[int, str, str, str], *, tree: bool
) -> Segment:
    """The segment with these leaf hashes; ``edges`` are (first, prev, time of the first, time of the last)."""
    first, prev, begun, time = edges
    kept: dict[int, bytes] = {}
    roots: list[bytes] = []
    if tree:
        roots = tile_roots(leaves)
        full = first + len(roots) * WIDTH
        for tile in {*wanted, *([full] if full < first + len(leaves) else [])}:
            if first <= tile < first + len(leaves):
                kept[tile] = b"".join(leaves[tile - first : tile - first + WIDTH])
    return Segment(first, len(leaves), prev, begun, leaves[-1].hex(), time, tuple(roots), kept)
