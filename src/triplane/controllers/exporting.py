"""The log written out for outsiders: from wherever it is read to wherever it is kept, in memory that does not grow.

What may be written, and in which order, is decided in ``triplane.audit.export``. The checkpoint is read first: entries
appended meanwhile lie beyond it, and belong to the next export.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from triplane.audit.checkpoint import CheckpointTrust, parse_checkpoint
from triplane.audit.export import ELSEWHERE, Exporter, Held, read_held, signed_or_said
from triplane.audit.layout import CHECKPOINT, File, bundles_of, parse_bundle
from triplane.audit.merkle import Node, inclusion_plan
from triplane.audit.tiles import WIDTH, Tile, index_path, tile_reader
from triplane.audit.tlogproof import SUFFIX, make_bundle
from triplane.controllers.proving import latest_checkpoint
from triplane.errors import Corrupt, InvalidNote
from triplane.ports import CheckpointStore, EventLog

PROOFS: Final = "proofs"
_PAGE: Final = WIDTH
"""Entries in memory at a time: at most 16 MiB."""

Progress = Callable[[int, int], None]
"""Called with how many entries are written, and of how many."""


class LogSource(Protocol):
    """A log to export."""

    async def checkpoint(self) -> bytes:
        """The latest signed note. Raises ``NotFound``, ``Unavailable``."""
        ...

    def entries(self, first: int, size: int) -> AsyncIterator[bytes]:
        """The octets of entries ``first`` to ``size - 1``. Raises ``Corrupt``, ``NotFound``, ``Unavailable``."""
        ...


class ExportTarget(Protocol):
    """Where the files go. Raises ``InvalidInput`` when it cannot be written."""

    def read(self, path: str) -> bytes:
        """Raises ``NotFound``."""
        ...

    def exists(self, path: str) -> bool: ...

    def named(self, path: str) -> str:
        """The file as messages name it."""
        ...

    def write(self, file: File) -> None:
        """Whole or not at all."""
        ...

    def settle(self) -> None:
        """All that was written is durable on return."""
        ...


class StoredLog:
    """The log in its own stores."""

    def __init__(self, log: EventLog, checkpoints: CheckpointStore) -> None:
        self._log = log
        self._checkpoints = checkpoints

    @property
    def origin(self) -> str:
        """``<host>/<install id>``."""
        return self._log.origin

    async def checkpoint(self) -> bytes:
        """See ``LogSource.checkpoint``."""
        return await latest_checkpoint(self._checkpoints)

    async def entries(self, first: int, size: int) -> AsyncIterator[bytes]:
        """See ``LogSource.entries``. Whether an entry is in its place is for the exporter to see."""
        while first < size:
            page = await self._log.query(after=first - 1, limit=min(_PAGE, size - first))
            if not page:
                raise Corrupt(f"entry {first} of {size} is missing: run `triplane log verify`, and export again")
            for item in page:
                yield item.octets
            first += len(page)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did."""

    origin: str
    first: int
    """The first entry that was not there before."""
    size: int
    root: str
    files: int


async def export_log(
    source: LogSource, target: ExportTarget, trust: CheckpointTrust | None, progress: Progress = lambda _n, _of: None
) -> Exported:
    """Write the log up to its latest checkpoint, or what an earlier export lacks of it; the checkpoint's file last.

    Without ``trust`` its signatures are not checked: the files are what the checkpoint says, whoever signed it.
    Raises as ``Exporter`` and ``LogSource``; what was exported before stays what it was.
    """
    signed = signed_or_said(await source.checkpoint(), trust)
    held = _held(target, trust) if target.exists(CHECKPOINT) else None
    exporter = Exporter(signed, held)
    first, written = exporter.next, 0
    async for entry in source.entries(first, exporter.size):
        for file in exporter.add(entry):
            target.write(file)
            written += 1
        if exporter.next % WIDTH == 0:
            progress(exporter.next, exporter.size)
    files = exporter.finish()
    for file in files[:-1]:
        target.write(file)
    target.settle()  # all that the checkpoint speaks of, before the checkpoint
    target.write(files[-1])
    target.settle()
    checkpoint = signed.checkpoint
    return Exported(checkpoint.origin, first, checkpoint.size, checkpoint.root.hex(), written + len(files))


def _held(target: ExportTarget, trust: CheckpointTrust | None) -> Held:
    try:
        return read_held(target.read, trust)
    except InvalidNote as error:
        raise InvalidNote(f"{target.named(CHECKPOINT)}: {error}; {ELSEWHERE}", reason=error.reason) from error


def write_proofs(target: ExportTarget, progress: Progress = lambda _n, _of: None) -> int:
    """A ``.tlog-proof`` of every entry that has none yet, from the exported files alone; how many were written.

    One made for an earlier checkpoint still proves what it proved, and is left.
    """
    note = target.read(CHECKPOINT)
    size = parse_checkpoint(note)[0].size
    hash_of = _hashes(target, size)
    written = 0
    for bundle in bundles_of(size):
        first = bundle.index * WIDTH
        wanted = [seq for seq in range(first, first + bundle.width) if not target.exists(proof_path(seq))]
        entries = parse_bundle(target.read(bundle.path), bundle.width) if wanted else []
        for seq in wanted:
            plan = inclusion_plan(seq, size)
            proof = plan.fold([hash_of(node) for node in plan.nodes])
            target.write(File(proof_path(seq), make_bundle(seq, entries[seq - first], proof, note)))
            written += 1
        progress(first + bundle.width, size)
    target.settle()
    return written


def proof_path(seq: int) -> str:
    """``proofs/x001/x234/067.tlog-proof``."""
    return f"{PROOFS}/{index_path(seq)}{SUFFIX}"


def _hashes(target: ExportTarget, size: int) -> Callable[[Node], bytes]:
    """Hashes of subtrees from the tiles; neighbours share most of theirs, so the last ones are kept."""

    @lru_cache(maxsize=64)
    def octets(tile: Tile) -> bytes:
        return target.read(tile.path)

    read = tile_reader(size, lambda tiles: [octets(tile) for tile in tiles])

    @lru_cache(maxsize=4096)
    def hash_of(node: Node) -> bytes:
        return read([node])[0]

    return hash_of
