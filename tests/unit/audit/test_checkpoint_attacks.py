"""Rows 5, 8, 9 and 10 of the attack table, against a log whose database, and in part whose key, is the attacker's.

Each attack first succeeds against a weaker check, written here, that one could take for enough.
"""

from collections.abc import Callable, Sequence

import pytest
from tests.unit.audit.notary import (
    LOG,
    NOW,
    ORIGIN,
    THIEF,
    WITNESSES,
    Log,
    cosignature,
    log_key,
    signer_of,
    trust,
    witness_key,
)
from tests.unit.audit.vectorfiles import vectors

from triplane.audit.chain import StoredEntry, projections, verify
from triplane.audit.checkpoint import (
    CheckpointTrust,
    Relation,
    add_signatures,
    check_continues,
    compare,
    verify_checkpoint,
)
from triplane.audit.dsse import Signer
from triplane.audit.entry import open_entry
from triplane.audit.merkle import EMPTY_ROOT, leaf_hash, node_hash, verify_consistency, verify_inclusion
from triplane.audit.note import NoteSignature, make_note, parse_note, sign
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey
from triplane.audit.tlogproof import TlogProof, parse_bundle, verify_bundle
from triplane.audit.witness import Accepted, Admitted, Answer, admit, judge, make_request
from triplane.errors import InvalidInput, InvalidNote, InvalidProof

TRUE = Log().grow(20)
FALSE = Log("false").grow(12)
SEEN = verify_checkpoint(TRUE.signed(12), trust()).checkpoint
"""What the auditor saw before the attack."""


def reason(call: Callable[[], object]) -> str:
    with pytest.raises((InvalidNote, InvalidProof)) as refused:
        call()
    return str(refused.value.reason)  # type: ignore[attr-defined]


def chain_holds(log: Log) -> bool:
    """The check that a database gives about itself: every hash, every link, from genesis to the head."""
    rows = []
    for seq, octets in enumerate(log.entries):
        opened = open_entry(octets)
        rows.append(StoredEntry(seq, octets, leaf_hash(octets), projections(opened.entry), (seq, opened.body_sha256)))
    return verify(rows, log.origin).ok


# Row 5: everything is rewritten, from a new genesis on, and signed again with the log's own key.


@pytest.mark.parametrize(
    ("size", "why"),
    [
        pytest.param(9, "RolledBack", id="shorter"),
        pytest.param(12, "Forked", id="as long"),
        pytest.param(20, "OldRootMismatch", id="longer, with the new log's own proof"),
    ],
)
def test_5_a_log_rewritten_from_genesis_is_caught_by_any_earlier_checkpoint(size: int, why: str) -> None:
    rewritten = Log("false").grow(size)
    assert chain_holds(rewritten), "the chain alone does not tell"
    now = verify_checkpoint(rewritten.signed(), trust()).checkpoint
    assert now.size == size, "nor does the signature: the key is the log's"
    proof = rewritten.growth(SEEN.size, size) if size > SEEN.size else ()
    assert reason(lambda: check_continues(SEEN, now, proof)) == why
    if size > SEEN.size:
        true_proof = TRUE.growth(SEEN.size, size)
        assert reason(lambda: check_continues(SEEN, now, true_proof)) == "RootMismatch", (
            "the true log's proof fits less"
        )


def test_5_a_log_begun_anew_under_another_origin_is_not_the_log() -> None:
    fresh = Log(origin="log.example/new").grow(20)
    assert chain_holds(fresh)
    signed = fresh.signed(name=ORIGIN)
    weaker = CheckpointTrust(fresh.origin, KeyRing([log_key()]))
    assert verify_checkpoint(signed, weaker), "a reader who takes the origin from the checkpoint believes it"
    assert reason(lambda: verify_checkpoint(signed, trust())) == "OtherOrigin"
    assert reason(lambda: check_continues(SEEN, fresh.head(), fresh.growth(12, 20))) == "OtherOrigin"


def test_5_proofs_given_out_before_do_not_fit_the_rewritten_log() -> None:
    rewritten = Log("false").grow(12)
    before = parse_bundle(TRUE.bundle(5, 12))
    grafted = TlogProof(5, before.proof, rewritten.signed(), before.extra).octets
    assert verify_bundle(TRUE.bundle(5, 12), trust()), "the old file still proves what it proved"
    assert reason(lambda: verify_bundle(grafted, trust())) == "RootMismatch"


def test_5_a_witness_does_not_cosign_the_rewritten_log() -> None:
    rewritten = Log("false").grow(20)
    logs = {ORIGIN: KeyRing([log_key()])}
    request = admit(make_request(12, rewritten.growth(12, 20), rewritten.signed()), logs)
    assert not isinstance(request, Answer)
    forgetful = judge(Admitted(0, (), request.checkpoint, request.signed), None)
    assert isinstance(forgetful, Accepted), "a witness that has lost its record would"
    answer = judge(request, SEEN)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.reason) == (422, "OldRootMismatch")


# Row 8: two checkpoints of one size with different roots; a smaller one after a larger.


def test_8_two_roots_of_one_size_are_a_fork_and_both_notes_prove_it() -> None:
    other = Log("false").grow(12)
    one, two = verify_checkpoint(TRUE.signed(12), trust()), verify_checkpoint(other.signed(12), trust())
    assert one.signed[0].key == two.signed[0].key, "each alone is believed"
    assert compare(one.checkpoint, two.checkpoint) is Relation.FORKED
    with pytest.raises(InvalidNote) as refused:
        check_continues(one.checkpoint, two.checkpoint, ())
    for named in (ORIGIN, "forked", "12 entries", one.checkpoint.root.hex(), two.checkpoint.root.hex(), "Keep both"):
        assert named in str(refused.value)


def test_8_a_smaller_checkpoint_after_a_larger_is_a_rollback() -> None:
    now = verify_checkpoint(TRUE.signed(9), trust()).checkpoint
    verify_consistency(now.size, SEEN.size, TRUE.growth(9, 12), now.root, SEEN.root)  # that it is a true prefix ...
    assert compare(SEEN, now) is Relation.ROLLED_BACK
    with pytest.raises(InvalidNote, match=r"rolled back: 12 entries .* 9 with root .*restore what is missing"):
        check_continues(SEEN, now, ())
    assert reason(lambda: check_continues(SEEN, now, TRUE.growth(9, 12))) == "RolledBack"  # ... does not excuse it


def test_8_two_stories_do_not_both_find_a_majority_of_witnesses() -> None:
    """Three independent witnesses, each honest and shown one story. A quorum of one would let both stories pass."""
    stories = (TRUE.signed(12), FALSE.signed())
    shown = (list(WITNESSES)[:2], list(WITNESSES)[2:])
    cosigned = [
        add_signatures(octets, [cosignature(octets, name) for name in names])
        for octets, names in zip(stories, shown, strict=True)
    ]
    assert all(verify_checkpoint(octets, trust(1)) for octets in cosigned)
    assert verify_checkpoint(cosigned[0], trust(2))
    assert reason(lambda: verify_checkpoint(cosigned[1], trust(2))) == "TooFewWitnesses"


# Row 9: a wrong, unknown, duplicate or colliding key id.


def believes_whoever_has_the_id(octets: bytes, key_id: bytes, keys: Sequence[VerifierKey]) -> bool:
    """Weak: pins four octets, and takes the public key from wherever it comes."""
    note = parse_note(octets)
    return any(
        item.key_id == key_id == key.key_id and key.verifies(note.text, item.signature)
        for item in note.signatures
        for key in keys
    )


def one_good_line_is_enough(octets: bytes, ring: KeyRing) -> bool:
    """Weak: looks for a signature that holds, and passes over those that do not."""
    note = parse_note(octets)
    found = [(ring.find(item.name, item.key_id), item) for item in note.signatures]
    return any(key is not None and key.verifies(note.text, item.signature) for key, item in found)


def lines_that_hold(octets: bytes, ring: KeyRing) -> int:
    """Weak: counts lines, not signers."""
    note = parse_note(octets)
    found = [(ring.find(item.name, item.key_id), item) for item in note.signatures]
    return sum(key is not None and key.verifies(note.text, item.signature) for key, item in found)


def forged(signer: Signer, name: str = ORIGIN, key_id: bytes | None = None) -> bytes:
    """A checkpoint of the false story, signed by this key, perhaps under another id."""
    line = sign(FALSE.head().text, name, signer)
    return make_note(FALSE.head().text, [NoteSignature(name, key_id or line.key_id, line.signature)])


def test_9_a_key_made_to_have_the_pinned_keys_id_signs_nothing() -> None:
    pair = vectors("colliding_keys")
    pinned, attacker = (signer_of(words) for words in pair["seeds"])
    keys = [log_key(pinned, pair["name"]), log_key(attacker, pair["name"])]
    octets = forged(attacker)
    assert believes_whoever_has_the_id(octets, keys[0].key_id, keys)
    assert reason(lambda: verify_checkpoint(octets, CheckpointTrust(ORIGIN, KeyRing(keys[:1])))) == "InvalidSignature"
    assert reason(lambda: KeyRing(keys)) == "AmbiguousKey", "nor can both be pinned"


def test_9_the_pinned_id_on_another_keys_signature_is_an_invalid_signature() -> None:
    octets = forged(THIEF, key_id=log_key().key_id)
    assert any(item.key_id == log_key().key_id for item in parse_note(octets).signatures), "name and id are right"
    assert reason(lambda: verify_checkpoint(octets, trust())) == "InvalidSignature"


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(forged(THIEF), id="an unknown key under the log's name"),
        pytest.param(forged(LOG, "stranger.example"), id="the log's key under another name"),
        pytest.param(forged(LOG, key_id=b"\0\0\0\0"), id="the log's signature under another id"),
        pytest.param(forged(LOG, key_id=log_key(THIEF).key_id), id="the log's signature under another key's id"),
    ],
)
def test_9_a_wrong_or_unknown_id_is_no_signature(octets: bytes) -> None:
    strangers = [log_key(THIEF), log_key(LOG, "stranger.example")]
    held = any(key.verifies(parse_note(octets).text, item.signature) for item in parse_note(octets).signatures
               for key in (log_key(), *strangers))  # fmt: skip
    assert held, "a reader who tries every key it can find believes it"
    assert reason(lambda: verify_checkpoint(octets, trust())) == "NotSigned"


def test_9_a_good_signature_does_not_excuse_a_bad_one() -> None:
    good = TRUE.signed(12)
    grafted = good + forged(LOG).partition(b"\n\n")[2]
    assert one_good_line_is_enough(grafted, trust().log)
    assert reason(lambda: verify_checkpoint(grafted, trust())) == "InvalidSignature"


def test_9_a_witness_repeated_or_renamed_does_not_make_a_quorum() -> None:
    name = "witness1.example"
    signed = TRUE.signed(12)
    twice = add_signatures(signed, [cosignature(signed, name, NOW), cosignature(signed, name, NOW + 1)])
    assert lines_that_hold(twice, trust().witnesses) == 2
    assert reason(lambda: verify_checkpoint(twice, trust(2))) == "TooFewWitnesses"
    alias = VerifierKey("alias.example", KeyType.COSIGNATURE_V1, witness_key(name).public_key)
    assert reason(lambda: KeyRing([witness_key(name), alias])) == "KeyUsedTwice"


# Row 10: malformed inclusion and consistency proofs.


def folds_to_the_root(index: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Weak: folds by the bits of the index, and asks neither how large the tree is nor how long a proof must be."""
    for sibling in proof:
        leaf = node_hash(sibling, leaf) if index & 1 else node_hash(leaf, sibling)
        index >>= 1
    return leaf == root


def test_10_an_inner_node_is_not_passed_off_as_an_entry() -> None:
    leaves, root = TRUE.leaves[:8], TRUE.head(8).root
    inner, proof = node_hash(leaves[0], leaves[1]), TRUE.inclusion(0, 8)[1:]
    assert folds_to_the_root(0, inner, proof, root)
    assert reason(lambda: verify_inclusion(0, 8, inner, proof, root)) == "ProofTooShort"


def test_10_one_entry_is_not_proven_at_two_places() -> None:
    root, proof = TRUE.head(8).root, TRUE.inclusion(3, 8)
    assert folds_to_the_root(3 + 8, TRUE.leaves[3], proof, root)
    assert reason(lambda: verify_inclusion(3 + 8, 8, TRUE.leaves[3], proof, root)) == "IndexOutOfRange"
    assert reason(lambda: verify_inclusion(3 + 8, 16, TRUE.leaves[3], proof, root)) == "ProofTooShort"


def new_root_follows(old: int, new: int, proof: Sequence[bytes], new_root: bytes) -> bool:
    """Weak: that the proof leads to the new root, and not that it begins with the old one. ``old`` is odd."""
    root, fn, sn = proof[0], old - 1, new - 1
    for sibling in proof[1:]:
        left = fn & 1 or fn == sn
        root = node_hash(sibling, root) if left else node_hash(root, sibling)
        while left and fn and not fn & 1:
            fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    return root == new_root


def test_10_a_proof_of_another_tree_does_not_join_two_stories() -> None:
    false = Log("false").grow(20)
    proof = false.growth(11, 20)
    assert new_root_follows(11, 20, proof, false.head(20).root)
    assert (
        reason(lambda: verify_consistency(11, 20, proof, TRUE.head(11).root, false.head(20).root)) == "OldRootMismatch"
    )


def test_10_hashes_left_over_are_not_passed_over() -> None:
    root, proof = TRUE.head(12).root, [*TRUE.inclusion(5, 12), bytes(32)]
    verify_inclusion(5, 12, TRUE.leaves[5], proof[:-1], root)  # a reader that stops at the root never sees the rest
    assert reason(lambda: verify_inclusion(5, 12, TRUE.leaves[5], proof, root)) == "ProofTooLong"
    grown = [*TRUE.growth(9, 12), bytes(32)]
    verify_consistency(9, 12, grown[:-1], TRUE.head(9).root, root)
    assert reason(lambda: verify_consistency(9, 12, grown, TRUE.head(9).root, root)) == "ProofTooLong"


@pytest.mark.parametrize("old", range(1, 20))
def test_10_no_other_proof_of_the_same_log_shows_the_step(old: int) -> None:
    """Every proof the log can make, for every pair of sizes, and nothing but the right one passes."""
    passed = []
    for first in range(1, 21):
        for second in range(first, 21):
            try:
                verify_consistency(old, 20, TRUE.growth(first, second), TRUE.head(old).root, TRUE.head(20).root)
            except InvalidProof:
                continue
            passed.append(TRUE.growth(first, second))
    assert set(passed) == {TRUE.growth(old, 20)}


def test_10_the_empty_proof_shows_nothing() -> None:
    for old, new in ((1, 2), (4, 8), (3, 7)):
        why = reason(
            lambda old=old, new=new: verify_consistency(old, new, (), TRUE.head(old).root, TRUE.head(new).root)
        )
        assert why == "ProofTooShort"
    assert reason(lambda: verify_inclusion(0, 2, TRUE.leaves[0], (), TRUE.head(2).root)) == "ProofTooShort"
    assert reason(lambda: verify_consistency(0, 5, (), EMPTY_ROOT, TRUE.head(5).root)) == "EmptyTree"


def test_10_a_bundle_with_a_malformed_proof_is_refused_by_name() -> None:
    bundle = parse_bundle(TRUE.bundle(5, 12))
    for proof, why in (
        (bundle.proof[:-1], "ProofTooShort"),
        ((*bundle.proof, bytes(32)), "ProofTooLong"),
        (bundle.proof[::-1], "RootMismatch"),
    ):
        octets = TlogProof(5, proof, bundle.checkpoint, bundle.extra).octets
        assert reason(lambda octets=octets: verify_bundle(octets, trust())) == why
    with pytest.raises(InvalidInput):
        verify_bundle(TlogProof(12, bundle.proof, bundle.checkpoint, bundle.extra).octets, trust())
