"""Which kept hashes make the hash of a complete subtree, and which subtrees are worth keeping.

As in tiles (C2SP tlog-tiles, "Merkle Tree") every eighth level is kept: of the leaves, of 256, of 65,536, …. What lies
between is hashed again from at most 128 of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from triplane.audit.merkle import HASH_OCTETS, CompactRange, Node, node_hash
from triplane.audit.tiles import HEIGHT
from triplane.errors import InvalidProof


@dataclass(frozen=True, slots=True)
class Row:
    """``count`` neighbours on a kept level, from ``first`` on: what one subtree is made of."""

    level: int
    first: int
    count: int


def row_of(node: Node) -> Row:
    """The row that makes this subtree."""
    climb = node.level % HEIGHT
    return Row(node.level - climb, node.index << climb, 1 << climb)


def folded(hashes: Sequence[bytes]) -> bytes:
    """The hash of the subtree over a whole row (a power of two of them)."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


def check_committed(nodes: Sequence[Node], size: int) -> None:
    """Raises ``InvalidProof`` for a subtree that goes beyond a log of this size."""
    for node in nodes:
        if node.level < 0 or node.index < 0 or (node.index + 1) << node.level > size:
            raise InvalidProof(
                f"the log has {size} entries, and subtree {node.index} of level {node.level} goes beyond them",
                reason="IndexOutOfRange",
            )


def check_kept(hashes: Sequence[tuple[Node, bytes]]) -> None:
    """Raises ``InvalidProof`` for what is not kept: another level, or no hash."""
    for node, hash_ in hashes:
        if node.level <= 0 or node.level % HEIGHT or node.index < 0 or len(hash_) != HASH_OCTETS:
            raise InvalidProof(
                f"subtree {node.index} of level {node.level} with a hash of {len(hash_)} octets is not kept: "
                f"levels {HEIGHT}, {2 * HEIGHT}, … are, with {HASH_OCTETS} octets each",
                reason="HashLength" if len(hash_) != HASH_OCTETS else "IndexOutOfRange",
            )


class GrowingTree(CompactRange):
    """The tree over the leaves added so far, and the subtrees worth keeping that they completed."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """As ``CompactRange``."""
        super().__init__(size, peaks)
        self.completed: list[tuple[Node, bytes]] = []
        """Grows with each; whoever has stored them empties it."""

    def add(self, leaf: bytes) -> None:
        """Append one leaf *hash*."""
        peak, index, level = leaf, self.size, 0
        while index & 1:
            peak, index, level = node_hash(self._peaks.pop(), peak), index >> 1, level + 1
            if level % HEIGHT == 0:
                self.completed.append((Node(level, index), peak))
        self._peaks.append(peak)
        self.size += 1
