"""Proofs that an entry is in the log, checked without it (C2SP tlog-proof): index, inclusion proof, checkpoint.

The entry itself rides along as the ``extra`` line, so that one file is enough. That line is believed only because its
leaf hash is what the proof leads to; an auditor who has the entry from elsewhere gives it, and it must be the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from triplane.audit.checkpoint import CheckpointTrust, SignedCheckpoint, parse_checkpoint, verify_checkpoint
from triplane.audit.entry import MAX_ENTRY_OCTETS, open_entry
from triplane.audit.merkle import HASH_OCTETS, MAX_SIZE, leaf_hash, verify_inclusion
from triplane.audit.note import MAX_NOTE
from triplane.audit.notekey import NoteFault, decode64, encode64, refuse
from triplane.errors import InvalidEntry

HEADER: Final = "c2sp.org/tlog-proof@v1"
SUFFIX: Final = ".tlog-proof"
MAX_PROOF: Final = 63
"""Hashes of an inclusion proof in a tree of 2^63 - 1 entries."""
MAX_BUNDLE: Final = MAX_NOTE + 2 * MAX_ENTRY_OCTETS
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_EXTRA: Final = "extra "


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A bundle as it is written; nothing of it is trusted."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    """Octets of the signed note."""
    extra: bytes | None = None
    """The entry's octets, when Triplane wrote it."""

    @property
    def octets(self) -> bytes:
        """The file (C2SP tlog-proof, "Format")."""
        extra = "" if self.extra is None else f"{_EXTRA}{encode64(self.extra)}\n"
        hashes = "".join(f"{encode64(item)}\n" for item in self.proof)
        return f"{HEADER}\n{extra}index {self.index}\n{hashes}\n".encode() + self.checkpoint


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry that is shown to be in the log."""

    index: int
    octets: bytes
    entry: dict[str, Any]
    signed: SignedCheckpoint


def make_bundle(index: int, entry: bytes, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The file for one entry. It is read back before it is given out: raises as ``parse_bundle`` and
    ``verify_inclusion`` do when these four do not belong together."""
    octets = TlogProof(index, tuple(proof), checkpoint, entry).octets
    parse_bundle(octets)
    head, _ = parse_checkpoint(checkpoint)
    verify_inclusion(index, head.size, leaf_hash(entry), proof, head.root)
    return octets


def parse_bundle(octets: bytes) -> TlogProof:
    """Read a bundle. Raises ``InvalidNote`` saying what is malformed."""
    if len(octets) > MAX_BUNDLE:
        refuse(NoteFault.MALFORMED_BUNDLE, f"a proof of {len(octets)} octets: over {MAX_BUNDLE} it is not read")
    head, blank, checkpoint = octets.partition(b"\n\n")
    header, *lines = head.decode("ascii", errors="replace").split("\n")
    if header != HEADER or not blank:
        refuse(NoteFault.MALFORMED_BUNDLE, f"not a proof: it begins with {HEADER}, and an empty line ends its head")
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = decode64(lines.pop(0).removeprefix(_EXTRA))
        if extra is None:
            refuse(NoteFault.MALFORMED_BUNDLE, "the extra line is no base64")
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None or int(index[1]) >= MAX_SIZE:
        refuse(NoteFault.MALFORMED_BUNDLE, "the proof does not say which entry it is of: index <number>")
    if len(lines) > MAX_PROOF:
        refuse(NoteFault.MALFORMED_BUNDLE, f"{len(lines)} hashes: no inclusion proof has more than {MAX_PROOF}")
    return TlogProof(int(index[1]), tuple(_hash(line) for line in lines), checkpoint, extra)


def verify_leaf(bundle: TlogProof, leaf: bytes, trust: CheckpointTrust) -> SignedCheckpoint:
    """Steps 2 to 4 of C2SP tlog-proof, "Verifying a tlog proof", for a leaf hash of any log.

    Raises ``InvalidNote`` or ``InvalidProof``.
    """
    signed = verify_checkpoint(bundle.checkpoint, trust)
    verify_inclusion(bundle.index, signed.checkpoint.size, leaf, bundle.proof, signed.checkpoint.root)
    return signed


def verify_bundle(octets: bytes, trust: CheckpointTrust, entry: bytes | None = None) -> Logged:
    """Whether this entry of Triplane's log is in it, at the place its own octets say.

    ``entry`` is what the auditor has from elsewhere; without it the bundle's own is taken. Raises ``InvalidNote``,
    ``InvalidProof`` or ``InvalidEntry`` with what is wrong.
    """
    bundle = parse_bundle(octets)
    content = entry if entry is not None else bundle.extra
    if content is None:
        refuse(NoteFault.MALFORMED_BUNDLE, f"the proof of entry {bundle.index} does not hold the entry: give it beside")
    if bundle.extra is not None and bundle.extra != content:
        refuse(NoteFault.OTHER_ENTRY, f"the proof of entry {bundle.index} holds another entry than the one given")
    signed = verify_leaf(bundle, leaf_hash(content), trust)
    opened = open_entry(content).entry
    if (opened["origin"], opened["seq"]) != (trust.origin, bundle.index):
        raise InvalidEntry(
            f"entry {bundle.index} of {trust.origin} says it is entry {opened['seq']} of {opened['origin']}: "
            "it was transplanted, and the log that signed it is not to be trusted"
        )
    return Logged(bundle.index, content, opened, signed)


def _hash(line: str) -> bytes:
    octets = decode64(line)
    if octets is None or len(octets) != HASH_OCTETS:
        refuse(NoteFault.MALFORMED_BUNDLE, f"{line[:80]!r} in the proof is no hash: 32 octets in base64")
    return octets
