"""What the files of a log laid out as C2SP tlog-tiles hold (https://c2sp.org/tlog-tiles); their names are in ``tiles``.

A hash enters the level above only once its tile is full, so a full tile never changes and anybody may keep a copy of it
for ever. What is not full is named by its width, and is a file of its own for every size that was signed. Entries lie
beside the tree, in bundles that match the tiles of level 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from triplane.audit.merkle import EMPTY_ROOT, HASH_OCTETS, node_hash, subtree_root
from triplane.audit.tiles import WIDTH, Tile, split_hashes
from triplane.errors import InvalidInput

CHECKPOINT: Final = "checkpoint"
"""The one file that changes."""
MAX_ENTRY: Final = 0xFFFF
"""Octets of an entry: a bundle frames it with a big-endian 16-bit length."""
MAX_FILE: Final = WIDTH * (2 + MAX_ENTRY)
"""Octets of the largest file, a bundle; a reader need take no more."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the layout; ``path`` is relative to the log's directory or URL."""

    path: str
    octets: bytes


def bundle_of(index: int, size: int) -> Tile:
    """The bundle that holds entry ``index`` of a log of this size."""
    number = index // WIDTH
    return Tile(None, number, min(WIDTH, size - number * WIDTH))


def bundles_of(size: int, *, after: int = 0) -> tuple[Tile, ...]:
    """Every bundle of a log of this size that one of size ``after`` did not have."""
    return tuple(bundle_of(index, size) for index in range(after - after % WIDTH, size, WIDTH)) if size > after else ()


def edge(size: int) -> tuple[Tile, ...]:
    """The hash tiles of a tree of this size that are not full, lowest first: what must be read to extend it."""
    found = []
    level = 0
    while size:
        if size % WIDTH:
            found.append(Tile(level, size // WIDTH, size % WIDTH))
        size, level = size // WIDTH, level + 1
    return tuple(found)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry after its length, a big-endian uint16 ("Log entries"). Raises ``InvalidInput`` for one too long."""
    parts = []
    for octets in entries:
        if len(octets) > MAX_ENTRY:
            raise InvalidInput(f"an entry of {len(octets)} octets, over {MAX_ENTRY}, cannot be framed: use a blob")
        parts += [len(octets).to_bytes(2), octets]
    return b"".join(parts)


def parse_bundle(octets: bytes, width: int) -> list[bytes]:
    """The entries of a bundle. Raises ``InvalidInput`` unless they are exactly ``width`` and nothing follows."""
    entries: list[bytes] = []
    at = 0
    while at < len(octets):
        start = at + 2
        end = start + int.from_bytes(octets[at:start])
        if start > len(octets) or end > len(octets):
            raise InvalidInput(f"the bundle ends within the {len(entries) + 1}. of its entries: it was cut off")
        entries.append(octets[start:end])
        at = end
    if len(entries) != width:
        raise InvalidInput(f"the bundle holds {len(entries)} entries, not {width}")
    return entries


def parse_tile(octets: bytes, width: int) -> list[bytes]:
    """The hashes of a tile. Raises ``InvalidInput`` unless they are exactly ``width``."""
    if len(octets) != width * HASH_OCTETS:
        raise InvalidInput(f"the tile has {len(octets)} octets, not {width} hashes of {HASH_OCTETS}")
    return split_hashes(octets)


class TileTree:
    """Grows leaf by leaf and gives each tile once it is full; holds only the right edge, 8 KiB a level."""

    def __init__(self, size: int = 0, edges: Sequence[tuple[Tile, Sequence[bytes]]] = ()) -> None:
        """``edges``: the tiles of ``edge(size)`` and their hashes. Raises ``InvalidInput`` when they are others."""
        if tuple(tile for tile, _ in edges) != edge(size) or any(tile.width != len(row) for tile, row in edges):
            raise InvalidInput(f"these are not the partial tiles of a tree of {size} entries: {edge(size)} are")
        self.size = size
        self._rows: list[list[bytes]] = []
        for tile, row in edges:
            self._row(tile.level or 0).extend(row)

    def add(self, leaf: bytes) -> list[File]:
        """Append one leaf *hash*; the tiles that it fills, lowest first."""
        full: list[File] = []
        self.size += 1
        level, hash_, count = 0, leaf, self.size
        while True:
            row = self._row(level)
            row.append(hash_)
            if len(row) < WIDTH:
                return full
            full.append(File(Tile(level, count // WIDTH - 1).path, b"".join(row)))
            level, hash_, count = level + 1, subtree_root(row), count // WIDTH
            row.clear()

    def partial(self) -> list[File]:
        """The tiles of this size that are not full, lowest first."""
        return [File(tile.path, b"".join(self._rows[tile.level or 0])) for tile in edge(self.size)]

    def root(self) -> bytes:
        """Root over everything added; ``EMPTY_ROOT`` when that is nothing."""
        lower: bytes | None = None
        for row in self._rows:
            lower = _joined(row, lower)
        return EMPTY_ROOT if lower is None else lower

    def _row(self, level: int) -> list[bytes]:
        while len(self._rows) <= level:
            self._rows.append([])
        return self._rows[level]


def _joined(row: Sequence[bytes], lower: bytes | None) -> bytes | None:
    """RFC 6962 over a row of equal subtrees and, at its right, the smaller one that the rows below make."""
    at, joined = len(row), lower
    while at:
        width = at & -at
        left = subtree_root(row[at - width : at])
        joined = left if joined is None else node_hash(left, joined)
        at -= width
    return joined
