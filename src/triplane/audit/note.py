"""Signed notes (C2SP signed-note): a text, and signatures by named keys that a reader has pinned.

Signatures of others are ignored; one that is said to be by a pinned key and is not refuses the whole note, however
many others hold. What several lines of one key say counts once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from triplane.audit.dsse import Signer
from triplane.audit.notekey import (
    CONTROL,
    ID_OCTETS,
    MAX_TIMESTAMP,
    TIME_OCTETS,
    KeyRing,
    KeyType,
    NoteFault,
    VerifierKey,
    check_name,
    cosigned_message,
    decode64,
    encode64,
    key_of,
    refuse,
    timestamp_of,
)
from triplane.errors import InvalidNote

MAX_NOTE: Final = 1024 * 1024
"""Octets of a note; a larger one is not read. Sixteen post-quantum signatures take a tenth of it."""
MAX_SIGNATURES: Final = 100
_DASH: Final = "\N{EM DASH} ".encode()


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line; nothing of it is trusted."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> bytes:
        """As it stands in the note, with its newline."""
        return _DASH + f"{self.name} {encode64(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note. ``text`` are the signed octets, with the last newline; nothing in it is trusted yet."""

    text: bytes
    signatures: tuple[NoteSignature, ...]

    @property
    def octets(self) -> bytes:
        return self.text + b"\n" + b"".join(item.line for item in self.signatures)


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds."""

    key: VerifierKey
    line: bytes
    timestamp: int | None
    """POSIX seconds at which a witness cosigned; None for a plain signature."""


def sign(text: bytes, name: str, signer: Signer) -> NoteSignature:
    """A plain signature (type 0x01) of a note's text. Raises ``InvalidNote`` when that is no text of a note."""
    check_text(text)
    return NoteSignature(name, key_of(name, KeyType.ED25519, signer).key_id, signer.sign(text))


def cosign(text: bytes, name: str, signer: Signer, timestamp: int) -> NoteSignature:
    """A cosignature (type 0x04) of a checkpoint's text; ``timestamp`` is in POSIX seconds, at least 1.

    That the text is a checkpoint, and consistent with what was cosigned before, is for the caller to have checked.
    """
    check_text(text)
    if not 0 < timestamp <= MAX_TIMESTAMP:
        refuse(NoteFault.MALFORMED_NOTE, f"{timestamp} is no time of a cosignature (1 to 2^63-1 seconds)")
    signature = timestamp.to_bytes(TIME_OCTETS, "big") + signer.sign(cosigned_message(text, timestamp))
    return NoteSignature(name, key_of(name, KeyType.COSIGNATURE_V1, signer).key_id, signature)


def parse_note(octets: bytes) -> Note:
    """Read a note (C2SP signed-note, "Format"). Raises ``InvalidNote`` saying what is malformed."""
    if len(octets) > MAX_NOTE:
        refuse(NoteFault.MALFORMED_NOTE, f"a note of {len(octets)} octets: over {MAX_NOTE} it is not read")
    _check_characters(octets)
    text, blank, rest = octets.rpartition(b"\n\n")
    if not blank or not rest.endswith(b"\n"):
        refuse(NoteFault.MALFORMED_NOTE, "a note is a text, an empty line and lines of signatures, each ended")
    signatures = parse_signatures(rest)
    return Note(text + b"\n", signatures)


def parse_signatures(octets: bytes) -> tuple[NoteSignature, ...]:
    """Read signature lines, each ended by a newline. Raises ``InvalidNote``."""
    if len(octets) > MAX_NOTE:
        refuse(NoteFault.MALFORMED_NOTE, f"{len(octets)} octets of signatures: over {MAX_NOTE} they are not read")
    _check_characters(octets)
    lines = octets.split(b"\n")
    if lines.pop() or not lines:
        refuse(NoteFault.MALFORMED_NOTE, "a signature line ends in a newline, and there is at least one")
    if len(lines) > MAX_SIGNATURES:
        refuse(NoteFault.MALFORMED_NOTE, f"{len(lines)} signatures: over {MAX_SIGNATURES} they are not read")
    return tuple(_signature(line) for line in lines)


def verified_signatures(text: bytes, signatures: Sequence[NoteSignature], keys: KeyRing) -> tuple[Verified, ...]:
    """Those by known keys, one for each key: of several, the latest.

    Raises ``InvalidNote`` if any line that names a known key does not hold, however many others do.
    """
    found: dict[VerifierKey, Verified] = {}
    for item in signatures:
        key = keys.find(item.name, item.key_id)
        if key is None:
            continue
        if not key.verifies(text, item.signature):
            refuse(
                NoteFault.INVALID_SIGNATURE,
                f"the signature of {item.name}+{item.key_id.hex()} does not hold: "
                "the text was altered, or another key signed under that name and id",
            )
        timestamp = timestamp_of(item.signature) if key.type is KeyType.COSIGNATURE_V1 else None
        if key not in found or (timestamp or 0) > (found[key].timestamp or 0):
            found[key] = Verified(key, item.line, timestamp)
    return tuple(found.values())


def open_note(octets: bytes, keys: KeyRing) -> tuple[bytes, tuple[Verified, ...]]:
    """The text, and which of these keys signed it (C2SP signed-note, "Signatures").

    Raises ``InvalidNote`` when the note is malformed, a known key's signature does not hold, or none is there.
    """
    note = parse_note(octets)
    found = verified_signatures(note.text, note.signatures, keys)
    if not found:
        names = ", ".join(f"{item.name}+{item.key_id.hex()}" for item in note.signatures[:10])
        refuse(NoteFault.NOT_SIGNED, f"no known key has signed the note; signatures by {names} are unknown here")
    return note.text, found


def make_note(text: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """The octets of a note, repeated lines once. Raises ``InvalidNote`` when that is no note."""
    check_text(text)
    made = Note(text, tuple(dict.fromkeys(signatures))).octets
    parse_note(made)
    return made


def check_text(text: bytes) -> None:
    """Raises ``InvalidNote`` unless this can be a note's text."""
    _check_characters(text)
    if not text.endswith(b"\n"):
        refuse(NoteFault.MALFORMED_NOTE, "the text of a note ends in a newline")


def _signature(line: bytes) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).decode().partition(" ")
    octets = decode64(encoded)
    if not line.startswith(_DASH) or octets is None or len(octets) <= ID_OCTETS:
        refuse(NoteFault.MALFORMED_NOTE, f"{line[:80].decode(errors='replace')!r} is no signature: — <name> <base64>")
    check_name(name, NoteFault.MALFORMED_NOTE)
    return NoteSignature(name, octets[:ID_OCTETS], octets[ID_OCTETS:])


def _check_characters(octets: bytes) -> None:
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        raise InvalidNote(f"a note is UTF-8: {error}", reason=NoteFault.MALFORMED_NOTE.value) from error
    if found := CONTROL.search(text):
        refuse(NoteFault.MALFORMED_NOTE, f"a note has no control character, this one has {found[0]!r}")
