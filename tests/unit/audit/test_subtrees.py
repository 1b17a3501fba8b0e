"""Kept subtrees: what is kept while a tree grows, and that any subtree is made from few of them."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triplane.audit.merkle import CompactRange, Node, leaf_reader, root_plan, subtree_root
from triplane.audit.subtrees import GrowingTree, Row, check_committed, check_kept, folded, row_of
from triplane.audit.verifying import Given, Trunk, segment_of
from triplane.errors import InvalidProof

LEAVES = [sha256(b"%d" % n).digest() for n in range(1300)]


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 1300), second=st.integers(0, 1300))
def test_a_tree_taken_up_again_keeps_what_one_grown_at_once_keeps(first: int, second: int) -> None:
    size, more = sorted((first, second))
    nodes = root_plan(size).nodes if size else ()
    tree = GrowingTree(size, leaf_reader(LEAVES)(nodes))
    for leaf in LEAVES[size:more]:
        tree.add(leaf)
    assert tree.root() == subtree_root(LEAVES[:more])
    expected = [Node(8, n) for n in range(size // 256, more // 256)]
    assert [node for node, _ in tree.completed] == expected
    assert [hash_ for _, hash_ in tree.completed] == leaf_reader(LEAVES)(expected)


def test_a_verification_tells_of_the_subtrees_that_are_kept() -> None:
    leaves = LEAVES[:256] * 256 + LEAVES
    tree = GrowingTree()
    told: list[tuple[Node, bytes]] = []
    trunk = Trunk(0, Given(grown=lambda node, hash_: told.append((node, hash_))), "", tree=True)
    for first in range(0, len(leaves), 4096):
        part = leaves[first : first + 4096]
        assert trunk.join(segment_of(part, (), (first, "", "", ""), tree=True)) is None
    for leaf in leaves:
        tree.add(leaf)
    assert told == tree.completed
    assert told[256][0] == Node(16, 0)


def test_higher_levels_are_kept_too() -> None:
    size = 2**16 - 1
    tree = GrowingTree(size, [sha256(b"%d" % n).digest() for n in range(size.bit_count())])
    whole = CompactRange(size, [sha256(b"%d" % n).digest() for n in range(size.bit_count())])
    tree.add(LEAVES[0])
    whole.add(LEAVES[0])
    assert [node for node, _ in tree.completed] == [Node(8, 255), Node(16, 0)]
    assert tree.completed[1][1] == whole.root()


@pytest.mark.parametrize(
    ("node", "row"),
    [
        (Node(0, 7), Row(0, 7, 1)),
        (Node(7, 3), Row(0, 384, 128)),
        (Node(8, 3), Row(8, 3, 1)),
        (Node(10, 3), Row(8, 12, 4)),
        (Node(23, 1), Row(16, 128, 128)),
    ],
    ids=str,
)
def test_a_subtree_is_made_of_at_most_128_kept_ones(node: Node, row: Row) -> None:
    assert row_of(node) == row


@given(level=st.integers(0, 7))
def test_folding_a_row_is_the_subtrees_root(level: int) -> None:
    assert folded(LEAVES[: 1 << level]) == subtree_root(LEAVES[: 1 << level])


@pytest.mark.parametrize("node", [Node(0, 10), Node(2, 2), Node(0, -1), Node(-1, 0)], ids=str)
def test_what_goes_beyond_the_log_is_refused(node: Node) -> None:
    check_committed([Node(0, 9), Node(1, 4)], 10)
    with pytest.raises(InvalidProof, match="the log has 10 entries"):
        check_committed([node], 10)


@pytest.mark.parametrize("level", [0, 1, 7, 9, 15])
def test_only_every_eighth_level_is_kept(level: int) -> None:
    check_kept([(Node(8, 0), bytes(32)), (Node(16, 0), bytes(32))])
    with pytest.raises(InvalidProof, match="is not kept"):
        check_kept([(Node(level, 0), bytes(32))])
