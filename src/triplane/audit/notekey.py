"""Keys of signed notes (C2SP signed-note, "Signatures" and "Verifier keys"; tlog-cosignature, "Format").

A key is known by its name and its id together. The id is four octets that anybody can make another key for: it says
which pinned key to try, and proves nothing. Two kinds are known: Ed25519 over the text (type 0x01), and a witness's
timestamped cosignature (type 0x04).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from triplane.audit.dsse import Signer, load_public_key
from triplane.errors import InvalidNote

MAX_TIMESTAMP: Final = 2**63 - 1
TIME_OCTETS: Final = 8
ID_OCTETS: Final = 4
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
_KEY_OCTETS: Final = 32
_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


class NoteFault(StrEnum):
    """Why a note, a key or a checkpoint is refused (docs/reference/checkpoints.md)."""

    MALFORMED_NOTE = "MalformedNote"
    MALFORMED_KEY = "MalformedKey"
    KEY_ID_MISMATCH = "KeyIdMismatch"
    UNKNOWN_KEY_TYPE = "UnknownKeyType"
    AMBIGUOUS_KEY = "AmbiguousKey"
    KEY_USED_TWICE = "KeyUsedTwice"
    INVALID_SIGNATURE = "InvalidSignature"
    NOT_SIGNED = "NotSigned"
    MALFORMED_CHECKPOINT = "MalformedCheckpoint"
    OTHER_ORIGIN = "OtherOrigin"
    EMPTY_TREE_ROOT = "EmptyTreeRoot"
    TOO_FEW_WITNESSES = "TooFewWitnesses"
    MALFORMED_BUNDLE = "MalformedBundle"
    OTHER_ENTRY = "OtherEntry"
    FORKED = "Forked"
    ROLLED_BACK = "RolledBack"


class KeyType(IntEnum):
    """The octet that says what a key signs (C2SP signed-note, "Signature types")."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name. Raises ``InvalidNote`` for a name or key that no note can bear."""

    name: str
    type: KeyType
    public_key: bytes
    """32 octets (RFC 8032, section 5.1.5)."""

    def __post_init__(self) -> None:
        check_name(self.name, NoteFault.MALFORMED_KEY)
        if len(self.public_key) != _KEY_OCTETS:
            refuse(
                NoteFault.MALFORMED_KEY,
                f"the key {self.name} has {len(self.public_key)} octets; Ed25519 has {_KEY_OCTETS}",
            )

    @property
    def key_id(self) -> bytes:
        """``SHA-256(name ‖ LF ‖ type ‖ public key)[:4]`` (C2SP signed-note, "Signatures")."""
        return _key_id(self.name, bytes([self.type]) + self.public_key)

    def __str__(self) -> str:
        """The *vkey*: ``name+hex(id)+base64(type ‖ public key)`` (C2SP signed-note, "Verifier keys")."""
        return f"{self.name}+{self.key_id.hex()}+{encode64(bytes([self.type]) + self.public_key)}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether these octets (without the id) are this key's signature of the text."""
        if self.type is KeyType.COSIGNATURE_V1:
            timestamp = timestamp_of(signature)
            if timestamp is None:
                return False
            text, signature = cosigned_message(text, timestamp), signature[TIME_OCTETS:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class KeyRing:
    """The keys a reader has pinned.

    Raises ``InvalidNote`` for two keys of one name and id, of which a signature could not say which it is by, and for
    one public key given twice, which would count as two signers.
    """

    def __init__(self, keys: Iterable[VerifierKey]) -> None:
        self.keys = tuple(keys)
        self._known: dict[tuple[str, bytes], VerifierKey] = {}
        owners: dict[bytes, VerifierKey] = {}
        for key in self.keys:
            if (key.name, key.key_id) in self._known:
                refuse(
                    NoteFault.AMBIGUOUS_KEY,
                    f"two keys are {key.name}+{key.key_id.hex()}: pin one of them, or give the other a name of its own",
                )
            if key.public_key in owners:
                other = owners[key.public_key]
                refuse(
                    NoteFault.KEY_USED_TWICE,
                    f"{key.name}+{key.key_id.hex()} is the same public key as {other.name}+{other.key_id.hex()}: "
                    "one key must not count twice; every signer needs its own",
                )
            self._known[key.name, key.key_id] = owners[key.public_key] = key

    def find(self, name: str, key_id: bytes) -> VerifierKey | None:
        """The key of that name *and* id."""
        return self._known.get((name, key_id))


def parse_key(text: str) -> VerifierKey:
    """Read a vkey. Raises ``InvalidNote`` for any spelling but the one ``str`` gives, and for other types of key."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    material = decode64(encoded)
    if _ID.fullmatch(key_id) is None or not material:
        refuse(NoteFault.MALFORMED_KEY, f"{text[:100]!r} is no verifier key: write <name>+<8 hex digits>+<base64>")
    check_name(name, NoteFault.MALFORMED_KEY)
    if _key_id(name, material).hex() != key_id:
        refuse(
            NoteFault.KEY_ID_MISMATCH,
            f"the key {name} has id {_key_id(name, material).hex()}, not {key_id}: it was altered or renamed",
        )
    if material[0] not in KeyType.__members__.values():
        refuse(
            NoteFault.UNKNOWN_KEY_TYPE,
            f"the key {name} is of type 0x{material[0]:02x}; 0x01 (Ed25519) and 0x04 (cosignature/v1) are known here",
        )
    return VerifierKey(name, KeyType(material[0]), material[1:])


def key_of(name: str, type_: KeyType, signer: Signer) -> VerifierKey:
    """The key under which a signer's notes are checked."""
    return VerifierKey(name, type_, load_public_key(signer.public_key).public_bytes_raw())


def cosigned_message(text: bytes, timestamp: int) -> bytes:
    """What a cosignature signs (C2SP tlog-cosignature, "Ed25519 signed message")."""
    return b"cosignature/v1\ntime %d\n%b" % (timestamp, text)


def timestamp_of(signature: bytes) -> int | None:
    """The time in a cosignature; None when it bears none (C2SP tlog-cosignature, "Format")."""
    timestamp = int.from_bytes(signature[:TIME_OCTETS], "big")
    return timestamp if len(signature) > TIME_OCTETS and timestamp <= MAX_TIMESTAMP else None


def encode64(octets: bytes) -> str:
    """Standard base64 (RFC 4648, section 4)."""
    return base64.b64encode(octets).decode()


def decode64(text: str) -> bytes | None:
    """The octets, or None unless this is the one spelling ``encode64`` gives them."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return octets if encode64(octets) == text else None


def check_name(name: str, reason: NoteFault) -> None:
    """Raises ``InvalidNote`` unless a note can bear this name (C2SP signed-note, "Format")."""
    if not name or "+" in name or any(map(str.isspace, name)) or CONTROL.search(name) or SURROGATE.search(name):
        refuse(reason, f"{name[:80]!r} is no key name: it is not empty, and has no space, plus or control character")


def refuse(reason: NoteFault, message: str) -> NoReturn:
    """Raise ``InvalidNote`` for this reason."""
    raise InvalidNote(message, reason=reason.value)


def _key_id(name: str, material: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + material).digest()[:ID_OCTETS]
