"""What the log shows to outsiders: tiles, bundles of entries, and proofs, made from the stores when they are asked for.

Nothing lies beyond the latest checkpoint: what is not signed yet is not shown, for nobody could hold it against
anything. At most 256 entries (16 MiB) are in memory for one answer, however long the log is.
"""

from triplane.audit.checkpoint import Checkpoint, parse_checkpoint
from triplane.audit.layout import encode_bundle
from triplane.audit.merkle import Node, consistency_plan, inclusion_plan
from triplane.audit.model import EventFilter, Recorded
from triplane.audit.tiles import HEIGHT, WIDTH, Tile
from triplane.audit.tlogproof import TlogProof, make_bundle
from triplane.audit.types import STAYING
from triplane.audit.witness import make_request
from triplane.errors import Archived, Corrupt, InvalidInput, InvalidProof, NotFound
from triplane.ports import CheckpointStore, EventLog

_WAIT = "entries are signed within seconds of their append while the operator runs"


async def latest_checkpoint(checkpoints: CheckpointStore) -> bytes:
    """The newest signed note. Raises ``NotFound`` when nothing was signed yet."""
    found = await checkpoints.latest()
    if found is None:
        raise NotFound(f"the log has no checkpoint yet: {_WAIT}; is it running?")
    return found


async def tile_octets(log: EventLog, checkpoints: CheckpointStore, tile: Tile) -> bytes:
    """The octets of a tile or bundle (C2SP tlog-tiles). They never change.

    Raises ``NotFound`` when the latest checkpoint does not reach it, ``Corrupt`` when the store lacks what was signed.
    """
    size = parse_checkpoint(await latest_checkpoint(checkpoints))[0].size
    first, level = tile.index * WIDTH, 0 if tile.level is None else tile.level
    last = first + tile.width
    if last > size >> (level * HEIGHT):
        raise NotFound(f"{tile.path} lies beyond the {size} entries of the latest checkpoint; {_WAIT}")
    if tile.level is not None:
        return b"".join(await checkpoints.hashes([Node(level * HEIGHT, index) for index in range(first, last)]))
    return encode_bundle([item.octets for item in await _entries(log, first, tile.width)])


async def entry_proof(
    log: EventLog, checkpoints: CheckpointStore, recorded: Recorded, size: int | None = None
) -> bytes:
    """A ``.tlog-proof`` of this entry, in the tree of the checkpoint of ``size`` entries (the latest).

    Raises ``NotFound`` when there is no such checkpoint, or it does not reach the entry; ``Corrupt`` when what is kept
    is not what was signed.
    """
    shown = await place_proof(checkpoints, recorded.seq, size)
    try:
        return make_bundle(recorded.seq, recorded.octets, shown.proof, shown.checkpoint)
    except InvalidProof as error:
        raise Corrupt(
            f"{error}: the entry, or a hash kept of the others, is not what was signed. Run `triplane log verify`, "
            "which names what was altered and says what to do"
        ) from error


async def place_proof(checkpoints: CheckpointStore, seq: int, size: int | None = None) -> TlogProof:
    """What ``entry_proof`` holds besides the entry, which may be archived. Raises as that does."""
    note, head = await _checkpoint(checkpoints, size)
    if seq >= head.size:
        raise NotFound(f"entry {seq} lies beyond the checkpoint of {head.size} entries: try again; {_WAIT}")
    plan = inclusion_plan(seq, head.size)
    return TlogProof(seq, tuple(plan.fold(await checkpoints.hashes(plan.nodes))), note)


async def growth(checkpoints: CheckpointStore, old: int, new: int | None = None) -> bytes:
    """That the tree of the checkpoint of ``new`` entries (the latest) begins with the first ``old``: as a log asks a
    witness (C2SP tlog-witness, "add-checkpoint"), so that any witness, and `triplane verify`, can read it.

    Raises ``NotFound`` when there is no such checkpoint, ``InvalidInput`` unless ``old`` is at most its size.
    """
    note, head = await _checkpoint(checkpoints, new)
    if not 0 <= old <= head.size:
        raise InvalidInput(f"the checkpoint has {head.size} entries: nothing is proven from {old}")
    if old in (0, head.size):
        return make_request(old, (), note)
    plan = consistency_plan(old, head.size)
    return make_request(old, plan.fold(await checkpoints.hashes(plan.nodes)), note)


async def entry_at(log: EventLog, seq: int) -> Recorded | None:
    """None when the log does not reach so far. Raises ``Corrupt`` when the entry is gone, ``Archived``."""
    size, _ = await log.head()
    if seq >= size:
        return None
    try:
        return (await _entries(log, seq, 1))[0]
    except Archived:
        stayed = await log.query(EventFilter(types=STAYING, before=seq + 1), after=seq - 1, limit=1)
        if not stayed:
            raise
        return stayed[0]


async def _checkpoint(checkpoints: CheckpointStore, size: int | None) -> tuple[bytes, Checkpoint]:
    note = await latest_checkpoint(checkpoints) if size is None else await checkpoints.at(size)
    if note is None:
        raise NotFound(f"no checkpoint of {size} entries was published: ask for one that was, or for the latest")
    return note, parse_checkpoint(note)[0]


async def _entries(log: EventLog, first: int, count: int) -> list[Recorded]:
    found = await log.query(after=first - 1, limit=count)
    for seq, item in enumerate(found, first):
        if item.seq != seq:
            raise Corrupt(f"entry {seq} is missing from the log: run `triplane log verify`, and restore a backup")
    if len(found) != count:
        raise Corrupt(f"entry {first + len(found)} is missing from the log: run `triplane log verify`")
    return found
