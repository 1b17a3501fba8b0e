"""Is the log still the one whose checkpoints were seen? Pure; ``controllers.continuity`` gathers what it needs.

Two ask this: the notary, before it signs and before the operator acts, of its own record and of every anchor; and a
restore, of the same places, before anything runs on what was restored. Whether a later *checkpoint* continues an
earlier one is ``audit.checkpoint.check_continues``; here the later side is the log itself, whose root at any earlier
size can be had.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, parse_checkpoint, verify_checkpoint
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey
from triplane.errors import Contradicted, InvalidInput, InvalidNote

_ACCEPTED = re.compile(r"(?P<origin>[^\s+]+)\+(?P<size>0|[1-9][0-9]{0,18})\+(?P<root>[0-9a-f]{64})")


class Standing(StrEnum):
    """How the log stands to what a place holds. An absent anchor is not a mismatched one, nor is one out of reach."""

    CONTINUES = "Continues"
    """The log begins with what was signed there."""
    ABSENT = "Absent"
    """Nothing is there, and nothing ever was: it vouches for the log from its first checkpoint on."""
    VANISHED = "Vanished"
    """Nothing is there, though a checkpoint was kept there before."""
    STALE = "Stale"
    """It holds an older checkpoint than one that was kept there before; the log continues it all the same."""
    UNREACHABLE = "Unreachable"
    """It cannot be read now: nothing is known."""
    WRITE_ONLY = "WriteOnly"
    """It cannot be read by design."""
    UNVERIFIED = "Unverified"
    """What is there was not signed by this installation's keys."""
    ROLLED_BACK = "RolledBack"
    """The log has fewer entries than were signed."""
    FORKED = "Forked"
    """The log has other entries than were signed."""
    OTHER_ORIGIN = "OtherOrigin"
    """Another log was signed by the same keys: this one was begun anew."""


CONTRADICTED: Final = frozenset({Standing.ROLLED_BACK, Standing.FORKED, Standing.OTHER_ORIGIN})
"""With these nothing may go on."""
TROUBLED: Final = frozenset({Standing.VANISHED, Standing.STALE, Standing.UNVERIFIED, Standing.UNREACHABLE})
"""With these somebody should look at the place; the log is not in doubt."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a place holds. ``place`` names it in messages."""

    place: str
    note: bytes | None = None
    problem: str = ""
    """Why it could not be read."""
    anchored: int | None = None
    """Size of the checkpoint it was given last."""
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """How the log stands to one place."""

    place: str
    standing: Standing
    message: str
    checkpoint: Checkpoint | None = None

    @property
    def contradicts(self) -> bool:
        return self.standing in CONTRADICTED


@dataclass(frozen=True, slots=True)
class Known:
    """The keys by which this installation's checkpoints are known, retired ones included (raw Ed25519)."""

    origin: str
    public_keys: tuple[bytes, ...]

    def trust(self, origin: str | None = None) -> CheckpointTrust:
        """Whom to believe about the log of this origin. Raises ``InvalidNote`` without keys."""
        name = origin or self.origin
        return CheckpointTrust(
            name, KeyRing(VerifierKey(name, KeyType.ED25519, key) for key in dict.fromkeys(self.public_keys))
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The checkpoint that somebody gives up: it and all below it no longer count against the log."""

    origin: str
    size: int
    root: bytes

    def covers(self, checkpoint: Checkpoint) -> bool:
        """Whether this one was given up."""
        if checkpoint.origin != self.origin:
            return False
        return checkpoint.size < self.size or (checkpoint.size, checkpoint.root) == (self.size, self.root)


def parse_accepted(text: str) -> Accepted:
    """Read ``<origin>+<size>+<root in hex>``. Raises ``InvalidInput``."""
    found = _ACCEPTED.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"TRIPLANE_ACCEPT_ROLLBACK={text[:120]!r} names no checkpoint: write <origin>+<size>+<root in hex>, "
            "as the operator's message says it"
        )
    return Accepted(found["origin"], int(found["size"]), bytes.fromhex(found["root"]))


def opened(held: Held, known: Known) -> Checkpoint | Finding:
    """The checkpoint there, if this installation signed it; otherwise what is to be said of the place."""
    if held.problem:
        said = f"{held.place} cannot be read: {held.problem}; what it holds is not known"
        return Finding(held.place, Standing.UNREACHABLE, said)
    if not held.readable:
        return Finding(held.place, Standing.WRITE_ONLY, f"{held.place} only takes checkpoints, it is not compared")
    if held.note is None:
        if held.anchored is None:
            return Finding(held.place, Standing.ABSENT, f"{held.place} holds no checkpoint yet")
        said = (
            f"{held.place} holds no checkpoint, though it was given one of {held.anchored} entries: somebody removed "
            "it. It is written anew; find out who"
        )
        return Finding(held.place, Standing.VANISHED, said)
    try:
        checkpoint, _ = parse_checkpoint(held.note)
        return verify_checkpoint(held.note, known.trust(checkpoint.origin)).checkpoint
    except InvalidNote as error:
        said = (
            f"{held.place} holds what this installation did not sign ({error.reason}: {error}). It is left as it is: "
            "keep it as evidence, then remove it, and it is written again"
        )
        return Finding(held.place, Standing.UNVERIFIED, said)


def judge(held: Held, seen: Checkpoint, head: Checkpoint) -> Finding:
    """How the log stands to this checkpoint. ``head`` is the log now: its size, and its root *at the smaller of the two
    sizes*; the root is not looked at when the log is the smaller."""
    both = (
        f"{held.place} holds a checkpoint of {seen.size} entries with root {seen.root.hex()}, signed by this "
        f"installation for {seen.origin}"
    )
    if seen.origin != head.origin:
        said = f"{both}; the log is {head.origin}, of {head.size} entries: it was begun anew, or exchanged"
        return Finding(held.place, Standing.OTHER_ORIGIN, said, seen)
    if seen.size > head.size:
        said = (
            f"{both}; the log has only {head.size} entries: a backup was restored, or entries {head.size} to "
            f"{seen.size - 1} were cut off"
        )
        return Finding(held.place, Standing.ROLLED_BACK, said, seen)
    if seen.root != head.root:
        said = (
            f"{both}; the log's first {seen.size} entries have root {head.root.hex()}: they are not the ones that were "
            "signed"
        )
        return Finding(held.place, Standing.FORKED, said, seen)
    if held.anchored is not None and seen.size < held.anchored:
        said = (
            f"{held.place} holds a checkpoint of {seen.size} entries, though it was given one of {held.anchored}: "
            "somebody put an old one back. It is written anew; find out who"
        )
        return Finding(held.place, Standing.STALE, said, seen)
    return Finding(held.place, Standing.CONTINUES, f"{held.place}: the log continues its {seen.size} entries", seen)


def refusal(findings: Iterable[Finding], accepted: Accepted | None = None) -> Contradicted | None:
    """The error for those that contradict the log and were not given up, with the ways out; None when there is none."""
    against = [
        finding
        for finding in findings
        if finding.contradicts
        and not (accepted is not None and finding.checkpoint is not None and accepted.covers(finding.checkpoint))
    ]
    if not against:
        return None
    last = max((item.checkpoint for item in against if item.checkpoint is not None), key=lambda item: item.size)
    return Contradicted(
        f"{'; '.join(item.message for item in against)}. Nothing is done until this is settled: restore a newer backup "
        "(`triplane restore`), which has what was signed; or, if it is lost for good, begin a new log with an origin "
        "and a home of its own and keep this one as evidence; or give up what was signed, which everybody who has "
        "seen it will find out, by starting the operator once with "
        f"TRIPLANE_ACCEPT_ROLLBACK={last.origin}+{last.size}+{last.root.hex()}"
    )
