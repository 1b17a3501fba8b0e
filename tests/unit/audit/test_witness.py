"""The witness's decision: the published requests of litewitness, each answer of C2SP tlog-witness, and its record."""

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.notary import LOG, NOW, ORIGIN, THIEF, WITNESSES, Log, cosignature, log_key, trust, witness_key
from tests.unit.audit.vectorfiles import vectors

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.checkpoint import Checkpoint, add_signatures, sign_checkpoint, verify_checkpoint
from triplane.audit.dsse import Signer, spki_of
from triplane.audit.note import open_note, sign
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey, key_of
from triplane.audit.witness import (
    MAX_REQUEST,
    PLAIN,
    Accepted,
    Answer,
    admit,
    conflicting_size,
    cosigned,
    judge,
    make_request,
    origin_hash,
    published,
    with_cosignatures,
)
from triplane.errors import InvalidNote

NAME = "witness1.example"
TRUE, OTHER = Log().grow(20), Log("false").grow(20)


@dataclass
class Witness:
    """The three steps around a record in memory."""

    logs: dict[str, KeyRing] = field(default_factory=lambda: {ORIGIN: KeyRing([log_key()])})
    name: str = NAME
    signer: Signer = WITNESSES[NAME]
    latest: dict[str, Checkpoint] = field(default_factory=dict)
    served: bytes = b""

    def add_checkpoint(self, body: bytes) -> Answer:
        request = admit(body, self.logs)
        if isinstance(request, Answer):
            return request
        found = judge(request, self.latest.get(request.checkpoint.origin))
        if isinstance(found, Answer):
            return found
        self.latest[found.checkpoint.origin] = found.checkpoint
        answer = cosigned(found, self.name, [self.signer], NOW)
        self.served = published(found, answer)
        return answer


class LiteSigner:
    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
        self.public_key = spki_of(self._key.public_key())
        self.key_id = ""

    def sign(self, octets: bytes) -> bytes:
        return self._key.sign(octets)


def test_the_requests_of_litewitness_get_its_answers() -> None:
    """In their order, against one record. Two answers differ: an unknown log is 404, as the specification says since;
    and the altered signature there is no base64 that anybody writes (its last digit has stray bits), which is 400."""
    lite = vectors("litewitness")
    signer = LiteSigner(lite["witnessSeed"])
    key = VerifierKey(lite["origin"], KeyType.ED25519, bytes.fromhex(lite["publicKey"]))
    witness = Witness({lite["origin"]: KeyRing([key])}, lite["witness"], signer)
    for case in lite["requests"]:
        answer = witness.add_checkpoint(case["body"].encode())
        assert answer.status == {"unknown log": 404, "invalid signature": 400}.get(case["answer"], case["status"])
        if case["assert"] == "==":
            assert (answer.body.decode(), answer.content_type) == (case["answer"], "text/x.tlog.size")
        elif case["status"] in {200, 422}:
            assert case["answer"] in answer.body.decode()
        if answer.status == 200:
            body = case["body"].partition("\n\n")[2].encode()
            keys = KeyRing([key_of(lite["witness"], KeyType.COSIGNATURE_V1, signer)])
            (found,) = open_note(with_cosignatures(body, answer.body, keys), keys)[1]
            assert found.timestamp == NOW
    assert witness.latest[lite["origin"]].size == 5


def test_a_log_grows_under_a_witness() -> None:
    witness, old = Witness(), 0
    for new in (1, 1, 4, 8, 15, 15, 20):
        proof = TRUE.growth(old, new) if 0 < old < new else ()
        answer = witness.add_checkpoint(make_request(old, proof, TRUE.signed(new)))
        assert (answer.status, answer.content_type) == (200, PLAIN)
        both = with_cosignatures(TRUE.signed(new), answer.body, KeyRing([witness_key(NAME)]))
        assert verify_checkpoint(both, trust(1, witnesses=1)).checkpoint == TRUE.head(new)
        assert witness.served == both
        old = new


SIGNED = TRUE.signed(12)
EMPTY_LIE = Checkpoint(ORIGIN, 0, bytes(32))
GROWTH = TRUE.growth(9, 12)


@pytest.mark.parametrize(
    ("body", "seen", "status", "reason"),
    [
        pytest.param(make_request(9, GROWTH, SIGNED), 9, 200, "Cosigned", id="grown"),
        pytest.param(make_request(12, [], SIGNED), 12, 200, "Cosigned", id="the same again"),
        pytest.param(make_request(0, [], SIGNED), None, 200, "Cosigned", id="the first"),
        pytest.param(make_request(0, [], Log().signed()), None, 200, "Cosigned", id="the first, of nothing"),
        pytest.param(b"", 9, 400, "MalformedNote", id="nothing"),
        pytest.param(SIGNED, 9, 400, "MalformedNote", id="a checkpoint alone"),
        pytest.param(b"old 09\n\n" + SIGNED, 9, 400, "MalformedNote", id="a leading zero"),
        pytest.param(b"old -9\n\n" + SIGNED, 9, 400, "MalformedNote", id="a negative size"),
        pytest.param(b"old 9223372036854775808\n\n" + SIGNED, 9, 400, "MalformedNote", id="a size beyond 2^63-1"),
        pytest.param(b"old  9\n\n" + SIGNED, 9, 400, "MalformedNote", id="two spaces"),
        pytest.param(b"old 9\r\n\r\n" + SIGNED, 9, 400, "MalformedNote", id="carriage returns"),
        pytest.param("old ٩\n\n".encode() + SIGNED, 9, 400, "MalformedNote", id="digits of another script"),
        pytest.param(b"old 9\nAAAA\n\n" + SIGNED, 9, 400, "MalformedNote", id="a hash of three octets"),
        pytest.param(b"old 9\nAA*A\n\n" + SIGNED, 9, 400, "MalformedNote", id="a hash that is no base64"),
        pytest.param(make_request(9, [bytes(32)] * 64, SIGNED), 9, 400, "MalformedNote", id="64 hashes"),
        pytest.param(make_request(9, GROWTH, SIGNED[:-1]), 9, 400, "MalformedNote", id="a note cut off"),
        pytest.param(make_request(9, GROWTH, SIGNED + b"x" * MAX_REQUEST), 9, 400, "MalformedNote", id="too long"),
        pytest.param(
            make_request(9, GROWTH, SIGNED.replace(b"\n12\n", b"\n012\n")), 9, 400, "MalformedCheckpoint", id="a size"
        ),
        pytest.param(make_request(13, [], SIGNED), 13, 400, "SizesReversed", id="an old size beyond the new"),
        pytest.param(
            make_request(0, [], Log(origin="log.example/8").grow(2).signed()), None, 404, "UnknownOrigin", id="unknown"
        ),
        pytest.param(make_request(9, GROWTH, TRUE.signed(12, THIEF)), 9, 403, "NotSigned", id="another key"),
        pytest.param(
            make_request(9, GROWTH, SIGNED.replace(b"\n12\n", b"\n11\n")), 9, 403, "InvalidSignature", id="altered"
        ),
        pytest.param(make_request(9, GROWTH, SIGNED), 8, 409, "OldSizeMismatch", id="ahead of the witness"),
        pytest.param(make_request(9, GROWTH, SIGNED), 12, 409, "OldSizeMismatch", id="behind the witness"),
        pytest.param(make_request(9, GROWTH, SIGNED), None, 409, "OldSizeMismatch", id="the first, from a size"),
        pytest.param(make_request(0, [], SIGNED), 12, 409, "OldSizeMismatch", id="asking for the size"),
        pytest.param(make_request(9, GROWTH[:-1], SIGNED), 9, 422, "ProofTooShort", id="a proof cut off"),
        pytest.param(make_request(9, [], SIGNED), 9, 422, "ProofTooShort", id="no proof"),
        pytest.param(make_request(9, [*GROWTH, bytes(32)], SIGNED), 9, 422, "ProofTooLong", id="a hash too many"),
        pytest.param(make_request(9, GROWTH[::-1], SIGNED), 9, 422, "OldRootMismatch", id="a proof turned round"),
        pytest.param(
            make_request(9, OTHER.growth(9, 12), OTHER.signed(12)), 9, 422, "OldRootMismatch", id="another log's growth"
        ),
        pytest.param(make_request(12, [], OTHER.signed(12)), 12, 422, "Forked", id="one size, another root"),
        pytest.param(make_request(12, GROWTH, SIGNED), 12, 422, "ProofTooLong", id="a proof of the same"),
        pytest.param(make_request(0, GROWTH, SIGNED), None, 422, "ProofTooLong", id="a proof from nothing"),
        pytest.param(
            make_request(0, [], EMPTY_LIE.text + b"\n" + sign(EMPTY_LIE.text, ORIGIN, LOG).line),
            None,
            422,
            "Forked",
            id="an empty tree with a root",
        ),
    ],
)
def test_each_request_has_its_answer(body: bytes, seen: int | None, status: int, reason: str) -> None:
    witness = Witness()
    if seen is not None:
        witness.latest[ORIGIN] = TRUE.head(seen)
    before = dict(witness.latest)
    answer = witness.add_checkpoint(body)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.body.endswith(b"\n")
    if status == 200:
        assert answer.body.startswith("— witness1.example ".encode())
    else:
        assert witness.latest == before, "nothing is remembered of what was refused"
        assert "—".encode() not in answer.body, "nothing is signed"
    if status == 409:
        assert answer.body == b"%d\n" % (seen or 0)
        assert conflicting_size(answer.body) == (seen or 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=12))
def test_whatever_is_asked_the_record_only_grows_and_tells_one_story(asked: list[tuple[int, int, bool]]) -> None:
    witness = Witness()
    story: Log | None = None
    for old, new, honest in asked:
        log = TRUE if honest else OTHER
        before = witness.latest.get(ORIGIN, log.head(0))
        proof = log.growth(old, new) if 0 < old < new else ()
        answer = witness.add_checkpoint(make_request(old, proof, log.signed(new)))
        right = old == before.size and old <= new and (story in {None, log.story} or new == 0 == old)
        assert (answer.status == 200) == right
        if answer.status == 200:
            assert witness.latest[ORIGIN] == log.head(new)
            story = log.story if new else story
        assert witness.latest.get(ORIGIN, before).size >= before.size


def test_of_two_racing_requests_the_later_finds_the_record_moved() -> None:
    """Why judging and writing down are one transaction: judged again after the other was written, it is a 409."""
    logs = {ORIGIN: KeyRing([log_key()])}
    first = admit(make_request(9, TRUE.growth(9, 12), TRUE.signed(12)), logs)
    second = admit(make_request(9, TRUE.growth(9, 15), TRUE.signed(15)), logs)
    assert not isinstance(first, Answer)
    assert not isinstance(second, Answer)
    accepted = judge(second, TRUE.head(9))
    assert isinstance(accepted, Accepted)
    assert isinstance(judge(first, TRUE.head(9)), Accepted), "the race: both hold against the old record"
    conflict = judge(first, accepted.checkpoint)
    assert isinstance(conflict, Answer)
    assert (conflict.status, conflict.body) == (409, b"15\n")


def test_extension_lines_are_cosigned_with_the_rest() -> None:
    extended = sign_checkpoint(Checkpoint(ORIGIN, 12, TRUE.head(12).root, ("more",)), ORIGIN, [LOG])
    answer = Witness().add_checkpoint(make_request(0, [], extended))
    assert with_cosignatures(extended, answer.body, KeyRing([witness_key(NAME)]))
    with pytest.raises(InvalidNote):
        with_cosignatures(SIGNED, answer.body, KeyRing([witness_key(NAME)]))


def test_signatures_of_strangers_are_neither_needed_nor_served() -> None:
    witness = Witness()
    stranger = add_signatures(SIGNED, [sign(TRUE.head(12).text, "stranger", THIEF).line])
    answer = witness.add_checkpoint(make_request(0, [], stranger))
    assert answer.status == 200
    assert witness.served == SIGNED + answer.body


def test_a_witness_signs_with_all_its_keys_while_they_rotate() -> None:
    request = admit(make_request(0, [], SIGNED), {ORIGIN: KeyRing([log_key()])})
    assert not isinstance(request, Answer)
    found = judge(request, None)
    assert isinstance(found, Accepted)
    keys = [MemorySigner(b"old"), MemorySigner(b"new")]
    answer = cosigned(found, NAME, keys, NOW)
    for key in keys:
        assert with_cosignatures(SIGNED, answer.body, KeyRing([key_of(NAME, KeyType.COSIGNATURE_V1, key)]))


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"12", b"012\n", b"-1\n", b"twelve\n", b"12\n\n", b"\xff\n", b"9223372036854775808\n"]
)
def test_a_conflict_that_names_no_size_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidNote, match="no size"):
        conflicting_size(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(cosignature(SIGNED, "witness2.example"), "NotSigned", id="of a stranger"),
        pytest.param(cosignature(TRUE.signed(9), NAME), "InvalidSignature", id="on another checkpoint"),
        pytest.param(b"", "MalformedNote", id="empty"),
        pytest.param(b"surprise\n", "MalformedNote", id="no signature"),
    ],
)
def test_an_answer_without_a_known_cosignature_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidNote) as error:
        with_cosignatures(SIGNED, body, KeyRing([witness_key(NAME)]))
    assert error.value.reason == why


def test_monitors_find_a_log_by_the_hash_of_its_origin() -> None:
    assert origin_hash("go.sum database tree") == ("46613be2987d5d316f5ad065e4aa2eee26ccdd3de17a3735cd0da18156a22bdd")
