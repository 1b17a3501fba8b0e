"""Entries that ``triplane log archive`` moved into a folder, for the commands that ask the gateway for all else."""

import base64
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson

from triplane.audit.checkpoint import parse_checkpoint
from triplane.audit.layout import CHECKPOINT, bundle_of, bundles_of, parse_bundle
from triplane.audit.merkle import leaf_hash
from triplane.audit.tiles import WIDTH
from triplane.cli.trust import read_checkpoint, tiles_in
from triplane.errors import Archived, Conflict, NotFound

STORY: Final = frozenset({"artifact.recorded", "attestation.recorded", "task.accepted", "review.recorded"})
"""The types of entries that tell of an artifact."""
_MARKS: Final = tuple(f'"type":"{name}"'.encode() for name in STORY)


class ArchiveFolder:
    """The folder is believed by nobody: what is read in it must be held against a proof."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InvalidInput`` or ``InvalidNote`` when it is no archive."""
        self._folder = folder
        self._read = tiles_in(folder)
        self._size = parse_checkpoint(read_checkpoint(folder / CHECKPOINT))[0].size

    def octets(self, seq: int) -> bytes:
        """Of one entry. Raises ``NotFound``, ``InvalidInput``."""
        if seq >= self._size:
            raise NotFound(f"the archive {self._folder} holds {self._size} entries, not entry {seq}")
        tile = bundle_of(seq, self._size)
        return parse_bundle(self._read(tile.path), tile.width)[seq % WIDTH]

    def about(self, uid: str, types: Iterable[str]) -> list[dict[str, Any]]:
        """The entries of some of the types of ``STORY`` that have this subject, as the gateway writes them."""
        found = [self._document(seq) for seq in self._story.get(uid, ())]
        return [item for item in found if item["entry"]["type"] in types]

    def require(self, ask: Callable[[], object]) -> None:
        """Raises ``Conflict`` unless the archive reaches to where the log, which is asked for all, begins."""
        try:
            ask()
        except Archived as gone:
            if self._size < gone.upto:
                raise Conflict(
                    f"the archive {self._folder} holds {self._size} entries, but {gone.upto} are archived: "
                    "name the whole of it"
                ) from gone

    def _document(self, seq: int) -> dict[str, Any]:
        octets = self.octets(seq)
        return {
            "seq": seq,
            "leafHash": leaf_hash(octets).hex(),
            "octets": base64.b64encode(octets).decode(),
            "entry": orjson.loads(octets),
        }

    @cached_property
    def _story(self) -> Mapping[str, list[int]]:
        """Where the entries of each subject are, from one reading of the archive."""
        found: dict[str, list[int]] = {}
        for tile in bundles_of(self._size):
            for seq, octets in enumerate(parse_bundle(self._read(tile.path), tile.width), tile.index * WIDTH):
                if any(mark in octets for mark in _MARKS):
                    found.setdefault(orjson.loads(octets)["subject"]["uid"], []).append(seq)
        return found
