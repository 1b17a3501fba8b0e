"""Checkpoints: written and read, believed only by pinned keys, and compared with what was seen before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.notary import (
    LOG,
    NOW,
    ORIGIN,
    THIEF,
    WITNESSES,
    Log,
    cosignature,
    log_key,
    trust,
    witness_key,
)
from tests.unit.audit.vectorfiles import vectors

from triplane.audit.checkpoint import (
    Checkpoint,
    CheckpointTrust,
    Relation,
    add_signatures,
    check_continues,
    compare,
    parse_checkpoint,
    parse_text,
    sign_checkpoint,
    verify_checkpoint,
)
from triplane.audit.merkle import EMPTY_ROOT, MAX_SIZE
from triplane.audit.note import sign
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey, parse_key
from triplane.errors import InvalidInput, InvalidNote, InvalidProof

TRUE = Log().grow(20)
SIGNED = TRUE.signed(9)


def refused(octets: bytes, whom: CheckpointTrust) -> str:
    with pytest.raises(InvalidNote) as error:
        verify_checkpoint(octets, whom)
    return error.value.reason


def test_the_example_of_the_specification_is_read_and_written() -> None:
    octets = vectors("c2sp")["checkpoint"].encode()
    checkpoint, note = parse_checkpoint(octets)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == note.text
    assert note.octets == octets


def test_a_checkpoint_of_the_go_checksum_database_holds() -> None:
    sumdb = vectors("litewitness")["sumdb"]
    found = verify_checkpoint(
        sumdb["checkpoint"].encode(), CheckpointTrust(sumdb["origin"], KeyRing([parse_key(sumdb["key"])]))
    )
    assert found.checkpoint.size == 35225469
    assert [str(item.key) for item in found.signed] == [sumdb["key"]]


def test_a_checkpoint_of_a_public_log_holds_with_all_its_witnesses() -> None:
    real = vectors("cosigned")
    witnesses = [VerifierKey(n, KeyType.COSIGNATURE_V1, bytes.fromhex(k)) for n, k in real["witnesses"].items()]
    whom = CheckpointTrust(real["log"].partition("+")[0], KeyRing([parse_key(real["log"])]), KeyRing(witnesses), 4)
    found = verify_checkpoint(real["checkpoint"].encode(), whom)
    assert {item.key.name for item in found.cosigned} == set(real["witnesses"])


@given(
    st.builds(
        Checkpoint,
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
        st.integers(0, MAX_SIZE),
        st.binary(min_size=32, max_size=32),
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9), max_size=3).map(
            tuple
        ),
    )
)
def test_a_text_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    assert parse_text(checkpoint.text) == checkpoint


ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"log\n5\n{ROOT}", id="no last newline"),
        pytest.param("log\n5\n", id="no root"),
        pytest.param(f"\n5\n{ROOT}\n", id="no origin"),
        pytest.param(f"log\n\n{ROOT}\n", id="no size"),
        pytest.param(f"log\n05\n{ROOT}\n", id="a leading zero"),
        pytest.param(f"log\n+5\n{ROOT}\n", id="a sign"),
        pytest.param(f"log\n-5\n{ROOT}\n", id="a negative size"),
        pytest.param(f"log\n5.0\n{ROOT}\n", id="a fraction"),
        pytest.param(f"log\n0x5\n{ROOT}\n", id="hexadecimal"),
        pytest.param(f"log\n٥\n{ROOT}\n", id="digits of another script"),
        pytest.param(f"log\n5 \n{ROOT}\n", id="a space"),
        pytest.param(f"log\n{2**63}\n{ROOT}\n", id="a size beyond 2^63-1"),
        pytest.param(f"log\n{'9' * 5000}\n{ROOT}\n", id="a size no integer is read from"),
        pytest.param("log\n5\nAAAA\n", id="a short root"),
        pytest.param(f"log\n5\n{ROOT[:-2]}J=\n", id="a root with stray bits"),
        pytest.param(f"log\n5\n{ROOT[:-1]}\n", id="a root without padding"),
        pytest.param(f"log\n5\n{ROOT}\n\nextension\n", id="an empty extension line"),
        pytest.param(f"log\n5\n{ROOT}\n\n", id="an empty last line"),
        pytest.param(f"log\r\n5\r\n{ROOT}\r\n", id="carriage returns"),
    ],
)
def test_another_spelling_is_no_checkpoint(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_text(text.encode())


def test_what_the_log_signed_is_believed() -> None:
    found = verify_checkpoint(SIGNED, trust())
    assert found.checkpoint == TRUE.head(9)
    assert (found.octets, found.cosigned) == (SIGNED, ())
    assert [item.key for item in found.signed] == [log_key()]


def test_what_others_signed_is_not() -> None:
    assert refused(TRUE.signed(9, THIEF), trust()) == "NotSigned"
    assert refused(TRUE.signed(9, LOG, "another.example"), trust()) == "NotSigned"
    assert refused(SIGNED, trust(origin="another.example/1")) == "OtherOrigin"
    assert refused(SIGNED.replace(b"\n9\n", b"\n8\n"), trust()) == "InvalidSignature"


def test_while_keys_rotate_either_is_enough_and_a_bad_one_too_much() -> None:
    both = sign_checkpoint(TRUE.head(9), ORIGIN, [LOG, THIEF])
    rotating = CheckpointTrust(ORIGIN, KeyRing([log_key(), log_key(THIEF)]))
    assert len(verify_checkpoint(both, rotating).signed) == 2
    for signer in (LOG, THIEF):
        assert verify_checkpoint(both, CheckpointTrust(ORIGIN, KeyRing([log_key(signer)])))
        assert verify_checkpoint(TRUE.signed(9, signer), rotating)
    stolen = add_signatures(SIGNED, [sign(TRUE.head(8).text, ORIGIN, THIEF).line])
    assert refused(stolen, rotating) == "InvalidSignature"
    assert verify_checkpoint(stolen, trust()), "ignored where that key is unknown"


def test_as_many_witnesses_as_wanted_have_to_have_cosigned() -> None:
    one, two, three = WITNESSES
    cosigned = add_signatures(SIGNED, [cosignature(SIGNED, one), cosignature(SIGNED, two)])
    assert [item.key for item in verify_checkpoint(cosigned, trust(2)).cosigned] == [witness_key(n) for n in (one, two)]
    assert all(item.timestamp == NOW for item in verify_checkpoint(cosigned, trust(2)).cosigned)
    with pytest.raises(InvalidNote, match=r"2 of the 3 witnesses wanted .*missing: witness3\.example\+") as error:
        verify_checkpoint(cosigned, trust(3))
    assert error.value.reason == "TooFewWitnesses"
    strangers = CheckpointTrust(ORIGIN, KeyRing([log_key()]), KeyRing([witness_key(three)]), 1)
    assert refused(cosigned, strangers) == "TooFewWitnesses"


def test_one_witness_twice_is_one_witness() -> None:
    one, *_ = WITNESSES
    twice = add_signatures(SIGNED, [cosignature(SIGNED, one), cosignature(SIGNED, one, NOW + 1)])
    assert refused(twice, trust(2)) == "TooFewWitnesses"


def test_a_cosignature_of_another_checkpoint_refuses_this_one() -> None:
    one, *_ = WITNESSES
    assert refused(add_signatures(SIGNED, [cosignature(TRUE.signed(8), one)]), trust()) == "InvalidSignature"


def test_a_witness_alone_does_not_make_a_checkpoint() -> None:
    alone = SIGNED.partition(b"\n\n")[0] + b"\n\n" + cosignature(SIGNED, "witness1.example")
    assert refused(alone, trust(1)) == "NotSigned"


@pytest.mark.parametrize(
    ("log", "witnesses", "quorum", "reason"),
    [
        pytest.param([], [], 0, "NotSigned", id="no key of the log"),
        pytest.param([witness_key("witness1.example")], [], 0, "UnknownKeyType", id="a witness's key as the log's"),
        pytest.param([log_key()], [log_key(THIEF)], 0, "UnknownKeyType", id="a log's key as a witness's"),
        pytest.param([log_key()], [], 1, "TooFewWitnesses", id="more witnesses wanted than known"),
        pytest.param([log_key()], [], -1, "TooFewWitnesses", id="less than none wanted"),
        pytest.param(
            [log_key()],
            [VerifierKey(ORIGIN, KeyType.COSIGNATURE_V1, log_key().public_key)],
            1,
            "KeyUsedTwice",
            id="the log as its own witness",
        ),
    ],
)
def test_trust_that_could_not_hold_is_refused_when_it_is_written_down(
    log: list[VerifierKey], witnesses: list[VerifierKey], quorum: int, reason: str
) -> None:
    with pytest.raises(InvalidNote) as error:
        CheckpointTrust(ORIGIN, KeyRing(log), KeyRing(witnesses), quorum)
    assert error.value.reason == reason


def test_the_empty_tree_has_one_root() -> None:
    wrong = Checkpoint(ORIGIN, 0, bytes(32))
    with pytest.raises(InvalidNote, match="no entries"):
        sign_checkpoint(wrong, ORIGIN, [LOG])
    octets = wrong.text + b"\n" + sign(wrong.text, ORIGIN, LOG).line
    assert refused(octets, trust()) == "EmptyTreeRoot"
    assert verify_checkpoint(Log().signed(), trust()).checkpoint.root == EMPTY_ROOT


@pytest.mark.parametrize(
    "checkpoint",
    [
        pytest.param(Checkpoint(f"{ORIGIN}\n5", 5, bytes(32)), id="an origin of two lines"),
        pytest.param(Checkpoint("", 5, bytes(32)), id="no origin"),
        pytest.param(Checkpoint(ORIGIN, -1, bytes(32)), id="a negative size"),
        pytest.param(Checkpoint(ORIGIN, 5, bytes(31)), id="a short root"),
        pytest.param(Checkpoint(ORIGIN, 5, bytes(32), ("",)), id="an empty extension"),
        pytest.param(Checkpoint(ORIGIN, 5, bytes(32), ("one\ntwo",)), id="two extensions in one"),
    ],
)
def test_what_would_be_read_as_something_else_is_not_signed(checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidNote):
        sign_checkpoint(checkpoint, ORIGIN, [LOG])


OTHER = Log("false").grow(20)


@pytest.mark.parametrize(
    ("seen", "now", "relation"),
    [
        pytest.param(TRUE.head(9), TRUE.head(9), Relation.EQUAL, id="the same"),
        pytest.param(TRUE.head(9), TRUE.head(12), Relation.NEEDS_PROOF, id="grown"),
        pytest.param(TRUE.head(0), TRUE.head(12), Relation.FROM_EMPTY, id="grown from nothing"),
        pytest.param(TRUE.head(0), TRUE.head(0), Relation.EQUAL, id="still nothing"),
        pytest.param(TRUE.head(9), OTHER.head(9), Relation.FORKED, id="one size, two roots"),
        pytest.param(TRUE.head(12), TRUE.head(9), Relation.ROLLED_BACK, id="smaller"),
        pytest.param(TRUE.head(12), TRUE.head(0), Relation.ROLLED_BACK, id="emptied"),
        pytest.param(TRUE.head(9), Log(origin="log.example/8").grow(12).head(), Relation.OTHER_ORIGIN, id="renamed"),
    ],
)
def test_how_two_checkpoints_stand_to_each_other(seen: Checkpoint, now: Checkpoint, relation: Relation) -> None:
    assert compare(seen, now) is relation
    proof = TRUE.growth(seen.size, now.size) if relation is Relation.NEEDS_PROOF else ()
    if relation in {Relation.FORKED, Relation.ROLLED_BACK, Relation.OTHER_ORIGIN}:
        with pytest.raises(InvalidNote) as error:
            check_continues(seen, now, proof)
        assert error.value.reason == relation.value
    else:
        assert check_continues(seen, now, proof) is relation


@given(st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_only_the_same_log_continues(old: int, new: int, same: bool) -> None:
    now = TRUE if same else OTHER
    proof = now.growth(old, new) if 0 < old < new else ()
    holds = old <= new and (same or old == 0)
    try:
        check_continues(TRUE.head(old), now.head(new), proof)
    except InvalidInput:
        assert not holds
    else:
        assert holds


def test_a_proof_where_nothing_is_to_prove_is_refused() -> None:
    for seen, now in ((TRUE.head(9), TRUE.head(9)), (TRUE.head(0), TRUE.head(9)), (TRUE.head(0), TRUE.head(0))):
        with pytest.raises(InvalidProof) as error:
            check_continues(seen, now, [bytes(32)])
        assert error.value.reason == "ProofTooLong"
    with pytest.raises(InvalidNote, match="no entries"):
        check_continues(Checkpoint(ORIGIN, 0, bytes(32)), TRUE.head(9), ())


def test_extension_lines_are_signed_and_compared_with_nothing() -> None:
    extended = Checkpoint(ORIGIN, 9, TRUE.head(9).root, ("more",))
    octets = sign_checkpoint(extended, ORIGIN, [LOG])
    assert verify_checkpoint(octets, trust()).checkpoint.extensions == ("more",)
    assert refused(octets.replace(b"more", b"less"), trust()) == "InvalidSignature"
    assert compare(TRUE.head(9), extended) is Relation.EQUAL


def test_signatures_are_added_once() -> None:
    line = cosignature(SIGNED, "witness1.example")
    once = add_signatures(SIGNED, [line])
    assert add_signatures(once, [line]) == once == SIGNED + line
    with pytest.raises(InvalidNote):
        add_signatures(SIGNED, [b"no line\n"])
