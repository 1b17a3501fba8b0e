"""Signed notes: the published cases of golang.org/x/mod/sumdb/note and C2SP, real cosignatures, and what is refused."""

import base64
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.notary import LOG, NOW, THIEF, log_key, signer_of, witness_key
from tests.unit.audit.vectorfiles import REPOSITORY, vectors

from triplane.audit.dsse import spki_of
from triplane.audit.note import (
    MAX_NOTE,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    cosign,
    make_note,
    open_note,
    parse_note,
    parse_signatures,
    sign,
    verified_signatures,
)
from triplane.audit.notekey import (
    MAX_TIMESTAMP,
    KeyRing,
    KeyType,
    NoteFault,
    VerifierKey,
    cosigned_message,
    decode64,
    key_of,
    parse_key,
    timestamp_of,
)
from triplane.errors import InvalidNote

GO = vectors("notes")
TEXT: str = GO["text"]
PETER, ENOCH = (parse_key(GO["keys"][name]) for name in ("PeterNeumann", "EnochRoot"))
BY_PETER, BY_ENOCH = (GO["signatures"][name] for name in ("PeterNeumann", "EnochRoot"))
NOBODY = KeyRing(())


class GoSigner:
    """The published private key."""

    def __init__(self) -> None:
        seed = base64.b64decode(GO["privateKey"].split("+", 4)[4])[1:]
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = spki_of(self._key.public_key())
        self.key_id = ""

    def sign(self, octets: bytes) -> bytes:
        return self._key.sign(octets)


def refused(octets: bytes, *keys: VerifierKey) -> str:
    with pytest.raises(InvalidNote) as error:
        open_note(octets, KeyRing(keys))
    return error.value.reason


def test_the_note_of_go_is_signed_to_the_octet() -> None:
    assert make_note(TEXT.encode(), [sign(TEXT.encode(), "PeterNeumann", GoSigner())]).decode() == (
        TEXT + "\n" + BY_PETER
    )
    assert key_of("PeterNeumann", KeyType.ED25519, GoSigner()) == PETER


def test_the_notes_of_go_open_for_the_keys_that_signed_and_name_those() -> None:
    both = (TEXT + "\n" + BY_PETER + BY_ENOCH).encode()
    for keys in ((PETER,), (ENOCH,), (PETER, ENOCH)):
        text, found = open_note(both, KeyRing(keys))
        assert text == TEXT.encode()
        assert tuple(item.key for item in found) == keys
        assert all(item.timestamp is None for item in found)
    assert refused(both) == "NotSigned"


def test_a_line_repeated_counts_once() -> None:
    text, found = open_note((TEXT + "\n" + BY_PETER * 2 + BY_ENOCH * 2).encode(), KeyRing([PETER]))
    assert (text, [item.key for item in found]) == (TEXT.encode(), [PETER])


def test_an_altered_signature_of_a_known_key_refuses_the_note() -> None:
    altered = BY_PETER[:60] + "ABCD" + BY_PETER[60:]
    assert refused((TEXT + "\n" + altered).encode(), PETER) == "InvalidSignature"
    assert refused((TEXT + "\n" + altered + BY_ENOCH).encode(), PETER, ENOCH) == "InvalidSignature"
    assert refused((TEXT + "\n" + BY_PETER + altered).encode(), PETER) == "InvalidSignature", "even after a good one"


@pytest.mark.parametrize("name", GO["malformed"])
def test_the_malformed_notes_of_go_are_refused(name: str) -> None:
    text = GO["malformed"][name]
    octets = text.encode() if text is not None else b"\xff" + (TEXT + "\n" + BY_PETER).encode()
    assert refused(octets, PETER) == "MalformedNote"


def test_too_many_signatures_and_octets_are_not_read() -> None:
    assert refused((TEXT + "\n" + BY_PETER * (MAX_SIGNATURES + 1)).encode(), PETER) == "MalformedNote"
    open_note((TEXT + "\n" + BY_PETER * MAX_SIGNATURES).encode(), KeyRing([PETER]))
    assert refused(b"a" * MAX_NOTE + b"\n\n" + BY_PETER.encode(), PETER) == "MalformedNote"
    with pytest.raises(InvalidNote, match="octets of signatures"):
        parse_signatures(b"\xe2\x80\x94 a " * MAX_NOTE)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("— a+b AAAAAAA=\n", id="a plus in the name"),
        pytest.param("—  AAAAAAA=\n", id="no name"),
        pytest.param("— a\n", id="no signature"),
        pytest.param("— a \n", id="an empty signature"),
        pytest.param("— a AAAAAA==\n", id="an id alone"),
        pytest.param("— a\u2003b AAAAAAA=\n", id="a space of another kind"),
        pytest.param("- a AAAAAAA=\n", id="a hyphen"),
        pytest.param("— a AAAAAAA= \n", id="a space at the end"),
        pytest.param("— a AAAAAAA\n", id="no padding"),
        pytest.param("— a AAAAAAB=\n", id="stray bits"),
        pytest.param("— a AAAA_AA=\n", id="the other alphabet"),
        pytest.param("\n", id="an empty line"),
        pytest.param("— a AAAAAAA=", id="no end"),
    ],
)
def test_a_malformed_line_refuses_the_note_even_of_an_unknown_key(line: str) -> None:
    assert refused((TEXT + "\n" + BY_PETER + line).encode(), PETER) == "MalformedNote"


def test_empty_lines_belong_to_the_text() -> None:
    text = b"one\n\ntwo\n\n\nthree\n\n"
    note = make_note(text, [sign(text, "a", LOG)])
    assert parse_note(note).text == text
    assert open_note(note, KeyRing([log_key(name="a")]))[0] == text


def test_the_example_of_the_specification() -> None:
    key = parse_key(vectors("c2sp")["note"]["key"])
    text, found = open_note(vectors("c2sp")["note"]["note"].encode(), KeyRing([key]))
    assert text == b"This is an example message.\n"
    assert [item.key for item in found] == [key]


def test_keys_are_read_and_written_as_published() -> None:
    for text in (*GO["keys"].values(), vectors("c2sp")["note"]["key"], vectors("cosigned")["log"]):
        assert str(parse_key(text)) == text
    for name in vectors("cosigned")["witnesses"]:
        key = VerifierKey(name, KeyType.COSIGNATURE_V1, bytes.fromhex(vectors("cosigned")["witnesses"][name]))
        assert parse_key(str(key)) == key


def test_no_mangled_key_is_read() -> None:
    text = GO["keys"]["PeterNeumann"]
    mangled = [text[i:j] for i in range(len(text) + 1) for j in range(i + 1, len(text) + 1) if text[i:j] != text]
    mangled += [text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :] for i in range(len(text))]
    for one in mangled:
        with pytest.raises(InvalidNote):
            parse_key(one)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(GO["badKeys"]["wrong length, with its own id"], "MalformedKey", id="a key of another length"),
        pytest.param(GO["badKeys"]["unknown algorithm, with its own id"], "UnknownKeyType", id="another algorithm"),
        pytest.param(GO["keys"]["PeterNeumann"].replace("c74f20a3", "c74f20a4"), "KeyIdMismatch", id="another id"),
        pytest.param(GO["keys"]["PeterNeumann"].replace("c74f20a3", "C74F20A3"), "MalformedKey", id="upper case"),
        pytest.param(GO["keys"]["PeterNeumann"].replace("Peter", "Mallory"), "KeyIdMismatch", id="another name"),
        pytest.param("a b+c74f20a3+AQ==", "MalformedKey", id="a space in the name"),
        pytest.param("", "MalformedKey", id="nothing"),
    ],
)
def test_what_is_no_key_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(InvalidNote) as error:
        parse_key(text)
    assert error.value.reason == reason


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\ud800", "a\x7f\x1f"])
def test_no_key_has_a_name_that_no_note_can_bear(name: str) -> None:
    with pytest.raises(InvalidNote, match="no key name"):
        VerifierKey(name, KeyType.ED25519, bytes(32))


def test_octets_that_are_no_point_verify_nothing() -> None:
    assert not VerifierKey("a", KeyType.ED25519, b"\xff" * 32).verifies(b"text\n", bytes(64))


CHECKPOINT = b"log.example/7f3a\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
WITNESS = "witness1.example"


def test_a_cosignature_signs_the_message_of_the_specification() -> None:
    example = vectors("c2sp")
    text = parse_note(example["checkpoint"].encode()).text
    assert cosigned_message(text, 1679315147).decode() == example["cosignedMessage"]["message"]
    line = next(item for item in parse_note(example["checkpoint"].encode()).signatures if "witness" in item.name)
    assert timestamp_of(line.signature) == 1679315147


def test_real_cosignatures_hold_and_say_when_they_were_made() -> None:
    real = vectors("cosigned")
    keys = [VerifierKey(n, KeyType.COSIGNATURE_V1, bytes.fromhex(k)) for n, k in real["witnesses"].items()]
    _, found = open_note(real["checkpoint"].encode(), KeyRing([parse_key(real["log"]), *keys]))
    assert {item.key.name: item.timestamp for item in found} == {
        "arche2025h1.staging.ct.transparency.dev": None,
        **dict.fromkeys(real["witnesses"], 0x6A122120),
    }
    altered = real["checkpoint"].replace("1432088532", "1432088533").encode()
    assert refused(altered, keys[0]) == "InvalidSignature"


def test_a_cosignature_covers_its_time_and_the_whole_text() -> None:
    key = key_of(WITNESS, KeyType.COSIGNATURE_V1, LOG)
    made = cosign(CHECKPOINT, WITNESS, LOG, NOW)
    assert key.verifies(CHECKPOINT, made.signature)
    later = (NOW + 1).to_bytes(8, "big") + made.signature[8:]
    assert not key.verifies(CHECKPOINT, later)
    assert not key.verifies(CHECKPOINT + b"an extension\n", made.signature)
    for timestamp, holds in ((MAX_TIMESTAMP, True), (MAX_TIMESTAMP + 1, False)):
        signed = LOG.sign(cosigned_message(CHECKPOINT, timestamp))
        assert key.verifies(CHECKPOINT, timestamp.to_bytes(8, "big") + signed) is holds
    assert not key.verifies(CHECKPOINT, made.signature[:8])


def test_one_kind_of_signature_is_never_taken_for_the_other() -> None:
    plain, witness = log_key(LOG, "a"), key_of("a", KeyType.COSIGNATURE_V1, LOG)
    assert plain.key_id != witness.key_id
    assert not plain.verifies(CHECKPOINT, cosign(CHECKPOINT, "a", LOG, NOW).signature)
    assert not witness.verifies(CHECKPOINT, sign(CHECKPOINT, "a", LOG).signature)
    forged = NoteSignature("a", witness.key_id, sign(CHECKPOINT, "a", LOG).signature)
    assert refused(make_note(CHECKPOINT, [forged]), witness) == "InvalidSignature"


def test_of_several_cosignatures_by_one_witness_the_latest_counts_once() -> None:
    key = key_of(WITNESS, KeyType.COSIGNATURE_V1, LOG)
    lines = [cosign(CHECKPOINT, WITNESS, LOG, NOW + n) for n in (1, 3, 2)]
    (found,) = verified_signatures(CHECKPOINT, lines, KeyRing([key]))
    assert (found.timestamp, found.line) == (NOW + 3, lines[1].line)


@pytest.mark.parametrize("timestamp", [0, -1, MAX_TIMESTAMP + 1])
def test_no_cosignature_is_made_without_a_time(timestamp: int) -> None:
    with pytest.raises(InvalidNote, match="no time"):
        cosign(CHECKPOINT, WITNESS, LOG, timestamp)


@pytest.mark.parametrize("text", [b"", b"no end", b"a tab\t\n", b"\xff\n", b"return\r\n"])
def test_what_is_no_text_of_a_note_is_not_signed(text: bytes) -> None:
    with pytest.raises(InvalidNote):
        sign(text, "a", LOG)
    with pytest.raises(InvalidNote):
        make_note(text, [NoteSignature("a", bytes(4), b"s")])


@pytest.mark.parametrize("name", ["a b", "a\n\nb", ""])
def test_no_note_is_made_with_a_line_that_would_not_be_read(name: str) -> None:
    with pytest.raises(InvalidNote):
        make_note(b"text\n", [NoteSignature(name, bytes(4), b"s")])
    with pytest.raises(InvalidNote):
        make_note(b"text\n", [])


def test_two_keys_of_one_name_and_id_are_not_pinned_together() -> None:
    colliding = vectors("colliding_keys")
    one, two = (log_key(signer_of(words), colliding["name"]) for words in colliding["seeds"])
    assert one.public_key != two.public_key
    assert one.key_id == two.key_id == bytes.fromhex(colliding["keyId"])
    with pytest.raises(InvalidNote) as error:
        KeyRing([one, two])
    assert error.value.reason == "AmbiguousKey"
    with pytest.raises(InvalidNote, match=r"PeterNeumann\+c74f20a3"):
        KeyRing([ENOCH, PETER, PETER])


def test_one_public_key_under_two_names_is_not_pinned() -> None:
    with pytest.raises(InvalidNote) as error:
        KeyRing([witness_key("witness1.example"), VerifierKey("other", KeyType.COSIGNATURE_V1,
                 witness_key("witness1.example").public_key)])  # fmt: skip
    assert error.value.reason == "KeyUsedTwice"


def test_an_id_alone_and_a_name_alone_are_unknown() -> None:
    octets = make_note(b"text\n", [sign(b"text\n", "a", LOG)])
    assert refused(octets, log_key(THIEF, "a")) == "NotSigned"
    assert refused(octets, log_key(LOG, "b")) == "NotSigned"
    assert NOBODY.find("a", bytes(4)) is None


names = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="+"), min_size=1, max_size=20)
texts = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), min_size=1).map(
    lambda lines: "".join(f"{line}\n" for line in lines).encode()
)


@given(
    texts, st.lists(st.tuples(names, st.binary(min_size=4, max_size=4), st.binary(min_size=1)), min_size=1, max_size=9)
)
def test_what_is_written_is_read_back(text: bytes, lines: list[tuple[str, bytes, bytes]]) -> None:
    signatures = tuple(dict.fromkeys(NoteSignature(*line) for line in lines if not any(map(str.isspace, line[0]))))
    if signatures:
        assert parse_note(make_note(text, signatures)) == Note(text, signatures)


@given(st.binary(max_size=300))
def test_any_octets_are_read_to_the_same_octets_or_refused(octets: bytes) -> None:
    for candidate in (octets, CHECKPOINT + b"\n" + octets, sign(CHECKPOINT, "a", LOG).line + octets):
        with suppress(InvalidNote):
            assert parse_note(candidate).octets == candidate


@given(st.data())
def test_a_note_altered_anywhere_is_not_believed_to_say_more(data: st.DataObject) -> None:
    octets = make_note(CHECKPOINT, [sign(CHECKPOINT, "a", LOG)])
    bit = data.draw(st.integers(0, len(octets) * 8 - 1))
    altered = (int.from_bytes(octets, "big") ^ 1 << bit).to_bytes(len(octets), "big")
    with pytest.raises(InvalidNote):
        open_note(altered, KeyRing([log_key(LOG, "a")]))


@given(st.text(max_size=12))
def test_base64_has_one_spelling(text: str) -> None:
    octets = decode64(text)
    assert octets is None or base64.b64encode(octets).decode() == text


def test_reasons_are_words_for_people_and_machines_and_are_documented() -> None:
    page = (REPOSITORY / "docs/reference/checkpoints.md").read_text(encoding="utf-8")
    for reason in NoteFault:
        assert reason.value[0].isupper()
        assert reason.value.isalpha()
        assert f"| `{reason}` |" in page
