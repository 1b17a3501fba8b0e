"""The files of a tlog-tiles log, against the definition: tile n of level l are the roots of 256^l leaves each."""

import pytest

from triplane.audit.layout import (
    MAX_ENTRY,
    MAX_FILE,
    TileTree,
    bundle_of,
    bundles_of,
    edge,
    encode_bundle,
    parse_bundle,
    parse_tile,
)
from triplane.audit.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)
from triplane.audit.tiles import WIDTH, Tile, parse_path, tile_reader, tiles_of
from triplane.errors import InvalidInput

LEAVES = [leaf_hash(str(number).encode()) for number in range(70_000)]


def grown(size: int) -> dict[str, bytes]:
    """Path to octets of all tiles."""
    tree = TileTree()
    full = [file for leaf in LEAVES[:size] for file in tree.add(leaf)]
    return {file.path: file.octets for file in [*full, *tree.partial()]}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 1000, 65_535, 65_536, 65_537, 70_000])
def test_the_tiles_of_a_tree_are_those_of_the_definition(size: int) -> None:
    found = grown(size)
    assert sorted(found) == sorted(tile.path for tile in tiles_of(size))
    for tile in tiles_of(size):
        step = WIDTH ** (tile.level or 0)
        first = tile.index * WIDTH * step
        row = [subtree_root(LEAVES[at : at + step]) for at in range(first, first + tile.width * step, step)]
        assert found[tile.path] == b"".join(row), tile.path


def test_the_specifications_example_of_seventy_thousand() -> None:
    found = grown(70_000)
    assert len([path for path in found if path.startswith("tile/0/")]) == 273 + 1
    assert {path for path in found if ".p/" in path} == {"tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"}
    assert parse_path("tile/0/273.p/112") in edge(70_000)


def test_the_root_is_that_of_the_leaves_at_every_size() -> None:
    tree, reference = TileTree(), CompactRange()
    assert tree.root() == EMPTY_ROOT
    for leaf in LEAVES[:1100]:
        tree.add(leaf)
        reference.add(leaf)
        assert (tree.size, tree.root()) == (reference.size, reference.root())


@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 65_536, 65_793])
def test_a_tree_goes_on_from_its_edge_as_if_it_had_never_stopped(size: int) -> None:
    found = grown(size)
    resumed = TileTree(size, [(tile, parse_tile(found[tile.path], tile.width)) for tile in edge(size)])
    whole = TileTree()
    for leaf in LEAVES[:size]:
        whole.add(leaf)
    for leaf in LEAVES[size : size + 300]:
        assert resumed.add(leaf) == whole.add(leaf)
    assert resumed.partial() == whole.partial()
    assert resumed.root() == whole.root()


@pytest.mark.parametrize(
    ("size", "edges"),
    [
        pytest.param(3, [], id="a tile missing"),
        pytest.param(0, [(Tile(0, 0, 1), [b"\0" * 32])], id="a tile too many"),
        pytest.param(3, [(Tile(0, 0, 3), [b"\0" * 32])], id="a tile with fewer hashes than it says"),
        pytest.param(3, [(Tile(0, 0, 2), [b"\0" * 32] * 2)], id="a tile of another size"),
        pytest.param(257, [(Tile(1, 0, 1), [b""]), (Tile(0, 1, 1), [b""])], id="tiles in another order"),
    ],
)
def test_a_tree_does_not_go_on_from_what_is_no_edge(size: int, edges: list[tuple[Tile, list[bytes]]]) -> None:
    with pytest.raises(InvalidInput, match=f"tree of {size} entries"):
        TileTree(size, edges)


def test_proofs_are_made_of_tiles_alone() -> None:
    size, found = 1000, grown(1000)
    read = tile_reader(size, lambda tiles: [found[tile.path] for tile in tiles])
    root = subtree_root(LEAVES[:size])
    for index in (0, 1, 255, 256, 511, 998, 999):
        verify_inclusion(index, size, LEAVES[index], inclusion_proof(index, size, read), root)
    for old in (1, 2, 255, 256, 257, 768, 999):
        verify_consistency(old, size, consistency_proof(old, size, read), subtree_root(LEAVES[:old]), root)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
def test_bundles_match_the_tiles_of_level_0(size: int) -> None:
    assert [(it.index, it.width) for it in bundles_of(size)] == [
        (it.index, it.width) for it in tiles_of(size) if it.level == 0
    ]
    assert {bundle_of(index, size) for index in range(size)} == set(bundles_of(size))
    for after in range(size):
        old = set(bundles_of(after))
        assert [it for it in bundles_of(size) if it not in old] == list(bundles_of(size, after=after))


def test_entries_are_framed_with_two_octets_of_length() -> None:
    assert encode_bundle([b"", b"ab", b"c" * 256]) == b"\0\0\0\2ab\1\0" + b"c" * 256
    entries = [b"", b"x" * MAX_ENTRY, b"y"]
    assert parse_bundle(encode_bundle(entries), 3) == entries
    assert len(encode_bundle([b"x" * MAX_ENTRY] * WIDTH)) == MAX_FILE
    with pytest.raises(InvalidInput, match="65536 octets"):
        encode_bundle([b"x" * (MAX_ENTRY + 1)])


@pytest.mark.parametrize(
    ("octets", "width", "message"),
    [
        pytest.param(b"\0\1a", 2, "holds 1 entries, not 2", id="an entry missing"),
        pytest.param(b"\0\1a\0\1b", 1, "holds 2 entries, not 1", id="an entry too many"),
        pytest.param(b"\0\1a\0", 1, "cut off", id="half a length at the end"),
        pytest.param(b"\0\1a\0\2b", 2, "cut off", id="half an entry at the end"),
        pytest.param(b"", 1, "holds 0 entries", id="nothing"),
    ],
)
def test_a_bundle_of_another_shape_is_refused(octets: bytes, width: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_bundle(octets, width)


@pytest.mark.parametrize("octets", [b"", b"\0" * 31, b"\0" * 33, b"\0" * 64])
def test_a_tile_of_another_length_is_refused(octets: bytes) -> None:
    with pytest.raises(InvalidInput, match="not 1 hashes"):
        parse_tile(octets, 1)
