"""Are the hashes that are kept of the log's tree those of its entries?

Proofs are made of them, and nobody believes a proof that leads to another root: altered ones do no harm but that there
are no proofs. A verification of the whole log computes them all and says which differ.
"""

from typing import Final

from triplane.audit.chain import BreakReason, broken_at
from triplane.audit.merkle import HASH_OCTETS, Node
from triplane.audit.model import Break
from triplane.errors import Corrupt
from triplane.ports import CheckpointStore

_PAGE: Final = 1000


class KeptHashes:
    """Gathers what a verification computes (``Given.grown``), and compares what is kept; 32 octets for 256 entries."""

    def __init__(self) -> None:
        self._levels: dict[int, bytearray] = {}

    def grown(self, node: Node, hash_: bytes) -> None:
        """See ``Given.grown``; from the first of each level on."""
        self._levels.setdefault(node.level, bytearray()).extend(hash_)

    async def problem(self, checkpoints: CheckpointStore, size: int) -> Break | None:
        """The first that differs or is missing of the subtrees of the first ``size`` entries: the notary keeps those
        before it publishes a checkpoint of that size."""
        for level, hashes in sorted(self._levels.items()):
            count = min(len(hashes) // HASH_OCTETS, size >> level)
            for first in range(0, count, _PAGE):
                nodes = [Node(level, index) for index in range(first, min(first + _PAGE, count))]
                computed = bytes(hashes[first * HASH_OCTETS : (first + len(nodes)) * HASH_OCTETS])
                if await _kept(checkpoints, nodes) == computed:
                    continue
                for place, node in enumerate(nodes):
                    wanted = computed[place * HASH_OCTETS : (place + 1) * HASH_OCTETS]
                    if (found := await _kept(checkpoints, [node])) != wanted:
                        return _differs(node, wanted, found)
        return None


async def _kept(checkpoints: CheckpointStore, nodes: list[Node]) -> bytes | None:
    try:
        return b"".join(await checkpoints.hashes(nodes))
    except Corrupt:
        return None


def _differs(node: Node, wanted: bytes, found: bytes | None) -> Break:
    first, last = node.index << node.level, ((node.index + 1) << node.level) - 1
    is_kept = "is missing" if found is None else f"is {found.hex()}"
    message = (
        f"the hash kept of entries {first} to {last} (log.subtrees, level {node.level}, index {node.index}) {is_kept}; "
        f"the entries make {wanted.hex()}"
    )
    return broken_at(first, BreakReason.SUBTREE_MISMATCH, message)
