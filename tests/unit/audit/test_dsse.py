"""Signed envelopes: the specification's vectors, what is refused, and that an independent implementation agrees."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit import dsse
from triplane.audit.keys import TrustedKey
from triplane.errors import InvalidInput

SIGNER = MemorySigner(b"one")
KEY = TrustedKey(SIGNER.public_key, 0, "")
TYPE = "http://example.com/HelloWorld"
PAYLOAD = b"hello world"


def their_key(public_key: bytes, keyid: str) -> SSlibKey:
    return SSlibKey.from_crypto(dsse.load_public_key(public_key), keyid)


@pytest.mark.parametrize(
    ("kind", "payload", "encoded"),
    [
        pytest.param(TYPE, PAYLOAD, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world", id="of the protocol"),
        pytest.param("", b"", b"DSSEv1 0  0 ", id="nothing"),
        pytest.param("héllo", "wörld".encode(), "DSSEv1 6 héllo 6 wörld".encode(), id="lengths are octets"),
    ],
)
def test_the_pre_authentication_encoding(kind: str, payload: bytes, encoded: bytes) -> None:
    assert dsse.pae(kind, payload) == encoded


def test_the_same_payload_and_key_give_the_same_octets() -> None:
    octets = dsse.seal(TYPE, PAYLOAD, SIGNER)
    assert dsse.seal(TYPE, PAYLOAD, SIGNER) == octets
    envelope = dsse.parse(octets)
    assert (envelope.payload_type, envelope.payload) == (TYPE, PAYLOAD)
    assert [item.keyid for item in envelope.signatures] == [SIGNER.key_id]
    assert dsse.signed_by(envelope, TYPE, [KEY]) == [KEY]


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40))
def test_an_independent_verifier_accepts_what_we_sign(payload: bytes, kind: str) -> None:
    document = orjson.loads(dsse.seal(kind, payload or b"x", SIGNER))
    theirs = TheirEnvelope.from_dict(document)
    assert theirs.verify([their_key(SIGNER.public_key, SIGNER.key_id)], 1)


def test_an_independent_verifier_refuses_what_we_refuse() -> None:
    document = orjson.loads(dsse.seal(TYPE, PAYLOAD, SIGNER))
    document["payload"] = base64.b64encode(b"hello world!").decode()
    assert not dsse.signed_by(dsse.parse(orjson.dumps(document)), TYPE, [KEY])
    with pytest.raises(VerificationError):
        TheirEnvelope.from_dict(document).verify([their_key(SIGNER.public_key, SIGNER.key_id)], 1)


def test_we_accept_what_an_independent_signer_signs() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    private = Ed25519PrivateKey.generate()
    theirs = TheirEnvelope(PAYLOAD, TYPE, {})
    theirs.sign(CryptoSigner(private))
    envelope = dsse.parse(orjson.dumps(theirs.to_dict()))
    key = TrustedKey(dsse.spki_of(private.public_key()), 0, "")
    assert dsse.signed_by(envelope, TYPE, [KEY, key]) == [key]


def test_url_safe_base64_is_read_too() -> None:
    document = orjson.loads(dsse.seal(TYPE, b"\xfb\xff\xfe", SIGNER))
    for part in (document, document["signatures"][0]):
        for key in ("payload", "sig"):
            if key in part:
                part[key] = part[key].replace("+", "-").replace("/", "_")
    assert dsse.signed_by(dsse.parse(orjson.dumps(document)), TYPE, [KEY]) == [KEY]


def test_the_reader_says_which_type_it_wants() -> None:
    with pytest.raises(InvalidInput, match=r"holds a .http"):
        dsse.signed_by(dsse.parse(dsse.seal(TYPE, PAYLOAD, SIGNER)), "application/vnd.in-toto+json", [KEY])


def _document(**change: Any) -> bytes:
    document = {**orjson.loads(dsse.seal(TYPE, PAYLOAD, SIGNER)), **change}
    return orjson.dumps({key: value for key, value in document.items() if value != "ABSENT"})


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        pytest.param(b"{", "no JSON", id="no JSON"),
        pytest.param(b"[]", "no JSON object", id="a list"),
        pytest.param(_document(payload="ABSENT"), "no payload", id="no payload"),
        pytest.param(_document(payload=7), "no payload", id="a payload that is a number"),
        pytest.param(_document(payload="&&&"), "no base64", id="a payload that is no base64"),
        pytest.param(_document(payloadType="ABSENT"), "no payloadType", id="no type"),
        pytest.param(_document(payloadType=""), "no payloadType", id="an empty type"),
        pytest.param(_document(signatures=[]), "no signatures", id="no signature"),
        pytest.param(_document(signatures="x"), "no signatures", id="signatures that are a text"),
        pytest.param(_document(signatures=["x"]), "no JSON object", id="a signature that is a text"),
        pytest.param(_document(signatures=[{"sig": "eA==", "keyid": 1}]), "keyid", id="a keyid that is a number"),
        pytest.param(_document(signatures=[{"sig": "eA=="}] * 17), "17 signatures", id="too many signatures"),
        pytest.param(b" " * (dsse.MAX_ENVELOPE + 1), "over", id="too large"),
    ],
)
def test_what_is_no_envelope_is_refused(octets: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        dsse.parse(octets)


def test_only_ed25519_keys_are_keys() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(InvalidInput, match="no Ed25519 key"):
        dsse.load_public_key(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InvalidInput, match="no public key"):
        dsse.load_public_key(b"nonsense")
