"""RFC 6962 Merkle tree hashes, section 2.1, computed left to right in logarithmic space."""

from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without entries."""


def leaf_hash(octets: bytes) -> bytes:
    """``SHA-256(0x00 ‖ octets)``: also what the next entry's ``prev`` names."""
    return sha256(b"\x00" + octets).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 ‖ left ‖ right)``."""
    return sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The tree over the leaves added so far, kept as the roots of its complete subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

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
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root
