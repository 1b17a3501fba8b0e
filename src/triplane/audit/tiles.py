"""The tree cut into tiles, as C2SP tlog-tiles serves it ("Merkle Tree"): coordinates, names, and proofs from them.

Tiles hold only every eighth level of the tree, 256 hashes each; the levels between are hashed again when needed.
A tile that is not yet full is never part of a level above.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from triplane.audit.merkle import HASH_OCTETS, HashReader, Node, subtree_root
from triplane.errors import InvalidInput, InvalidProof

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
"""Hashes in a full tile, entries in a full bundle."""
ENTRIES: Final = "entries"
_PATH = re.compile(
    r"tile/(?P<level>[0-9]|[1-5][0-9]|6[0-3]|entries)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """``width`` consecutive hashes of one level. ``level`` is None for a bundle of entries, beside level 0."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """``tile/<L>/<N>[.p/<W>]``, the index in groups of three digits (section "Merkle Tree")."""
        level = ENTRIES if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{index_path(self.index)}{partial}"


TileReader = Callable[[Sequence[Tile]], Sequence[bytes]]
"""The octets of these tiles, in the same order: the hashes one after another."""


def index_path(index: int) -> str:
    """A number in groups of three digits: ``x001/x234/067`` (section "Merkle Tree")."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    return "/".join(groups)


def parse_path(path: str) -> Tile:
    """The inverse of ``Tile.path``. Raises ``InvalidInput`` for any other spelling."""
    found = _PATH.fullmatch(path)
    if found is not None:
        level = None if found["level"] == ENTRIES else int(found["level"])
        tile = Tile(level, int(found["index"].replace("/", "").replace("x", "")), int(found["width"] or WIDTH))
        if tile.width <= WIDTH and tile.path == path:
            return tile
    raise InvalidInput(f"{path[:100]!r} is no tile: write tile/<level>/<index in threes>[.p/<1 to 255>]")


def tiles_of(size: int, *, after: int = 0) -> tuple[Tile, ...]:
    """Every tile of hashes of a tree of this size that the tree of size ``after`` did not have, level by level."""
    found: list[Tile] = []
    level, before, now = 0, after, size
    while now:
        found.extend(Tile(level, index) for index in range(before // WIDTH, now // WIDTH))
        if now % WIDTH and (now // WIDTH, now % WIDTH) != (before // WIDTH, before % WIDTH):
            found.append(Tile(level, now // WIDTH, now % WIDTH))
        level, before, now = level + 1, before // WIDTH, now // WIDTH
    return tuple(found)


def tile_holding(node: Node, size: int) -> Tile:
    """The tile of a tree of this size from which the hash of a complete subtree is made."""
    level, climb = divmod(node.level, HEIGHT)
    index = node.index >> (HEIGHT - climb)
    return Tile(level, index, min(WIDTH, (size >> (level * HEIGHT)) - index * WIDTH))


def tile_reader(size: int, read: TileReader) -> HashReader:
    """Reads subtrees off the tiles of a tree of this size, each tile once.

    Raises ``InvalidProof`` for a tile that is not as long as it must be.
    """

    def hashes(nodes: Sequence[Node]) -> list[bytes]:
        tiles = list(dict.fromkeys(tile_holding(node, size) for node in nodes))
        octets = dict(zip(tiles, read(tiles), strict=True))
        for tile, found in octets.items():
            if len(found) != tile.width * HASH_OCTETS:
                raise InvalidProof(
                    f"{tile.path} has {len(found)} octets, not {tile.width * HASH_OCTETS}: fetch it again",
                    reason="HashLength",
                )
        return [_in_tile(node, octets[tile_holding(node, size)]) for node in nodes]

    return hashes


def split_hashes(octets: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [octets[start : start + HASH_OCTETS] for start in range(0, len(octets), HASH_OCTETS)]


def _in_tile(node: Node, octets: bytes) -> bytes:
    count = 1 << (node.level % HEIGHT)
    first = (node.index * count) % WIDTH
    return subtree_root(split_hashes(octets[first * HASH_OCTETS : (first + count) * HASH_OCTETS]))
