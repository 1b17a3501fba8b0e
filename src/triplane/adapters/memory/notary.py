"""The notary's record, keys and an anchor in memory: for tests and for embedding."""

from collections.abc import Sequence

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.errors import Conflict


class MemoryLedger:
    """``triplane.ports.Ledger`` in this process."""

    def __init__(self) -> None:
        self.note: bytes | None = None
        self.anchors: dict[str, int] = {}

    def read(self) -> bytes | None:
        """See ``Ledger.read``."""
        return self.note

    def replace(self, expected: bytes | None, note: bytes) -> None:
        """See ``Ledger.replace``."""
        if self.note != expected:
            raise Conflict("the record holds another checkpoint than the one that was signed here last")
        self.note = note

    def anchored(self, anchor: str) -> int | None:
        """See ``Ledger.anchored``."""
        return self.anchors.get(anchor)

    def note_anchored(self, anchor: str, size: int) -> None:
        """See ``Ledger.note_anchored``."""
        self.anchors[anchor] = size

    def given(self) -> Sequence[str]:
        """See ``Ledger.given``."""
        return sorted(self.anchors)


class MemoryNotaryKeys:
    """``triplane.ports.NotaryKeys``: the same seeds give the same keys, the newest first."""

    def __init__(self, *seeds: bytes) -> None:
        self._signers = [MemorySigner(seed) for seed in seeds or (b"notary",)]
        self._retired: list[bytes] = []

    def signers(self) -> Sequence[MemorySigner]:
        """See ``NotaryKeys.signers``."""
        return tuple(self._signers)

    def retired(self) -> Sequence[bytes]:
        """See ``NotaryKeys.retired``."""
        return tuple(self._retired)

    def rotate(self, seed: bytes) -> MemorySigner:
        """Let this one sign beside the others."""
        self._signers.insert(0, MemorySigner(seed))
        return self._signers[0]

    def retire_oldest(self) -> None:
        """It signs no more."""
        self._retired.append(self._signers.pop().public_key)


class MemoryAnchor:
    """``triplane.ports.Anchor`` in this process; ``trouble`` is what every call of it raises."""

    kind = "memory"

    def __init__(self, uri: str = "memory:anchor", *, every_seconds: float = 0.0, readable: bool = True) -> None:
        self.uri = uri
        self.every_seconds = every_seconds
        self.readable = readable
        self.note: bytes | None = None
        self.written: list[bytes] = []
        self.trouble: Exception | None = None

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        if self.trouble is not None:
            raise self.trouble
        return self.note

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``."""
        if self.trouble is not None:
            raise self.trouble
        self.note = note
        self.written.append(note)

    async def close(self) -> None:
        """Nothing is open."""
