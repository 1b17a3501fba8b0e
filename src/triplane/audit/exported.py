"""Is this exported log (C2SP tlog-tiles) unbroken, and what was signed? Pure: whoever holds the files reads them.

The same checks in the same order, with the same reasons, as the stand-alone verifier for auditors
(docs/auditor/verify.py); tests hold the two against each other. Here entries are also held to the whole entry format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NoReturn

from triplane.audit.checkpoint import CheckpointTrust, Relation, SignedCheckpoint, compare, verify_checkpoint
from triplane.audit.entry import open_entry
from triplane.audit.export import Reader
from triplane.audit.layout import CHECKPOINT, File, TileTree, bundle_of, bundles_of, parse_bundle, parse_tile
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV
from triplane.audit.notekey import NoteFault
from triplane.audit.tiles import Tile, parse_path
from triplane.errors import InvalidEntry, InvalidInput, InvalidNote, NotFound


class ExportFault(StrEnum):
    """Why an exported log does not verify (docs/auditor/README.md); also those of ``NoteFault``."""

    FILE_MISSING = "FileMissing"
    MALFORMED_BUNDLE = "MalformedBundle"
    MALFORMED_TILE = "MalformedTile"
    LEAF_HASH_MISMATCH = "LeafHashMismatch"
    MALFORMED = "Malformed"
    ORIGIN_MISMATCH = "OriginMismatch"
    SEQUENCE_MISMATCH = "SequenceMismatch"
    PREV_MISMATCH = "PrevMismatch"
    TIME_BACKWARDS = "TimeBackwards"
    ID_REPEATED = "IdRepeated"
    TILE_MISMATCH = "TileMismatch"
    ROOT_MISMATCH = "RootMismatch"
    ROLLED_BACK = "RolledBack"
    FORKED = "Forked"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong."""

    reason: str
    where: str
    """``entry 17``, ``entries 10 to 19``, or the name of a file."""
    message: str
    """What is wrong, and what to do."""
    seq: int | None = None
    """The first bad entry, where one can be named."""


@dataclass(frozen=True, slots=True)
class ExportVerification:
    """What has been established. A log is provably empty when its signed checkpoint says so."""

    origin: str
    count: int
    """Entries that were read and found to continue one another."""
    root: str
    """Hex; empty unless everything holds."""
    artifacts: dict[str, tuple[int, ...]]
    """Digest to the entries that record it as an artifact."""
    fault: Fault | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None


def verify_export(
    read: Reader, trust: CheckpointTrust, earlier: Sequence[tuple[str, bytes]] = ()
) -> ExportVerification:
    """Check everything; ``earlier`` are checkpoints of this log that somebody kept, each with a name for messages."""
    sweep = _Sweep(read, trust)
    try:
        root = sweep.run(earlier)
    except _Found as found:
        return ExportVerification(trust.origin, sweep.count, "", {}, found.fault)
    artifacts = {digest: tuple(places) for digest, places in sweep.artifacts.items()}
    return ExportVerification(trust.origin, sweep.count, root.hex(), artifacts)


class _Found(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Sweep:
    """One pass over the files, in memory that does not grow with the entries but by their ids."""

    def __init__(self, read: Reader, trust: CheckpointTrust) -> None:
        self._files = read
        self._trust = trust
        self.count = 0
        self.artifacts: dict[str, list[int]] = {}
        self._prev = GENESIS_PREV
        self._time = ""
        self._ids: set[str] = set()

    def run(self, earlier: Sequence[tuple[str, bytes]]) -> bytes:
        signed = self._signed(CHECKPOINT, self._read(CHECKPOINT), self._trust)
        alone = replace(self._trust, quorum=0)  # what somebody kept need not have been cosigned
        held = [(name, self._signed(name, octets, alone)) for name, octets in earlier]
        for name, old in held:
            self._compare(name, old, signed)
        tree, above, roots = TileTree(), list[File](), {0: TileTree().root()}
        wanted = {old.checkpoint.size for _, old in held}
        for leaf in self._leaves(signed.checkpoint.size):
            above += [file for file in tree.add(leaf) if parse_path(file.path).level]
            if tree.size in wanted:
                roots[tree.size] = tree.root()
        above += [file for file in tree.partial() if parse_path(file.path).level]
        for file in above:
            if self._read(file.path) != file.octets:
                _refuse(ExportFault.TILE_MISMATCH, file.path, "its hashes are not those of the entries")
        agreed = max([0, *(size for _, old in held if roots[size := old.checkpoint.size] == old.checkpoint.root)])
        if tree.root() != signed.checkpoint.root:
            where = f"entries {agreed} to {tree.size - 1}"
            _refuse(ExportFault.ROOT_MISMATCH, where, "together they are not what was signed")
        for name, old in held:
            if roots[old.checkpoint.size] != old.checkpoint.root:
                said = f"the first {old.checkpoint.size} entries were others when it was signed"
                _refuse(ExportFault.FORKED, name, said)
        return tree.root()

    def _signed(self, name: str, octets: bytes, trust: CheckpointTrust) -> SignedCheckpoint:
        try:
            return verify_checkpoint(octets, trust)
        except InvalidNote as error:
            malformed = error.reason == NoteFault.MALFORMED_NOTE
            reason = NoteFault.MALFORMED_CHECKPOINT.value if malformed else error.reason
            raise _Found(Fault(reason, name, f"{reason} at {name}: {error}")) from error

    def _compare(self, name: str, old: SignedCheckpoint, new: SignedCheckpoint) -> None:
        relation = compare(old.checkpoint, new.checkpoint)
        if relation is Relation.ROLLED_BACK:
            said = f"it has {old.checkpoint.size} entries, the log has only {new.checkpoint.size}"
            _refuse(ExportFault.ROLLED_BACK, name, said)
        if relation is Relation.FORKED:
            _refuse(ExportFault.FORKED, name, f"another root was signed for {new.checkpoint.size} entries")

    def _read(self, path: str) -> bytes:
        try:
            return self._files(path)
        except NotFound:
            _refuse(ExportFault.FILE_MISSING, path, "it is not there, but the log's size needs it")

    def _leaves(self, size: int) -> Iterator[bytes]:
        for bundle in bundles_of(size):
            tile = Tile(0, bundle.index, bundle.width)
            hashes = self._parsed(tile, ExportFault.MALFORMED_TILE)
            entries = self._parsed(bundle_of(self.count, size), ExportFault.MALFORMED_BUNDLE)
            for octets, hash_ in zip(entries, hashes, strict=True):
                leaf = leaf_hash(octets)
                self._check(octets, leaf, hash_)
                self._prev = leaf.hex()
                self.count += 1
                yield leaf

    def _parsed(self, tile: Tile, reason: ExportFault) -> list[bytes]:
        octets = self._read(tile.path)
        try:
            return (parse_bundle if tile.level is None else parse_tile)(octets, tile.width)
        except InvalidInput as error:
            _refuse(reason, tile.path, str(error))

    def _check(self, octets: bytes, leaf: bytes, hash_: bytes) -> None:
        n = self.count
        if leaf != hash_:
            _refuse_entry(ExportFault.LEAF_HASH_MISMATCH, n, f"it hashes to {leaf.hex()}, its tile says {hash_.hex()}")
        try:
            entry = open_entry(octets).entry
        except InvalidEntry as error:
            _refuse_entry(ExportFault.MALFORMED, n, str(error))
        problem = self._chain_problem(n, entry)
        if problem is not None:
            _refuse_entry(problem[0], n, problem[1])
        self._ids.add(entry["id"])
        self._time = entry["time"]
        if entry["type"] == "artifact.recorded":
            self.artifacts.setdefault(str(entry["data"].get("digest")), []).append(n)

    def _chain_problem(self, n: int, entry: dict[str, Any]) -> tuple[ExportFault, str] | None:
        if entry["origin"] != self._trust.origin:
            return ExportFault.ORIGIN_MISMATCH, f"it is of the log {entry['origin']}, not {self._trust.origin}"
        if entry["seq"] != n:
            return ExportFault.SEQUENCE_MISMATCH, f"it says that it is entry {entry['seq']}"
        if entry["prev"] != self._prev:
            return ExportFault.PREV_MISMATCH, f"its prev is {entry['prev']}, the one before is {self._prev}"
        if entry["time"] < self._time:
            return ExportFault.TIME_BACKWARDS, f"{entry['time']} is before {self._time}"
        if entry["id"] in self._ids:
            return ExportFault.ID_REPEATED, f"the id {entry['id']} occurred before"
        return None


_AGAIN = "Fetch the log again; if that does not help, export it anew"
_BOTH = "Keep both checkpoints: the key has signed two histories. Ask the witnesses what they have seen"
_KEEP = "Keep this copy as evidence, rely on nothing from there on, and hold it against the log and other copies"
_ADVICE = {
    ExportFault.FILE_MISSING: _AGAIN,
    ExportFault.MALFORMED_BUNDLE: _AGAIN,
    ExportFault.MALFORMED_TILE: _AGAIN,
    ExportFault.ROLLED_BACK: _BOTH,
    ExportFault.FORKED: _BOTH,
}


def _refuse(reason: ExportFault, where: str, said: str, seq: int | None = None) -> NoReturn:
    raise _Found(Fault(reason.value, where, f"{reason.value} at {where}: {said}. {_ADVICE.get(reason, _KEEP)}.", seq))


def _refuse_entry(reason: ExportFault, n: int, said: str) -> NoReturn:
    _refuse(reason, f"entry {n}", said, n)
