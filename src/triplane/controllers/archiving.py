"""Taking the oldest entries out of the database, once they are kept, whole and verified, in a folder elsewhere.

The archive is the exported log (C2SP tlog-tiles), written on with each archiving, so an auditor checks it like any
other export. Entries leave only by whole tiles, below a signed checkpoint, after every file of the archive was read
back and checked. A crash on the way leaves more than is needed, never less: first the archive is durable, then the
boundary is recorded, then rows go.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from triplane.audit.checkpoint import CheckpointTrust
from triplane.audit.entry import format_time
from triplane.audit.exported import verify_export
from triplane.audit.layout import CHECKPOINT
from triplane.audit.merkle import tree_root
from triplane.audit.tiles import WIDTH, tile_reader
from triplane.controllers.exporting import ExportTarget, StoredLog, export_log
from triplane.errors import Archived as ArchivedEntries
from triplane.errors import Conflict, Corrupt, InvalidInput
from triplane.ports import EventLog
from triplane.ports.archive import Archivist, Cut

_AT_ONCE = 64 * WIDTH
"""Rows removed in one transaction."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and of how many."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What an archiving did. ``first == upto``: nothing new was to be archived."""

    first: int
    upto: int
    size: int
    """Entries in the archive folder; those from ``upto`` on are in the database, too."""
    removed: int


async def archive_log(
    source: StoredLog,
    target: ExportTarget,
    archivist: Archivist,
    trust: CheckpointTrust,
    *,
    before: int,
    place: str,
    now: datetime,
    progress: Progress = lambda _what, _n, _of: None,
) -> Archived:
    """Archive the entries below ``before``, down to a whole tile, and remove them from the database.

    Raises ``Conflict`` when ``target`` is not the archive that was begun, ``Corrupt`` when it does not verify: nothing
    is removed then. Interrupted, it is simply run again.
    """
    held = await archivist.boundary()
    first = 0 if held is None else held.upto
    if held is not None and not target.exists(CHECKPOINT):
        raise Conflict(
            f"entries 0 to {held.upto - 1} are archived at {held.place}, which is continued, or a copy of it: name that"
        )
    exported = await export_log(source, target, trust, lambda n, of: progress("exported", n, of))
    size = exported.size
    if size < first:
        raise Conflict(
            f"the archive holds {size} entries, but {first} are archived: name the one at {held and held.place}"
        )
    upto = min(before, size) // WIDTH * WIDTH
    if upto > first:
        progress("verifying", 0, size)
        found = verify_export(target.read, trust)
        if found.fault is not None:
            raise Corrupt(f"the archive does not verify, nothing was removed: {found.fault.message}")
        hashes = tile_reader(size, lambda tiles: [target.read(tile.path) for tile in tiles])
        root = tree_root(upto, hashes)
        await archivist.record(Cut(first, upto, root, target.read(CHECKPOINT), size, place), now)
    removed = 0
    while gone := await archivist.remove(_AT_ONCE):
        removed += gone
        progress("removed", removed, max(upto, first))
    return Archived(first, max(upto, first), size, removed)


async def first_since(log: EventLog, moment: datetime) -> int:
    """The number of the first entry that is here and not older than ``moment``; the log's size when all are. Times in
    the log never go back, so a few entries are looked at. Raises ``InvalidInput`` for a naive ``moment``."""
    if moment.tzinfo is None:
        raise InvalidInput("a time without a zone says nothing: add one")
    wanted = format_time(moment)
    first, size = 0, (await log.head())[0]
    while first < size:
        middle = (first + size) // 2
        try:
            found = await log.query(after=middle - 1, limit=1)
        except ArchivedEntries as gone:
            first = gone.upto
            continue
        if found and found[0].entry["time"] < wanted:
            first = found[0].seq + 1
        else:
            size = middle
    return first
