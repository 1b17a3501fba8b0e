"""Tiles: names, which ones a tree has, and proofs read off them."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.audit.vectorfiles import vectors

from triplane.audit.merkle import (
    Node,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    subtree_root,
    tree_root,
)
from triplane.audit.tiles import WIDTH, Tile, parse_path, split_hashes, tile_holding, tile_reader, tiles_of
from triplane.errors import InvalidInput, InvalidProof

LEAVES = [leaf_hash(str(number).encode()) for number in range(70_000)]


LEVELS = [LEAVES]
"""Every complete subtree, hashed once."""
while len(LEVELS[-1]) > 1:
    LEVELS.append([node_hash(*pair) for pair in zip(LEVELS[-1][::2], LEVELS[-1][1::2], strict=False)])


def published(size: int) -> dict[Tile, bytes]:
    """Every tile of the tree of this size, by its definition (C2SP tlog-tiles, "Merkle Tree")."""
    found: dict[Tile, bytes] = {}
    hashes = LEAVES[:size]
    level = 0
    while hashes:
        for start in range(0, len(hashes), WIDTH):
            group = hashes[start : start + WIDTH]
            found[Tile(level, start // WIDTH, len(group))] = b"".join(group)
        full = len(hashes) // WIDTH
        hashes = [subtree_root(hashes[n * WIDTH : (n + 1) * WIDTH]) for n in range(full)]
        level += 1
    return found


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000])
def test_a_tree_has_exactly_the_tiles_of_the_definition(size: int) -> None:
    assert set(tiles_of(size)) == set(published(size))
    assert len(set(tiles_of(size))) == len(tiles_of(size))


def test_the_example_of_the_specification() -> None:
    for level, (full, partial) in vectors("c2sp")["tilesOf70000"].items():
        tiles = [tile for tile in tiles_of(70_000) if tile.level == int(level)]
        assert [tile.width for tile in tiles] == [WIDTH] * full + [partial]
    assert [tile.path for tile in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_what_is_new_since_an_earlier_size_is_all_there_was_not(one: int, two: int) -> None:
    before, now = sorted((one, two))
    assert set(tiles_of(now, after=before)) == set(tiles_of(now)) - set(tiles_of(before))


@pytest.mark.parametrize(("index", "text"), vectors("c2sp")["tilePaths"].items())
def test_a_tile_is_named_as_the_specification_shows(index: str, text: str) -> None:
    assert Tile(0, int(index)).path == f"tile/0/{text}"
    assert Tile(None, int(index), 7).path == f"tile/entries/{text}.p/7"


@given(st.none() | st.integers(0, 63), st.integers(0, 2**55), st.integers(1, WIDTH))
def test_a_name_is_read_as_it_was_written(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    ["tile/64/000", "tile/00/000", "tile/0/0", "tile/0/x000/001", "tile/0/1000", "tile/0/001/002", "tile/0/000.p/0",
     "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/01", "tile/-1/000", "tile/0/٠٠٠", "/tile/0/000",
     "tile/0/../000", "tile/data/000", "tile/0/000\n", ""],
)  # fmt: skip
def test_another_spelling_names_no_tile(path: str) -> None:
    with pytest.raises(InvalidInput, match="no tile"):
        parse_path(path)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 255, 256, 257, 600, 65_535, 65_536, 65_537, 70_000]))
def test_proofs_from_tiles_are_those_from_leaves(data: st.DataObject, size: int) -> None:
    tiles = TILES[size]
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    asked: list[Tile] = []

    def read(wanted: Sequence[Tile]) -> list[bytes]:
        asked.extend(wanted)
        return [tiles[tile] for tile in wanted]

    def from_leaves(nodes: Sequence[Node]) -> list[bytes]:
        assert all((node.index + 1) << node.level <= size for node in nodes)
        return [LEVELS[node.level][node.index] for node in nodes]

    from_tiles = tile_reader(size, read)
    assert inclusion_proof(index, size, from_tiles) == inclusion_proof(index, size, from_leaves)
    assert len(asked) == len(set(asked)) <= 6
    assert consistency_proof(old, size, from_tiles) == consistency_proof(old, size, from_leaves)
    assert tree_root(size, from_tiles) == tree_root(size, from_leaves)


TILES = {size: published(size) for size in (1, 2, 255, 256, 257, 600, 65_535, 65_536, 65_537, 70_000)}


def test_a_cut_tile_is_named() -> None:
    def cut(wanted: Sequence[Tile]) -> list[bytes]:
        return [TILES[600][tile][: 31 if tile.level == 0 else None] for tile in wanted]

    with pytest.raises(InvalidProof, match=r"tile/0/002\.p/88 has 31 octets, not 2816") as refused:
        tree_root(600, tile_reader(600, cut))
    assert refused.value.reason == "HashLength"


def test_subtrees_of_every_height_are_in_the_tile_of_their_level() -> None:
    assert tile_holding(Node(0, 599), 600) == Tile(0, 2, 88)
    assert tile_holding(Node(7, 1), 600) == Tile(0, 0, 256)
    assert tile_holding(Node(8, 1), 600) == Tile(1, 0, 2)
    assert split_hashes(TILES[600][Tile(0, 2, 88)]) == LEAVES[512:600]
