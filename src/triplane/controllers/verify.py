"""Verifying the log: from where, against which signed checkpoints, and what of it was known before.

A verification may leave out what an earlier one has read: behind a signed checkpoint, or behind the state in which an
earlier run of one's own stopped. The hashes to go on from are believed by nobody: the tree that grows from them must
lead to the root of a checkpoint that was signed later, or the verification says that it is unanchored. So neither a
changed state nor changed hashes in the database can hide a change; they can only make a sound log look broken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, parse_checkpoint, verify_checkpoint
from triplane.audit.merkle import Node, root_plan
from triplane.audit.model import Verification
from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import Given, Progress, TreeState
from triplane.controllers.kepthashes import KeptHashes
from triplane.controllers.wholelog import Archive
from triplane.errors import Corrupt, InvalidInput, InvalidProof
from triplane.ports import CheckpointStore, EventLog

_NOTHING: Final = 0
Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks of a verification."""

    first: int = 0
    last: int | None = None
    trust: CheckpointTrust | None = None
    """Whose checkpoints are believed; without any, nothing is held against the tree."""
    behind: bytes | None = None
    """A signed checkpoint behind which to begin: what it counts is not read again, but for its last tile."""
    earlier: Sequence[bytes] = ()
    """Signed checkpoints that the log must continue."""
    state: TreeState | None = None
    """Where an earlier run stopped."""
    processes: int = 0
    archive: Archive | None = None
    """What was moved out of the log: what the log keeps of it is held against it."""


async def verify(log: EventLog, checkpoints: CheckpointStore, wanted: Wanted, tell: Tell | None = None) -> Verification:
    """Verify what is wanted, and compare with the latest published checkpoint and all that were given; when all is
    verified, from entry 0, also the hashes kept for proofs, as far as the published checkpoint goes.

    Raises ``InvalidInput`` for what cannot be asked together, and ``InvalidNote`` for a checkpoint, the published one
    among them, that the trusted keys have not signed.
    """
    held = signed(wanted)
    if wanted.archive is not None:
        if wanted.first or wanted.last is not None or wanted.behind is not None or wanted.state is not None:
            raise InvalidInput(
                "an archive is compared when all is verified, from entry 0: leave out where to begin or end"
            )
        if not wanted.archive.size:
            raise InvalidInput("nothing of this log is archived: there is nothing to hold against an archive")
    latest = await checkpoints.latest()
    if wanted.trust is not None and latest is not None:
        held.append(verify_checkpoint(latest, wanted.trust).checkpoint)
    if wanted.first or wanted.last is not None:
        if wanted.behind is not None or wanted.state is not None:
            raise InvalidInput(
                "a range by numbers cannot begin behind a checkpoint or a state too: leave one of them out"
            )
        start = None
    else:
        start = await _start(checkpoints, wanted, held)
    archived = None if wanted.archive is None else wanted.archive.entries
    kept = KeptHashes() if latest is not None and start is None and not wanted.first and wanted.last is None else None
    given = Given(
        start,
        tuple(dict.fromkeys(held)),
        tell,
        processes=wanted.processes,
        grown=None if kept is None else kept.grown,
        archived=archived,
    )
    found = await log.verify_chain(first=wanted.first, last=wanted.last, given=given)
    if kept is None or latest is None or found.broken is not None:
        return found
    broken = await kept.problem(checkpoints, parse_checkpoint(latest)[0].size)
    return found if broken is None else replace(found, root="", broken=broken, compared=())


def signed(wanted: Wanted) -> list[Checkpoint]:
    """The checkpoints that were given, their signatures verified."""
    notes = [*wanted.earlier, *([wanted.behind] if wanted.behind is not None else [])]
    if notes and wanted.trust is None:
        raise InvalidInput("a checkpoint says nothing without the key that signed it: give the log's key too")
    return [verify_checkpoint(note, wanted.trust).checkpoint for note in notes if wanted.trust is not None]


async def _start(checkpoints: CheckpointStore, wanted: Wanted, held: Sequence[Checkpoint]) -> TreeState | None:
    """Where to begin: not behind a checkpoint whose entries are to be compared with it."""
    state = wanted.state
    if wanted.behind is not None:
        assert wanted.trust is not None
        try:
            state = await behind(checkpoints, verify_checkpoint(wanted.behind, wanted.trust).checkpoint)
        except (InvalidProof, Corrupt):
            return None  # the log is shorter than was signed, or hashes are gone: reading all of it says where
    earlier = signed(replace(wanted, behind=None))
    if state is None or state.size == _NOTHING or any(one.size < state.size for one in earlier):
        return None
    if not any(one.size >= state.size for one in held):
        raise InvalidInput(
            f"no signed checkpoint of {state.size} entries or more is known: what was verified before cannot be "
            "relied on. Verify from the beginning, or give the log's key and a later checkpoint"
        )
    return state


async def behind(checkpoints: CheckpointStore, checkpoint: Checkpoint) -> TreeState | None:
    """Where a verification begins that leaves out what this checkpoint counts: at the edge of its last tile, so that
    its root is computed again and compared. The hashes are the database's, and are not believed before that. None when
    there is nothing to leave out. Raises ``InvalidProof`` when the log is shorter, ``Corrupt`` when hashes are missing.
    """
    size = max(checkpoint.size - 1, 0) // WIDTH * WIDTH
    if size == _NOTHING:
        return None
    *peaks, leaf = await checkpoints.hashes([*root_plan(size).nodes, Node(0, size - 1)])
    return TreeState(size, tuple(peaks), leaf.hex(), "")
