"""Merkle proofs: published vectors, a brute-force tree, and that nothing but the right proof is believed."""

import base64
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.vectorfiles import REPOSITORY, vectors

from triplane.audit.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    CompactRange,
    Node,
    ProofFault,
    consistency_plan,
    consistency_proof,
    inclusion_plan,
    inclusion_proof,
    leaf_hash,
    leaf_reader,
    node_hash,
    root_plan,
    subtree_root,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from triplane.errors import InvalidProof

LEAVES = [leaf_hash(str(number).encode()) for number in range(70)]


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word, on leaf hashes."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = half(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def half(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    return [*path(m, leaves[:k]), mth(leaves[k:])] if m < k else [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], known: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2, word for word."""
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = half(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


@pytest.mark.parametrize(("name", "case"), vectors("merkle_inclusion").items(), ids=str)
def test_inclusion_vectors_of_transparency_dev(name: str, case: dict[str, Any]) -> None:
    proof = [decoded(item) for item in case["proof"] or []]

    def check() -> None:
        verify_inclusion(case["leafIdx"], case["treeSize"], decoded(case["leafHash"]), proof, decoded(case["root"]))

    if case["wantErr"]:
        with pytest.raises(InvalidProof):
            check()
    else:
        check()


SHORT_ROOTS = "consistency/additional/sizes-are-equal-one-and-proof-is-empty"
"""Equal "roots" of 12 octets, which other verifiers never look at: refused here, for they are no SHA-256 hashes."""


@pytest.mark.parametrize(("name", "case"), vectors("merkle_consistency").items(), ids=str)
def test_consistency_vectors_of_transparency_dev(name: str, case: dict[str, Any]) -> None:
    proof = [decoded(item) for item in case["proof"] or []]

    def check() -> None:
        verify_consistency(case["size1"], case["size2"], proof, decoded(case["root1"]), decoded(case["root2"]))

    if case["wantErr"] or name == SHORT_ROOTS:
        with pytest.raises(InvalidProof) as refused:
            check()
        assert (name == SHORT_ROOTS) <= (refused.value.reason == ProofFault.HASH_LENGTH)
    else:
        check()


def test_the_vectors_are_all_there() -> None:
    assert [len(vectors(f"merkle_{kind}")) for kind in ("inclusion", "consistency")] == [98, 98]
    assert [sum(not case["wantErr"] for case in vectors(f"merkle_{kind}").values()) for kind in
            ("inclusion", "consistency")] == [6, 6]  # fmt: skip


@pytest.mark.parametrize("size", range(1, 35))
def test_every_proof_of_a_small_tree_is_the_one_of_the_rfc_and_holds(size: int) -> None:
    leaves, read = LEAVES[:size], leaf_reader(LEAVES[:size])
    root = mth(leaves)
    assert tree_root(size, read) == subtree_root(leaves) == root
    for index in range(size):
        proof = inclusion_proof(index, size, read)
        assert list(proof) == path(index, leaves)
        verify_inclusion(index, size, leaves[index], proof, root)
    for old in range(1, size + 1):
        proof = consistency_proof(old, size, read)
        assert list(proof) == subproof(old, leaves, known=True)
        verify_consistency(old, size, proof, mth(leaves[:old]), root)


contents = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


@given(st.data(), contents)
def test_proofs_over_any_leaves_are_those_of_the_brute_force_tree(data: st.DataObject, leaves: list[bytes]) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    old = data.draw(st.integers(1, len(leaves)))
    read, root = leaf_reader(leaves), mth(leaves)
    assert list(inclusion_proof(index, len(leaves), read)) == path(index, leaves)
    assert list(consistency_proof(old, len(leaves), read)) == subproof(old, leaves, known=True)
    verify_inclusion(index, len(leaves), leaves[index], path(index, leaves), root)
    verify_consistency(old, len(leaves), subproof(old, leaves, known=True), mth(leaves[:old]), root)


@given(st.data(), st.integers(1, MAX_SIZE))
def test_a_plan_in_a_tree_of_any_size_asks_for_few_complete_subtrees_each_once(data: st.DataObject, size: int) -> None:
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    for plan, limit in ((inclusion_plan(index, size), 63), (consistency_plan(old, size), 64), (root_plan(size), 1)):
        assert len(plan.ranges) <= limit
        assert len(set(plan.nodes)) == len(plan.nodes) <= 2 * 64
        assert all((node.index + 1) << node.level <= size for node in plan.nodes)
    covered = sorted([(index, index + 1), *inclusion_plan(index, size).ranges])
    assert covered[0][0] == 0
    assert covered[-1][1] == size
    assert all(left[1] == right[0] for left, right in pairwise(covered))


@given(st.data(), st.integers(2, MAX_SIZE))
def test_a_proof_in_a_huge_tree_holds_and_an_altered_one_does_not(data: st.DataObject, size: int) -> None:
    """Nobody has such a tree: its subtrees' hashes are made up, and the root follows from them."""
    index = data.draw(st.integers(0, size - 1))
    leaf = leaf_hash(b"leaf")
    made = [leaf_hash(b"%d %d" % node) for node in inclusion_plan(index, size).ranges]
    root, at = leaf, (index, index + 1)
    for begin_end, sibling in zip(inclusion_plan(index, size).ranges, made, strict=True):
        root = node_hash(sibling, root) if begin_end[0] < at[0] else node_hash(root, sibling)
        at = (min(at[0], begin_end[0]), max(at[1], begin_end[1]))
    verify_inclusion(index, size, leaf, made, root)
    place, bit = data.draw(st.integers(0, len(made) - 1)), data.draw(st.integers(0, 255))
    made[place] = (int.from_bytes(made[place], "big") ^ 1 << bit).to_bytes(32, "big")
    with pytest.raises(InvalidProof, match="leads to root"):
        verify_inclusion(index, size, leaf, made, root)


@given(st.data(), st.integers(2, 60))
def test_no_alteration_of_an_inclusion_proof_is_believed(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = list(inclusion_proof(index, size, leaf_reader(LEAVES)))
    alter = data.draw(st.sampled_from(ALTERATIONS))
    altered = alter(data, proof)
    if altered != proof:
        with pytest.raises(InvalidProof):
            verify_inclusion(index, size, LEAVES[index], altered, mth(LEAVES[:size]))
    other = data.draw(st.integers(0, size - 1).filter(lambda found: found != index))
    with pytest.raises(InvalidProof):
        verify_inclusion(other, size, LEAVES[index], proof, mth(LEAVES[:size]))


@given(st.data(), st.integers(2, 60))
def test_no_alteration_of_a_consistency_proof_is_believed(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size - 1))
    proof = list(consistency_proof(old, size, leaf_reader(LEAVES)))
    roots = mth(LEAVES[:old]), mth(LEAVES[:size])
    altered = data.draw(st.sampled_from(ALTERATIONS))(data, proof)
    if altered != proof:
        with pytest.raises(InvalidProof):
            verify_consistency(old, size, altered, *roots)
    with pytest.raises(InvalidProof):
        verify_consistency(old, size, proof, *reversed(roots))
    other = data.draw(st.integers(1, size - 1).filter(lambda found: found != old))
    with pytest.raises(InvalidProof):
        verify_consistency(other, size, proof, *roots)


def _flip(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    changed = (int.from_bytes(proof[place], "big") ^ 1 << bit).to_bytes(32, "big")
    return [*proof[:place], changed, *proof[place + 1 :]]


def _drop(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    place = data.draw(st.integers(0, len(proof) - 1))
    return proof[:place] + proof[place + 1 :]


def _insert(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    place = data.draw(st.integers(0, len(proof)))
    return [*proof[:place], data.draw(st.sampled_from([*proof, b"\0" * 32, EMPTY_ROOT])), *proof[place:]]


def _swap(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    return data.draw(st.permutations(proof))


def _cut(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    return [*proof[:-1], proof[-1][: data.draw(st.integers(0, 31))]]


ALTERATIONS: list[Callable[[st.DataObject, list[bytes]], list[bytes]]] = [_flip, _drop, _insert, _swap, _cut]


PROOF = list(inclusion_proof(2, 7, leaf_reader(LEAVES)))
GROWTH = list(consistency_proof(3, 7, leaf_reader(LEAVES)))
OLD, ROOT = mth(LEAVES[:3]), mth(LEAVES[:7])


@pytest.mark.parametrize(
    ("index", "size", "proof", "reason"),
    [
        pytest.param(7, 7, PROOF, "IndexOutOfRange", id="an entry past the end"),
        pytest.param(-1, 7, PROOF, "IndexOutOfRange", id="an entry before the first"),
        pytest.param(0, 0, [], "IndexOutOfRange", id="an entry of the empty tree"),
        pytest.param(2, 2**63, PROOF, "SizeOutOfRange", id="a tree beyond every size"),
        pytest.param(2, -1, PROOF, "SizeOutOfRange", id="a tree of less than nothing"),
        pytest.param(2, 7, PROOF[:-1], "ProofTooShort", id="the last hash cut off"),
        pytest.param(2, 7, [], "ProofTooShort", id="no hashes"),
        pytest.param(2, 7, [*PROOF, ROOT], "ProofTooLong", id="a hash too many"),
        pytest.param(2, 7, [PROOF[0][:31], *PROOF[1:]], "HashLength", id="a hash of 31 octets"),
        pytest.param(2, 7, [PROOF[1], PROOF[0], PROOF[2]], "RootMismatch", id="two hashes swapped"),
        pytest.param(3, 7, PROOF, "RootMismatch", id="the proof of a neighbour"),
        pytest.param(2, 9, PROOF, "ProofTooShort", id="the proof of a smaller tree"),
    ],
)
def test_a_malformed_inclusion_proof_is_refused_by_name(index: int, size: int, proof: list[bytes], reason: str) -> None:
    with pytest.raises(InvalidProof) as refused:
        verify_inclusion(index, size, LEAVES[2], proof, ROOT)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("old", "new", "proof", "roots", "reason"),
    [
        pytest.param(7, 3, GROWTH, (ROOT, OLD), "SizesReversed", id="from larger to smaller"),
        pytest.param(0, 7, [], (EMPTY_ROOT, ROOT), "EmptyTree", id="from nothing"),
        pytest.param(0, 0, [], (EMPTY_ROOT, EMPTY_ROOT), "EmptyTree", id="from nothing to nothing"),
        pytest.param(3, 2**63, GROWTH, (OLD, ROOT), "SizeOutOfRange", id="a tree beyond every size"),
        pytest.param(3, 7, [], (OLD, ROOT), "ProofTooShort", id="no hashes"),
        pytest.param(4, 7, [], (mth(LEAVES[:4]), ROOT), "ProofTooShort", id="no hashes after a complete tree"),
        pytest.param(3, 7, GROWTH[:-1], (OLD, ROOT), "ProofTooShort", id="the last hash cut off"),
        pytest.param(3, 7, [*GROWTH, ROOT], (OLD, ROOT), "ProofTooLong", id="a hash too many"),
        pytest.param(3, 3, GROWTH, (OLD, OLD), "ProofTooLong", id="hashes where nothing is to prove"),
        pytest.param(3, 7, [b"", *GROWTH[1:]], (OLD, ROOT), "HashLength", id="an empty hash"),
        pytest.param(3, 7, GROWTH, (OLD, ROOT[:20]), "HashLength", id="a short root"),
        pytest.param(3, 7, GROWTH, (LEAVES[0], ROOT), "OldRootMismatch", id="another old root"),
        pytest.param(3, 3, [], (OLD, ROOT), "RootMismatch", id="one size and two roots"),
        pytest.param(3, 7, GROWTH, (OLD, LEAVES[0]), "RootMismatch", id="another new root"),
    ],
)
def test_a_malformed_consistency_proof_is_refused_by_name(
    old: int, new: int, proof: list[bytes], roots: tuple[bytes, bytes], reason: str
) -> None:
    with pytest.raises(InvalidProof) as refused:
        verify_consistency(old, new, proof, *roots)
    assert refused.value.reason == reason


def test_a_leaf_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidProof, match="31 octets"):
        verify_inclusion(2, 7, LEAVES[2][:31], PROOF, ROOT)


@pytest.mark.parametrize(
    "plan", [lambda: inclusion_plan(7, 7), lambda: consistency_plan(0, 7), lambda: root_plan(0)], ids=str
)
def test_what_cannot_be_proven_is_not_planned(plan: Callable[[], object]) -> None:
    with pytest.raises(InvalidProof):
        plan()


def test_a_reader_of_leaves_refuses_what_it_does_not_hold() -> None:
    with pytest.raises(InvalidProof, match="70 leaves"):
        leaf_reader(LEAVES)([Node(6, 1)])
    with pytest.raises(AssertionError):
        inclusion_plan(2, 7).fold([EMPTY_ROOT])


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_tree_continued_from_its_peaks_is_the_same_tree(one: int, two: int) -> None:
    size, grown = sorted((one, two))
    peaks = leaf_reader(LEAVES)(root_plan(size).nodes) if size else []
    tree = CompactRange(size, peaks)
    assert tree.root() == mth(LEAVES[:size])
    for leaf in LEAVES[size:grown]:
        tree.add(leaf)
    assert (tree.size, tree.root()) == (grown, mth(LEAVES[:grown]))
    with pytest.raises(InvalidProof, match="peaks"):
        CompactRange(size, [*peaks, EMPTY_ROOT])


def test_the_empty_tree_has_its_root_without_reading() -> None:
    assert tree_root(0, leaf_reader([])) == EMPTY_ROOT


def test_reasons_are_words_for_people_and_machines_and_are_documented() -> None:
    page = (REPOSITORY / "docs/reference/checkpoints.md").read_text(encoding="utf-8")
    for reason in ProofFault:
        assert reason.value[0].isupper()
        assert reason.value.isalpha()
        assert f"| `{reason}` |" in page
