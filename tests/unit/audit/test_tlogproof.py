"""Proof bundles: one file that shows an entry to be in the log, and what must not pass for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.notary import LOG, ORIGIN, THIEF, Log, cosignature, trust
from tests.unit.audit.vectorfiles import vectors

from triplane.audit.checkpoint import Checkpoint, add_signatures, sign_checkpoint
from triplane.audit.merkle import inclusion_proof, leaf_hash, leaf_reader, subtree_root
from triplane.audit.notekey import encode64
from triplane.audit.tlogproof import MAX_BUNDLE, TlogProof, make_bundle, parse_bundle, verify_bundle, verify_leaf
from triplane.errors import InvalidEntry, InvalidInput, InvalidNote, InvalidProof

TRUE, OTHER = Log().grow(20), Log("false").grow(20)
BUNDLE = TRUE.bundle(5, 12)


def test_an_entry_is_shown_to_be_in_the_log_by_one_file() -> None:
    for size in (1, 2, 7, 8, 20):
        for index in range(size):
            found = verify_bundle(TRUE.bundle(index, size), trust())
            assert (found.index, found.octets, found.entry["seq"]) == (index, TRUE.entries[index], index)
            assert found.signed.checkpoint == TRUE.head(size)
            assert verify_bundle(TRUE.bundle(index, size), trust(), TRUE.entries[index]) == found


def test_the_file_is_as_the_specification_says() -> None:
    lines = BUNDLE.decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", f"extra {encode64(TRUE.entries[5])}", "index 5"]
    assert lines[3:7] == [encode64(item) for item in TRUE.inclusion(5, 12)]
    assert "\n".join(lines[7:]) == "\n" + TRUE.signed(12).decode()


def test_the_example_of_the_specification_is_read_and_written() -> None:
    octets = vectors("c2sp")["bundleHead"].encode() + b"\n" + TRUE.signed(12)
    bundle = parse_bundle(octets)
    assert (bundle.index, len(bundle.proof)) == (73894, 5)
    assert bundle.extra is not None
    assert bundle.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert bundle.octets == octets


def test_an_entry_kept_elsewhere_is_checked_against_the_proof() -> None:
    alone = TlogProof(5, TRUE.inclusion(5, 12), TRUE.signed(12)).octets
    assert verify_bundle(alone, trust(), TRUE.entries[5]).index == 5
    with pytest.raises(InvalidNote, match="give it beside"):
        verify_bundle(alone, trust())
    with pytest.raises(InvalidProof):
        verify_bundle(alone, trust(), TRUE.entries[6])
    with pytest.raises(InvalidNote) as error:
        verify_bundle(BUNDLE, trust(), TRUE.entries[6])
    assert error.value.reason == "OtherEntry"


def test_cosignatures_ride_along_and_count() -> None:
    signed = TRUE.signed(12)
    cosigned = add_signatures(signed, [cosignature(signed, "witness1.example")])
    octets = make_bundle(5, TRUE.entries[5], TRUE.inclusion(5, 12), cosigned)
    assert len(verify_bundle(octets, trust(1)).signed.cosigned) == 1
    with pytest.raises(InvalidNote) as error:
        verify_bundle(BUNDLE, trust(1))
    assert error.value.reason == "TooFewWitnesses"


def test_a_leaf_of_any_log_is_verified_alone() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(7)]
    head = sign_checkpoint(Checkpoint(ORIGIN, 7, subtree_root(leaves)), ORIGIN, [LOG])
    bundle = TlogProof(3, inclusion_proof(3, 7, leaf_reader(leaves)), head)
    assert verify_leaf(bundle, leaves[3], trust()).checkpoint.size == 7
    with pytest.raises(InvalidProof):
        verify_leaf(bundle, leaves[4], trust())


@pytest.mark.parametrize(
    ("index", "entry", "proof", "checkpoint"),
    [
        pytest.param(5, TRUE.entries[6], TRUE.inclusion(5, 12), TRUE.signed(12), id="another entry"),
        pytest.param(6, TRUE.entries[5], TRUE.inclusion(5, 12), TRUE.signed(12), id="another place"),
        pytest.param(5, TRUE.entries[5], TRUE.inclusion(5, 20), TRUE.signed(12), id="the proof of another size"),
        pytest.param(5, TRUE.entries[5], TRUE.inclusion(5, 12), OTHER.signed(12), id="another log's checkpoint"),
        pytest.param(5, TRUE.entries[5], TRUE.inclusion(5, 12)[:-1], TRUE.signed(12), id="a hash missing"),
        pytest.param(5, TRUE.entries[5], TRUE.inclusion(5, 12), b"no note", id="no checkpoint"),
        pytest.param(-1, TRUE.entries[5], TRUE.inclusion(5, 12), TRUE.signed(12), id="a negative place"),
    ],
)
def test_no_file_is_made_of_what_does_not_belong_together(
    index: int, entry: bytes, proof: tuple[bytes, ...], checkpoint: bytes
) -> None:
    with pytest.raises(InvalidInput):
        make_bundle(index, entry, proof, checkpoint)


TEXT = BUNDLE.decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(TEXT.replace("@v1", "@v2"), id="another version"),
        pytest.param(TEXT.replace("index 5\n", ""), id="no index"),
        pytest.param(TEXT.replace("index 5\n", "index 05\n"), id="a leading zero"),
        pytest.param(TEXT.replace("index 5\n", "index -5\n"), id="a negative index"),
        pytest.param(TEXT.replace("index 5\n", "index five\n"), id="an index in words"),
        pytest.param(TEXT.replace("index 5\n", "index ٥\n"), id="digits of another script"),
        pytest.param(TEXT.replace("index 5\n", f"index {2**63}\n"), id="an index beyond 2^63-1"),
        pytest.param(TEXT.replace("index 5\n", "index 5\nindex 5\n"), id="two indices"),
        pytest.param(TEXT.replace("extra ", "extra !"), id="an extra that is no base64"),
        pytest.param(TEXT.replace("index 5\n", "index 5\n" + "A" * 86 + "==\n"), id="a hash of 64 octets"),
        pytest.param(TEXT.replace("index 5\n", "index 5\n" + "!" * 44 + "\n"), id="a hash that is no base64"),
        pytest.param(TEXT.replace("index 5\n", "index 5\n" + ("A" * 43 + "=\n") * 60), id="64 hashes"),
        pytest.param(TEXT.replace("\n", "\r\n"), id="carriage returns"),
        pytest.param(TEXT.replace("\n\n", "\n", 1), id="no empty line"),
        pytest.param(TEXT + "a" * MAX_BUNDLE, id="too long"),
    ],
)
def test_another_spelling_is_no_proof(text: str) -> None:
    with pytest.raises(InvalidNote):
        verify_bundle(text.encode(), trust())


def test_an_entry_transplanted_under_another_signature_says_so_itself() -> None:
    """Row 7: the log's own key signs a tree that holds another origin's entries, or its own at other places."""
    foreign = Log(origin="log.example/other").grow(12)
    for leaves, index in ((foreign.entries, 5), (TRUE.entries[1:13], 5)):
        tree = [leaf_hash(entry) for entry in leaves]
        head = sign_checkpoint(Checkpoint(ORIGIN, len(tree), subtree_root(tree)), ORIGIN, [LOG])
        octets = make_bundle(index, leaves[index], inclusion_proof(index, len(tree), leaf_reader(tree)), head)
        assert verify_leaf(parse_bundle(octets), leaf_hash(leaves[index]), trust()), "the proof itself holds"
        with pytest.raises(InvalidEntry, match=r"entry 5 of log\.example/7f3a says it is entry (5 of log|6 of log)"):
            verify_bundle(octets, trust())


def test_a_bundle_signed_by_another_key_is_refused() -> None:
    octets = make_bundle(5, TRUE.entries[5], TRUE.inclusion(5, 12), TRUE.signed(12, THIEF))
    with pytest.raises(InvalidNote) as error:
        verify_bundle(octets, trust())
    assert error.value.reason == "NotSigned"


@given(st.integers(0, len(BUNDLE) * 8 - 1))
def test_a_bundle_altered_in_any_bit_is_refused(bit: int) -> None:
    altered = (int.from_bytes(BUNDLE, "big") ^ 1 << bit).to_bytes(len(BUNDLE), "big")
    with pytest.raises(InvalidInput):
        verify_bundle(altered, trust())


@given(
    st.builds(
        TlogProof,
        st.integers(0, 2**63 - 2),
        st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
        st.just(TRUE.signed(12)),
        st.none() | st.binary(),
    )
)
def test_what_is_written_is_read_back(bundle: TlogProof) -> None:
    assert parse_bundle(bundle.octets) == bundle
