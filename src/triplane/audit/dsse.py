"""Signed envelopes: DSSE v1 (https://github.com/secure-systems-lab/dsse), with Ed25519 (RFC 8032).

What is signed is the pre-authentication encoding of the payload's octets as they are stored: nothing is parsed, sorted
or encoded anew before its signature has been checked. ``keyid`` is a hint of whoever wrote the envelope and decides
nothing: every trusted key is tried. The payload's type is part of what is signed, and the reader says which one it
wants.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from triplane.errors import InvalidInput

MAX_ENVELOPE: Final = 4 * 1024 * 1024
"""Octets of an envelope; a larger one is refused before it is parsed."""
MAX_SIGNATURES: Final = 16


class Signer(Protocol):
    """A private key that signs."""

    @property
    def key_id(self) -> str:
        """``key_id_of`` its public key."""
        ...

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER (RFC 8410)."""
        ...

    def sign(self, octets: bytes) -> bytes:
        """The signature of these octets: the same each time."""
        ...


class PublicKey(Protocol):
    """Whom a reader trusts."""

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        ...


Trusted = TypeVar("Trusted", bound=PublicKey)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as the envelope holds it; ``keyid`` may say anything."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. ``payload`` are the signed octets."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: ``DSSEv1 SP LEN(type) SP type SP LEN(payload) SP payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id_of(public_key: bytes) -> str:
    """The SHA-256 of the SubjectPublicKeyInfo, 64 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()


def spki_of(key: Ed25519PublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_public_key(public_key: bytes) -> Ed25519PublicKey:
    """Raises ``InvalidInput`` for anything but an Ed25519 SubjectPublicKeyInfo."""
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"no public key: {error}; it must be an Ed25519 SubjectPublicKeyInfo") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(f"a {type(key).__name__} is no Ed25519 key; others are not used here")
    return key


def seal(payload_type: str, payload: bytes, signer: Signer) -> bytes:
    """The envelope's octets with one signature; the same for the same payload and key."""
    signature = {"keyid": signer.key_id, "sig": _text(signer.sign(pae(payload_type, payload)))}
    return orjson.dumps({"payload": _text(payload), "payloadType": payload_type, "signatures": [signature]})


def parse(octets: bytes) -> Envelope:
    """Raises ``InvalidInput`` naming what is missing or malformed; nothing in it is trusted yet."""
    if len(octets) > MAX_ENVELOPE:
        raise InvalidInput(f"an envelope of {len(octets)} octets: over {MAX_ENVELOPE} it is not read")
    try:
        document = orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the envelope is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("the envelope is no JSON object")
    payload_type = document.get("payloadType")
    if not isinstance(payload_type, str) or not payload_type:
        raise InvalidInput("the envelope has no payloadType")
    given = document.get("signatures")
    if not isinstance(given, list) or not given:
        raise InvalidInput("the envelope has no signatures")
    if len(given) > MAX_SIGNATURES:
        raise InvalidInput(f"the envelope has {len(given)} signatures: over {MAX_SIGNATURES} it is not read")
    signatures = tuple(_signature(item) for item in given)
    return Envelope(payload_type, _octets(document.get("payload"), "payload"), signatures)


def signed_by(envelope: Envelope, payload_type: str, keys: Iterable[Trusted]) -> list[Trusted]:
    """Those of the keys one of whose signatures it bears, each once, in the order given.

    Raises ``InvalidInput`` when it is of another type than the reader wants.
    """
    if envelope.payload_type != payload_type:
        raise InvalidInput(f"the envelope holds a {envelope.payload_type!r}, not a {payload_type!r}")
    octets = pae(envelope.payload_type, envelope.payload)
    return [key for key in keys if any(_verifies(key.public_key, item.sig, octets) for item in envelope.signatures)]


def _verifies(public_key: bytes, signature: bytes, octets: bytes) -> bool:
    try:
        load_public_key(public_key).verify(signature, octets)
    except InvalidSignature:
        return False
    return True


def _signature(item: Any) -> Signature:
    if not isinstance(item, dict):
        raise InvalidInput("a signature is no JSON object")
    keyid = item.get("keyid", "")
    if not isinstance(keyid, str):
        raise InvalidInput("a signature's keyid is no string")
    return Signature(keyid, _octets(item.get("sig"), "sig"))


def _octets(text: Any, what: str) -> bytes:
    """Standard or URL-safe base64: the specification lets a reader accept either."""
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"the envelope has no {what}")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"the envelope's {what} is no base64: {error}") from error


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
