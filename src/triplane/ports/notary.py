"""What the notary works with beside the log: its keys, its own record, the places outside that hold its checkpoints,
and the witnesses that cosign them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from triplane.audit.dsse import Signer
from triplane.audit.notekey import VerifierKey


class NotaryKeys(Protocol):
    """The private keys that sign checkpoints; several while they rotate. Local and quick: no coroutines."""

    def signers(self) -> Sequence[Signer]:
        """Every key that signs now, the newest first; makes the first. Raises ``InvalidInput`` for a damaged one,
        ``Unavailable`` when they cannot be read."""
        ...

    def retired(self) -> Sequence[bytes]:
        """Public keys (SubjectPublicKeyInfo, DER) that signed once: what they signed is still read."""
        ...


class Ledger(Protocol):
    """The last checkpoint signed, in a place that whoever owns the database does not own. Local, quick, durable."""

    def read(self) -> bytes | None:
        """The note; None before the first. Raises ``Unavailable``."""
        ...

    def replace(self, expected: bytes | None, note: bytes) -> None:
        """Compare and swap, durable when it returns. Raises ``Conflict`` when something else stands there."""
        ...

    def anchored(self, anchor: str) -> int | None:
        """The size of the checkpoint this anchor was given last; None when it never was given one."""
        ...

    def note_anchored(self, anchor: str, size: int) -> None:
        """Remember that. Durable when it returns."""
        ...

    def given(self) -> Sequence[str]:
        """Every anchor that was ever given one, by its URI."""
        ...


class Anchor(Protocol):
    """A place outside that holds the latest checkpoint, and that whoever owns the database does not own."""

    @property
    def uri(self) -> str:
        """As in the settings; names it in messages."""
        ...

    @property
    def kind(self) -> str:
        """``file``, ``configmap``, ``git`` or ``url``."""
        ...

    @property
    def every_seconds(self) -> float:
        """It is written at most once in so many seconds."""
        ...

    @property
    def readable(self) -> bool:
        """False for a place that only takes: it is never compared."""
        ...

    async def read(self) -> bytes | None:
        """What it holds; None when it holds nothing. Raises ``Unavailable`` when that cannot be said."""
        ...

    async def write(self, note: bytes) -> None:
        """Have it hold this. Raises ``Unavailable``, ``Forbidden``."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Cosignatures:
    """A witness has cosigned; ``body`` are signature lines, to be verified."""

    body: bytes


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The witness's last checkpoint is of this size: the request must start from there."""

    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The witness will not cosign this."""

    status: int
    said: str


class Witness(Protocol):
    """A witness of others (C2SP tlog-witness)."""

    @property
    def key(self) -> VerifierKey:
        """By which its cosignatures are known."""
        ...

    async def add_checkpoint(
        self, old_size: int, proof: Sequence[bytes], checkpoint: bytes
    ) -> Cosignatures | OtherSize | Refusal:
        """Ask for a cosignature on a checkpoint that continues its last one. Raises ``Unavailable``."""
        ...

    async def close(self) -> None: ...
