"""RFC 6962 Merkle trees: roots in logarithmic space, and inclusion and consistency proofs, made and checked.

A proof is made in two steps. A ``ProofPlan`` says which complete subtrees it takes (RFC 6962, sections 2.1.1 and
2.1.2), so that a backend fetches them all at once, however it keeps them; folding what it returned gives the proof.
A proof is checked by the iterative algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2, which share nothing with
how it was made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import islice
from typing import Final, NoReturn

from triplane.errors import InvalidProof

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without entries."""
HASH_OCTETS: Final = 32
MAX_SIZE: Final = 2**63 - 1
"""Entries of a tree. An inclusion proof in it has at most 63 hashes."""


class ProofFault(StrEnum):
    """Why a proof proves nothing (docs/reference/checkpoints.md)."""

    SIZE_OUT_OF_RANGE = "SizeOutOfRange"
    INDEX_OUT_OF_RANGE = "IndexOutOfRange"
    SIZES_REVERSED = "SizesReversed"
    EMPTY_TREE = "EmptyTree"
    HASH_LENGTH = "HashLength"
    PROOF_TOO_SHORT = "ProofTooShort"
    PROOF_TOO_LONG = "ProofTooLong"
    OLD_ROOT_MISMATCH = "OldRootMismatch"
    ROOT_MISMATCH = "RootMismatch"


@dataclass(frozen=True, slots=True)
class Node:
    """A complete subtree: ``MTH(D[index × 2^level : (index + 1) × 2^level])`` is its hash. Level 0 are the leaves."""

    level: int
    index: int


HashReader = Callable[[Sequence[Node]], Sequence[bytes]]
"""The hashes of these complete subtrees, in the same order."""


def leaf_hash(octets: bytes) -> bytes:
    """``SHA-256(0x00 ‖ octets)``: also what the next entry's ``prev`` names."""
    return sha256(b"\x00" + octets).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 ‖ left ‖ right)``."""
    return sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The tree over the leaves added so far, kept as the roots of its complete subtrees, largest first."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Continue from a tree: ``peaks`` are the hashes of ``root_plan(size).nodes``. They are believed only once
        ``root`` has been compared with a signed one. Raises ``InvalidProof`` when they are not as many."""
        _check_size(size)
        if len(peaks) != size.bit_count():
            _refuse(
                ProofFault.SIZE_OUT_OF_RANGE, f"a tree of {size} entries has {size.bit_count()} peaks, not {len(peaks)}"
            )
        self.size = size
        self._peaks = list(peaks)

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """What another ``CompactRange`` continues from: the hashes of ``root_plan(size).nodes``."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> None:
        """Append one leaf *hash*."""
        peak, size = leaf, self.size
        while size & 1:
            peak = node_hash(self._peaks.pop(), peak)
            size >>= 1
        self._peaks.append(peak)
        self.size += 1

    def root(self) -> bytes:
        """Root over everything added; ``EMPTY_ROOT`` when that is nothing."""
        return _joined(self._peaks) if self._peaks else EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class ProofPlan:
    """What a proof is made of: each of its hashes covers one range of leaves, ``[begin, end)``."""

    ranges: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every complete subtree needed, each once."""
        return tuple(node for begin, end in self.ranges for node in _subtrees(begin, end))

    def fold(self, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
        """The proof, from the hashes of ``nodes`` in their order."""
        # A range has as many complete subtrees as its width has bits set.
        counts = [(end - begin).bit_count() for begin, end in self.ranges]
        assert len(hashes) == sum(counts), "a hash reader returns one hash for each subtree asked for"
        found = iter(hashes)
        return tuple(_joined(list(islice(found, count))) for count in counts)


def leaf_reader(leaves: Sequence[bytes]) -> HashReader:
    """Reads subtrees off the leaf *hashes* themselves, for small trees; ``InvalidProof`` for what they do not reach."""

    def read(nodes: Sequence[Node]) -> list[bytes]:
        for node in nodes:
            if (node.index + 1) << node.level > len(leaves):
                _refuse(ProofFault.INDEX_OUT_OF_RANGE, f"there are {len(leaves)} leaves, {node} goes beyond them")
        return [subtree_root(leaves[node.index << node.level : (node.index + 1) << node.level]) for node in nodes]

    return read


def subtree_root(leaves: Sequence[bytes]) -> bytes:
    """Root over these leaf hashes; ``EMPTY_ROOT`` of none."""
    tree = CompactRange()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def root_plan(size: int) -> ProofPlan:
    """What the root of the first ``size`` entries (at least one) is made of; it folds to that one hash."""
    _check_size(size)
    if size == 0:
        _refuse(ProofFault.EMPTY_TREE, "the empty tree has no subtrees: its root is EMPTY_ROOT")
    return ProofPlan(((0, size),))


def inclusion_plan(index: int, size: int) -> ProofPlan:
    """``PATH(index, D[size])`` of RFC 6962, section 2.1.1. Raises ``InvalidProof`` unless 0 ≤ index < size."""
    _check_size(size)
    if not 0 <= index < size:
        _refuse(ProofFault.INDEX_OUT_OF_RANGE, f"a tree of {size} entries has no entry {index}")
    ranges: list[tuple[int, int]] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ProofPlan(tuple(reversed(ranges)))


def consistency_plan(old: int, new: int) -> ProofPlan:
    """``PROOF(old, D[new])`` of RFC 6962, section 2.1.2; nothing when they are equal.

    Raises ``InvalidProof`` unless 0 < old ≤ new: the empty tree is consistent with every other, and nothing shows it.
    """
    _check_sizes(old, new)
    ranges: list[tuple[int, int]] = []
    begin, end, known = 0, new, True
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin, known = middle, False
    if not known:
        ranges.append((begin, end))
    return ProofPlan(tuple(reversed(ranges)))


def inclusion_proof(index: int, size: int, read: HashReader) -> tuple[bytes, ...]:
    """That an entry is in the tree of that size, leaf's sibling first. Raises as ``inclusion_plan``."""
    return _made(inclusion_plan(index, size), read)


def consistency_proof(old: int, new: int, read: HashReader) -> tuple[bytes, ...]:
    """That the tree of the new size begins with that of the old. Raises as ``consistency_plan``."""
    return _made(consistency_plan(old, new), read)


def tree_root(size: int, read: HashReader) -> bytes:
    """Root over the first ``size`` entries, from complete subtrees."""
    return _made(root_plan(size), read)[0] if size else EMPTY_ROOT


def root_of_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root this proof leads to (RFC 9162, section 2.1.3.2, steps 1 to 4). Raises ``InvalidProof``."""
    _check_size(size)
    if not 0 <= index < size:
        _refuse(ProofFault.INDEX_OUT_OF_RANGE, f"a tree of {size} entries has no entry {index}")
    _check_hashes([leaf, *proof])
    fn, sn, root = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            _refuse(ProofFault.PROOF_TOO_LONG, f"{len(proof)} hashes are too many for entry {index} of {size}")
        if fn & 1 or fn == sn:
            root = node_hash(sibling, root)
            fn, sn = _skip(fn, sn)
        else:
            root = node_hash(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        _refuse(ProofFault.PROOF_TOO_SHORT, f"{len(proof)} hashes are too few for entry {index} of {size}")
    return root


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Whether the tree of this size and root has this leaf hash at ``index`` (RFC 9162, section 2.1.3.2).

    Raises ``InvalidProof`` with its reason if that is not shown.
    """
    _check_hashes([root])
    found = root_of_inclusion(index, size, leaf, proof)
    if found != root:
        _refuse(
            ProofFault.ROOT_MISMATCH,
            f"the proof for entry {index} of {size} leads to root {found.hex()}, the tree's is {root.hex()}",
        )


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Whether the tree of the new size and root begins with that of the old (RFC 9162, section 2.1.4.2).

    Raises ``InvalidProof`` with its reason if that is not shown. Equal sizes need equal roots and no hashes.
    """
    _check_sizes(old, new)
    _check_hashes([old_root, new_root, *proof])
    if old == new:
        if proof:
            _refuse(ProofFault.PROOF_TOO_LONG, f"between two trees of {old} entries there is nothing to prove")
        found_old = found_new = old_root
    else:
        found_old, found_new = _roots_of_consistency(old, new, proof, old_root)
    if found_old != old_root:
        _refuse(
            ProofFault.OLD_ROOT_MISMATCH,
            f"the proof from {old} to {new} entries begins with root {found_old.hex()}, "
            f"the tree of {old} has {old_root.hex()}: the first {old} entries are not the same",
        )
    if found_new != new_root:
        _refuse(
            ProofFault.ROOT_MISMATCH,
            f"the proof from {old} to {new} entries leads to root {found_new.hex()}, "
            f"the tree of {new} has {new_root.hex()}",
        )


def _roots_of_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """Steps 1 to 6 of RFC 9162, section 2.1.4.2: the two roots this proof leads to."""
    if not proof:
        _refuse(ProofFault.PROOF_TOO_SHORT, f"no hashes: the step from {old} to {new} entries is not shown")
    path = [old_root, *proof] if old.bit_count() == 1 else list(proof)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            _refuse(ProofFault.PROOF_TOO_LONG, f"{len(proof)} hashes are too many from {old} to {new} entries")
        if fn & 1 or fn == sn:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            fn, sn = _skip(fn, sn)
        else:
            second = node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        _refuse(ProofFault.PROOF_TOO_SHORT, f"{len(proof)} hashes are too few from {old} to {new} entries")
    return first, second


def _skip(fn: int, sn: int) -> tuple[int, int]:
    """Climb while the subtree is the right edge without a sibling (step 4.c of 2.1.3.2, 6.c of 2.1.4.2)."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _made(plan: ProofPlan, read: HashReader) -> tuple[bytes, ...]:
    nodes = plan.nodes
    return plan.fold(read(nodes)) if nodes else ()


def _split(width: int) -> int:
    """The largest power of two smaller than ``width`` (RFC 6962, section 2.1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _subtrees(begin: int, end: int) -> Iterator[Node]:
    """The complete subtrees that a range of the tree consists of, largest first."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield Node(level, begin >> level)
        begin += 1 << level


def _joined(peaks: Sequence[bytes]) -> bytes:
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        _refuse(ProofFault.SIZE_OUT_OF_RANGE, f"{size} is no number of entries (0 to 2^63-1)")


def _check_sizes(old: int, new: int) -> None:
    _check_size(old)
    _check_size(new)
    if old > new:
        _refuse(ProofFault.SIZES_REVERSED, f"a tree of {new} entries does not begin with one of {old}")
    if old == 0:
        _refuse(ProofFault.EMPTY_TREE, "from the empty tree nothing is proven: every tree begins with it")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for found in hashes:
        if len(found) != HASH_OCTETS:
            _refuse(ProofFault.HASH_LENGTH, f"a hash of {len(found)} octets; SHA-256 has {HASH_OCTETS}")


def _refuse(reason: ProofFault, message: str) -> NoReturn:
    raise InvalidProof(message, reason=reason.value)
