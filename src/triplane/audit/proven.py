"""What somebody shows of a log, held against a checkpoint: single entries, an artifact with all that speaks for it, and
a checkpoint that was kept. Pure, and without the log: no network, no clock, no database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from triplane.audit.checkpoint import (
    Checkpoint,
    CheckpointTrust,
    Relation,
    SignedCheckpoint,
    compare,
    verify_checkpoint,
)
from triplane.audit.evidence import Evidence, Step
from triplane.audit.keys import KEY_EVENTS, TrustBundle, keys_of
from triplane.audit.merkle import verify_consistency
from triplane.audit.model import Recorded
from triplane.audit.notekey import NoteFault, refuse
from triplane.audit.tlogproof import Logged, verify_bundle
from triplane.audit.verification import verify
from triplane.audit.witness import parse_request
from triplane.errors import InvalidInput


class GrowthMissing(InvalidInput):
    """Two checkpoints of different sizes, and nothing that leads from one to the other: nothing is said of them."""


@dataclass(frozen=True, slots=True)
class Growth:
    """That the tree of ``checkpoint`` begins with the first ``old_size`` entries, as whoever gave it says."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes


def read_growth(octets: bytes) -> Growth:
    """What `triplane proof consistency` wrote: a request to a witness. Raises ``InvalidNote``."""
    return Growth(*parse_request(octets))


def verify_entries(
    entries: Mapping[int, bytes], proofs: Mapping[int, bytes], trust: CheckpointTrust
) -> tuple[SignedCheckpoint, list[Logged]]:
    """Whether each of these entries is in the log at its place, all of them in the tree of one checkpoint.

    Raises ``InvalidNote``, ``InvalidProof`` or ``InvalidEntry`` naming the entry.
    """
    if not entries:
        refuse(NoteFault.MALFORMED_BUNDLE, "no entries are shown: nothing is proven")
    found: list[Logged] = []
    for seq, octets in sorted(entries.items()):
        if seq not in proofs:
            _malformed(seq, "no proof of it came with the bundle: `triplane proof artifact` makes one that has them")
        shown = verify_bundle(proofs[seq], trust, octets)
        if shown.index != seq:
            _malformed(seq, f"its proof is of entry {shown.index}")
        if found and shown.signed.checkpoint != found[0].signed.checkpoint:
            _malformed(seq, "it is proven in another checkpoint than the entries before: make the bundle anew")
        found.append(shown)
    return found[0].signed, found


def verify_artifact(
    evidence: Evidence, proofs: Mapping[int, bytes], trust: CheckpointTrust, keys: TrustBundle | None = None
) -> tuple[SignedCheckpoint, list[Step]]:
    """The steps of ``triplane.audit.verification`` over entries that are shown to be in the log.

    The keys of statements are those the proven entries tell of, unless ``keys`` are given: then one key, the log's, is
    all that is pinned. Raises as ``verify_entries``.
    """
    signed, shown = verify_entries(evidence.entries, proofs, trust)
    told = [Recorded(item.index, item.octets, "", item.entry) for item in shown if item.entry["type"] in KEY_EVENTS]
    trusted = keys or TrustBundle(trust.origin, keys_of(told))
    return signed, verify(replace(evidence, trust=trusted))


def verify_kept(now: Checkpoint, kept: bytes, trust: CheckpointTrust, growths: Sequence[Growth]) -> Growth | None:
    """Whether a checkpoint that somebody kept and the one that is shown now tell one story, whichever is older. Returns
    which of ``growths`` leads from one to the other; None where none does and none is needed.

    Raises ``InvalidNote`` (another log, a signature, a fork), ``InvalidProof``, or ``GrowthMissing`` when their sizes
    differ and none of ``growths`` is about them.
    """
    seen = verify_checkpoint(kept, replace(trust, quorum=0)).checkpoint
    relation = compare(seen, now)
    if relation is Relation.OTHER_ORIGIN:
        refuse(NoteFault.OTHER_ORIGIN, f"{seen.origin} is not the log shown, {now.origin}")
    if relation is Relation.FORKED:
        refuse(
            NoteFault.FORKED,
            f"{now.origin} is forked: {now.size} entries have root {seen.root.hex()} in the checkpoint that was kept, "
            f"{now.root.hex()} in the one shown. Keep both, they prove it; trust neither copy of the log",
        )
    small, large = sorted((seen, now), key=lambda item: item.size)
    for growth in growths:
        if growth.old_size == small.size and _says(growth.checkpoint, large):
            verify_consistency(small.size, large.size, growth.proof, small.root, large.root)
            return growth
    if small.size in (0, large.size):
        return None
    raise GrowthMissing(
        f"nothing leads from the checkpoint of {small.size} entries to that of {large.size}: get it with "
        f"`triplane proof consistency {small.size} --to {large.size} -o FILE`, and give --consistency FILE"
    )


def _says(note: bytes, checkpoint: Checkpoint) -> bool:
    """Only to find the right proof: the roots it is checked against are the signed ones."""
    return note.startswith(checkpoint.text)


def _malformed(seq: int, message: str) -> NoReturn:
    refuse(NoteFault.MALFORMED_BUNDLE, f"entry {seq}: {message}")
