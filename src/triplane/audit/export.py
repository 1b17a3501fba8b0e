"""The log written out as static files (C2SP tlog-tiles): from octets to files, and on from an earlier export.

The signed checkpoint that the export is to end at comes first, so that a history that does not continue what was
exported before is refused before anything is written; its file is written last, so that all it speaks of is there.
What an export that was broken off leaves behind lies beyond the earlier checkpoint, counts for nothing, and is written
again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from triplane.audit.checkpoint import (
    CheckpointTrust,
    Relation,
    SignedCheckpoint,
    compare,
    unverified_checkpoint,
    verify_checkpoint,
)
from triplane.audit.layout import CHECKPOINT, File, TileTree, bundle_of, edge, encode_bundle, parse_bundle, parse_tile
from triplane.audit.merkle import inclusion_proof, leaf_hash, verify_inclusion
from triplane.audit.model import GENESIS_PREV
from triplane.audit.tiles import WIDTH, Tile, tile_reader
from triplane.errors import Conflict, Corrupt, InvalidInput, InvalidProof, NotFound

Reader = Callable[[str], bytes]
"""The octets of a file of the export by its path. Raises ``NotFound`` when there is none."""

ELSEWHERE: Final = "export into another, empty directory, and keep this one: it may be what proves the difference"


@dataclass(frozen=True, slots=True)
class Held:
    """What must be known of an export to continue it."""

    signed: SignedCheckpoint
    edges: tuple[tuple[Tile, list[bytes]], ...]
    entries: tuple[bytes, ...]
    """Of the bundle that is not full; empty if there is none."""
    last: bytes | None
    """Leaf hash of the last entry; None when there are no entries."""


def read_held(read: Reader, trust: CheckpointTrust | None) -> Held:
    """Read an export's right edge: a few files, however long the log is. Without ``trust`` nobody's signature is asked
    for, and what it holds is only known to be of one piece.

    Raises ``InvalidNote`` when its checkpoint is not the log's, and ``Corrupt`` when its files are not what that signs.
    """
    signed = signed_or_said(read(CHECKPOINT), trust)
    size, root = signed.checkpoint.size, signed.checkpoint.root
    try:
        edges = tuple((tile, parse_tile(read(tile.path), tile.width)) for tile in edge(size))
        if TileTree(size, edges).root() != root:
            raise Corrupt(f"the export's tiles at {size} entries do not make the root that its checkpoint signs")
        entries, last = _last_entries(read, size, root)
    except (InvalidInput, NotFound, Corrupt) as error:
        raise Corrupt(f"the export of {size} entries cannot be continued: {error}; {ELSEWHERE}") from error
    return Held(signed, edges, entries, last)


def signed_or_said(octets: bytes, trust: CheckpointTrust | None) -> SignedCheckpoint:
    """The checkpoint, verified if there is somebody to trust. Raises ``InvalidNote``."""
    return unverified_checkpoint(octets) if trust is None else verify_checkpoint(octets, trust)


class Exporter:
    """Give it the stored octets of entry ``next`` and on, up to ``size``; write the files that it returns, in order.

    Raises ``Conflict`` at once when ``target`` is smaller than what is exported already, or of another root or log.
    """

    def __init__(self, target: SignedCheckpoint, held: Held | None = None) -> None:
        if held is not None:
            _refuse_other_history(held.signed, target)
        self.origin = target.checkpoint.origin
        self.size = target.checkpoint.size
        self.next = 0 if held is None else held.signed.checkpoint.size
        self._first = self.next
        self._target = target
        self._tree = TileTree() if held is None else TileTree(self.next, held.edges)
        self._entries = [] if held is None else list(held.entries)
        self._prev = GENESIS_PREV if held is None or held.last is None else held.last.hex()

    def add(self, octets: bytes) -> list[File]:
        """The files that are full with this entry.

        Raises ``Conflict`` when it does not continue what was exported earlier, ``Corrupt`` when it does not continue
        the entry before it, or lies beyond the checkpoint.
        """
        self._check(octets)
        leaf = leaf_hash(octets)
        self._entries.append(octets)
        files = self._tree.add(leaf)
        if len(self._entries) == WIDTH:
            files.insert(0, File(Tile(None, self.next // WIDTH).path, encode_bundle(self._entries)))
            self._entries.clear()
        self._prev = leaf.hex()
        self.next += 1
        return files

    def finish(self) -> list[File]:
        """The files that are not full, and last the checkpoint. Raises ``Corrupt`` when it does not fit the entries."""
        root, signed = self._tree.root(), self._target.checkpoint.root
        if self.next != self.size:
            raise Corrupt(f"entry {self.next} of {self.size} is missing: run `triplane log verify`, and export again")
        if root != signed:
            raise Corrupt(
                f"the {self.size} entries have root {root.hex()}, the checkpoint signs {signed.hex()}: an entry is not "
                f"what it was when it was signed. Nothing was published; run `triplane log verify`, and {ELSEWHERE}"
            )
        held = {tile.path for tile in edge(self._first)}
        files = [file for file in self._tree.partial() if file.path not in held]
        if self._entries and self.next > self._first:
            files.insert(0, File(bundle_of(self.size - 1, self.size).path, encode_bundle(self._entries)))
        return [*files, File(CHECKPOINT, self._target.octets)]

    def _check(self, octets: bytes) -> None:
        n = self.next
        if n >= self.size:
            raise Corrupt(f"entry {n} lies beyond the {self.size} entries of the checkpoint: end before it")
        try:
            entry = orjson.loads(octets)
            said = (entry["origin"], entry["seq"], entry["prev"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise Corrupt(f"entry {n} is no entry ({error!r}): run `triplane log verify`") from error
        if said == (self.origin, n, self._prev):
            return
        if n and n == self._first and said[:2] == (self.origin, n):
            raise Conflict(
                f"the log does not continue the export: entry {n} names {said[2]} before it, but entry {n - 1} "
                f"was exported as {self._prev}. One of the two histories was replaced; {ELSEWHERE}"
            )
        raise Corrupt(
            f"entry {n} of {self.origin} after {self._prev} says it is entry {said[1]} of {said[0]} after {said[2]}: "
            "the stored chain is broken; run `triplane log verify`"
        )


def export(exporter: Exporter, entries: Iterable[bytes]) -> Iterator[File]:
    """Every file to write, in order, from the octets of entry ``exporter.next`` and on. Raises as ``Exporter``."""
    for octets in entries:
        yield from exporter.add(octets)
    yield from exporter.finish()


def _refuse_other_history(held: SignedCheckpoint, target: SignedCheckpoint) -> None:
    seen, now = held.checkpoint, target.checkpoint
    said = {
        Relation.OTHER_ORIGIN: f"it is of {seen.origin}, the log is {now.origin}",
        Relation.ROLLED_BACK: f"it has {seen.size} signed entries, the log only {now.size}: it was rolled back",
        Relation.FORKED: f"its {seen.size} entries have root {seen.root.hex()}, the log's {now.root.hex()}: it forked",
    }.get(compare(seen, now))
    if said is not None:
        raise Conflict(f"the log does not continue the export: {said}; {ELSEWHERE}")


def _last_entries(read: Reader, size: int, root: bytes) -> tuple[tuple[bytes, ...], bytes | None]:
    """The entries of the open bundle and the last leaf hash, once each is known to be what the tree holds."""
    if size == 0:
        return (), None
    bundle = bundle_of(size - 1, size)
    tile = Tile(0, bundle.index, bundle.width)
    entries = parse_bundle(read(bundle.path), bundle.width)
    leaves = [leaf_hash(octets) for octets in entries]
    if leaves != parse_tile(read(tile.path), tile.width):
        raise Corrupt(f"{bundle.path} holds other entries than {tile.path} has hashes of")
    hashes = tile_reader(size, lambda tiles: [read(item.path) for item in tiles])
    try:
        verify_inclusion(size - 1, size, leaves[-1], inclusion_proof(size - 1, size, hashes), root)
    except InvalidProof as error:
        raise Corrupt(f"{bundle.path} does not end in the entry that the checkpoint signs") from error
    return (tuple(entries) if bundle.width < WIDTH else ()), leaves[-1]
