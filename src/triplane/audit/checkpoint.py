"""Checkpoints (C2SP tlog-checkpoint): what a log says of all its entries at once, signed, and cosigned by witnesses.

Two checkpoints of one log must tell one story. Of one size they have one root; of two sizes, a consistency proof
leads from the smaller to the larger. What breaks that is named here: a fork, a rollback, another log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from triplane.audit.dsse import Signer
from triplane.audit.merkle import EMPTY_ROOT, HASH_OCTETS, MAX_SIZE, ProofFault, verify_consistency
from triplane.audit.note import Note, Verified, check_text, make_note, parse_note, sign, verified_signatures
from triplane.audit.notekey import KeyRing, KeyType, NoteFault, decode64, encode64, refuse
from triplane.errors import InvalidProof

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MIN_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree head of a log. ``extensions`` are opaque lines, and vouched for by nobody."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The note's text (C2SP tlog-checkpoint, "Note text")."""
        lines = (self.origin, str(self.size), encode64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class CheckpointTrust:
    """Whom a reader believes about a log: its keys, witnesses, and how many of those must have cosigned.

    Raises ``InvalidNote`` when a key is of the wrong type for its part, when one key has two parts, or when there are
    fewer witnesses than must cosign.
    """

    origin: str
    log: KeyRing
    witnesses: KeyRing = field(default_factory=lambda: KeyRing(()))
    quorum: int = 0

    def __post_init__(self) -> None:
        for ring, wanted in ((self.log, KeyType.ED25519), (self.witnesses, KeyType.COSIGNATURE_V1)):
            for key in ring.keys:
                if key.type is not wanted:
                    refuse(
                        NoteFault.UNKNOWN_KEY_TYPE, f"{key} is of type {key.type:#04x}, here it must be {wanted:#04x}"
                    )
        KeyRing((*self.log.keys, *self.witnesses.keys))
        if not self.log.keys:
            refuse(NoteFault.NOT_SIGNED, f"no key is pinned for {self.origin}: nothing it signs could be believed")
        if not 0 <= self.quorum <= len(self.witnesses.keys):
            refuse(
                NoteFault.TOO_FEW_WITNESSES,
                f"{self.quorum} witnesses must cosign, {len(self.witnesses.keys)} are pinned: pin more, or ask less",
            )


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose signatures hold."""

    checkpoint: Checkpoint
    octets: bytes
    signed: tuple[Verified, ...]
    """By the log's pinned keys; at least one."""
    cosigned: tuple[Verified, ...]
    """By pinned witnesses, each once."""


class Relation(StrEnum):
    """How a later checkpoint stands to one that was seen before."""

    EQUAL = "Equal"
    NEEDS_PROOF = "NeedsProof"
    """It is larger: a consistency proof has to show that it continues the other."""
    FROM_EMPTY = "FromEmpty"
    """The earlier one was of no entries: there is nothing to prove."""
    FORKED = "Forked"
    """One size, two roots: the log has told two stories. The two notes together prove it to anybody."""
    ROLLED_BACK = "RolledBack"
    """It is smaller: entries were taken away, a backup was restored, or somebody serves an old one."""
    OTHER_ORIGIN = "OtherOrigin"


def parse_text(text: bytes) -> Checkpoint:
    """Read a checkpoint's text. Raises ``InvalidNote`` for any spelling but ``Checkpoint.text``."""
    check_text(text)
    lines = text.decode().split("\n")[:-1]
    if len(lines) < _MIN_LINES or not all(lines):
        refuse(NoteFault.MALFORMED_CHECKPOINT, "a checkpoint is three lines or more, origin, size, root, none empty")
    origin, size, root, *extensions = lines
    if _SIZE.fullmatch(size) is None or int(size) > MAX_SIZE:
        refuse(NoteFault.MALFORMED_CHECKPOINT, f"{origin[:200]!r}: {size[:30]!r} is no number of entries (0 to 2^63-1)")
    octets = decode64(root)
    if octets is None or len(octets) != HASH_OCTETS:
        refuse(NoteFault.MALFORMED_CHECKPOINT, f"{origin[:200]!r}: {root[:80]!r} is no root: 32 octets in base64")
    return Checkpoint(origin, int(size), octets, tuple(extensions))


def parse_checkpoint(octets: bytes) -> tuple[Checkpoint, Note]:
    """Read a note that is a checkpoint; nothing of it is trusted. Raises ``InvalidNote``."""
    note = parse_note(octets)
    return parse_text(note.text), note


def sign_checkpoint(checkpoint: Checkpoint, name: str, signers: Sequence[Signer]) -> bytes:
    """The note, signed under ``name`` (which should be the origin) by each of these keys: two while they rotate.

    That it is consistent with all that was signed before is for the caller to have checked. Raises ``InvalidNote``.
    """
    if parse_text(checkpoint.text) != checkpoint:
        refuse(NoteFault.MALFORMED_CHECKPOINT, f"{checkpoint} cannot be written as a checkpoint")
    _check_empty(checkpoint)
    return make_note(checkpoint.text, [sign(checkpoint.text, name, signer) for signer in signers])


def verify_checkpoint(octets: bytes, trust: CheckpointTrust) -> SignedCheckpoint:
    """Whether this log signed it, and enough witnesses saw it.

    Raises ``InvalidNote`` with its reason: malformed, of another origin, unsigned by a pinned key, a signature that
    does not hold, too few witnesses, or entries missing from an empty tree's root.
    """
    checkpoint, note = parse_checkpoint(octets)
    if checkpoint.origin != trust.origin:
        refuse(
            NoteFault.OTHER_ORIGIN,
            f"the checkpoint is of {checkpoint.origin[:200]!r}, not of {trust.origin}: another log, or one begun anew",
        )
    signed = verified_signatures(note.text, note.signatures, trust.log)
    if not signed:
        refuse(
            NoteFault.NOT_SIGNED,
            f"no key pinned for {trust.origin} has signed its checkpoint of {checkpoint.size} entries, "
            f"but {', '.join(f'{item.name}+{item.key_id.hex()}' for item in note.signatures[:5])}: "
            "if the log has a new key, get it from where you got the first",
        )
    cosigned = verified_signatures(note.text, note.signatures, trust.witnesses)
    if len(cosigned) < trust.quorum:
        missing = sorted({str(key) for key in trust.witnesses.keys} - {str(item.key) for item in cosigned})
        refuse(
            NoteFault.TOO_FEW_WITNESSES,
            f"{len(cosigned)} of the {trust.quorum} witnesses wanted have cosigned the checkpoint of "
            f"{checkpoint.size} entries of {trust.origin}; missing: {', '.join(missing)}",
        )
    _check_empty(checkpoint)
    return SignedCheckpoint(checkpoint, octets, signed, cosigned)


def unverified_checkpoint(octets: bytes) -> SignedCheckpoint:
    """What it says, signed by nobody that is known: to write down, not to believe. Raises ``InvalidNote``."""
    checkpoint, _ = parse_checkpoint(octets)
    _check_empty(checkpoint)
    return SignedCheckpoint(checkpoint, octets, (), ())


def compare(seen: Checkpoint, now: Checkpoint) -> Relation:
    """How ``now`` stands to one that was seen before."""
    if now.origin != seen.origin:
        return Relation.OTHER_ORIGIN
    if now.size == seen.size:
        return Relation.EQUAL if now.root == seen.root else Relation.FORKED
    if now.size < seen.size:
        return Relation.ROLLED_BACK
    return Relation.FROM_EMPTY if seen.size == 0 else Relation.NEEDS_PROOF


def check_continues(seen: Checkpoint, now: Checkpoint, proof: Sequence[bytes]) -> Relation:
    """Whether ``now`` is ``seen``, or continues it; ``proof`` is empty when nothing is to be proven.

    Raises ``InvalidNote`` (another origin, forked, rolled back) or ``InvalidProof`` naming both sizes.
    """
    relation = compare(seen, now)
    both = f"{seen.size} entries with root {seen.root.hex()}, {now.size} with root {now.root.hex()}"
    if relation is Relation.OTHER_ORIGIN:
        refuse(NoteFault.OTHER_ORIGIN, f"{now.origin} is not the log seen before, {seen.origin}: it was begun anew")
    if relation is Relation.FORKED:
        refuse(
            NoteFault.FORKED,
            f"{now.origin} is forked: {both}. Keep both checkpoints, they prove it; trust neither copy of the log",
        )
    if relation is Relation.ROLLED_BACK:
        refuse(
            NoteFault.ROLLED_BACK,
            f"{now.origin} is rolled back: {both} now. A backup was restored, entries were cut off, or an old "
            "checkpoint is being served: stop appending and restore what is missing",
        )
    _check_empty(seen)
    _check_empty(now)
    if relation is Relation.NEEDS_PROOF:
        verify_consistency(seen.size, now.size, proof, seen.root, now.root)
    elif proof:
        raise InvalidProof(
            f"from {seen.size} to {now.size} entries there is nothing to prove, yet there are {len(proof)} hashes",
            reason=ProofFault.PROOF_TOO_LONG.value,
        )
    return relation


def add_signatures(octets: bytes, lines: Iterable[bytes]) -> bytes:
    """The note with these signature lines (as ``Verified.line``) beside its own. Raises ``InvalidNote``."""
    note = parse_note(octets)
    added = parse_note(note.text + b"\n" + b"".join(lines)).signatures
    return make_note(note.text, (*note.signatures, *added))


def _check_empty(checkpoint: Checkpoint) -> None:
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        refuse(
            NoteFault.EMPTY_TREE_ROOT,
            f"{checkpoint.origin} says it has no entries, but root {checkpoint.root.hex()}: "
            f"of none it is {EMPTY_ROOT.hex()} (RFC 6962, section 2.1)",
        )
