"""The event log."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from triplane.audit.merkle import Node
from triplane.audit.model import EventBody, EventFilter, Receipt, Recorded, Verification
from triplane.audit.verifying import Given
from triplane.domain.collection import ArchivedReferences


class EventLog(Protocol):
    """Append-only, hash-chained, totally ordered per origin."""

    @property
    def origin(self) -> str:
        """``<host>/<install id>``; known once the log is opened."""
        ...

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """Durably append, in order; one receipt per body. Already recorded with the same body: its first
        receipt. Same id, other body: ``IdReused`` and nothing of the call is appended.

        While the store is slow or absent callers wait their turn, with bounded memory, and not for ever. Raises
        ``InvalidEntry`` (format), ``Fenced`` (a newer epoch of this writer), ``Unavailable``, which says whether
        something may have been appended: appending the same again tells.
        """
        ...

    async def get(self, event_id: str) -> Recorded | None:
        """The entry recorded under this id. Raises ``Archived`` when it is no longer in the store."""
        ...

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """Those of the ids that are recorded; one round trip."""
        ...

    async def query(
        self,
        where: EventFilter = EventFilter(),
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Entries with ``seq > after`` (or, newest first, the last ones), at most ``limit`` (≤ 10,000)."""
        ...

    async def head(self) -> tuple[int, str]:
        """``(size, leaf hash of the last entry)``; ``(0, 64 zeros)`` when empty."""
        ...

    async def time_at(self, seq: int) -> str:
        """When entry ``seq`` was recorded, as the entry says, also when it was archived. Raises ``NotFound`` when the
        log does not reach so far."""
        ...

    async def archived_references(self) -> ArchivedReferences:
        """How many of the first entries are archived, and what they name. Raises ``Unavailable`` when that is not known
        of all of them, ``Corrupt`` when it is not what the log says of it."""
        ...

    def stream(self, where: EventFilter = EventFilter(), *, after: int = -1) -> AsyncIterator[Recorded]:
        """Every matching entry with ``seq > after`` in order, for ever: waits for new ones."""
        ...

    async def verify_chain(self, *, first: int = 0, last: int | None = None, given: Given = Given()) -> Verification:
        """Re-hash the stored octets and compare leaf hash, prev, seq, ids and projections, and the tree's root with
        each of the given checkpoints; the first thing wrong is in the result, with its reason.

        It begins at ``first``, or behind ``given.start``. Without ``last`` it goes on to the head, what is appended
        meanwhile included, and must end as the head says. Raises ``InvalidInput`` for a range that goes beyond the
        log, ``Corrupt`` when there is no head, ``Unavailable``.
        """
        ...

    async def begin_epoch(self) -> int:
        """Fence every earlier holder of this writer's name; returns the new epoch."""
        ...

    async def check_epoch(self) -> None:
        """Raise ``Fenced`` unless this writer's epoch is still the newest."""
        ...

    async def close(self) -> None: ...


class CheckpointStore(Protocol):
    """The signed checkpoints of one origin, and the hashes of its Merkle tree. A copy for readers: what a checkpoint
    is worth comes from its signatures and from being kept elsewhere too."""

    async def latest(self) -> bytes | None:
        """The newest published checkpoint: a signed note with what cosignatures there are."""
        ...

    async def at(self, size: int) -> bytes | None:
        """The published checkpoint of this size."""
        ...

    async def published(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, bytes]]:
        """Checkpoints of sizes above ``after``, ascending, at most ``limit`` (≤ 10,000)."""
        ...

    async def publish(self, note: bytes) -> None:
        """Keep this checkpoint. Again with more signatures of the same size and root: they are added.

        Raises ``Conflict`` when the size is below the latest, or has another root; ``InvalidNote``.
        """
        ...

    async def hashes(self, nodes: Sequence[Node]) -> Sequence[bytes]:
        """The hashes of these complete subtrees of what is committed, in the same order: what ``ProofPlan.fold`` takes.

        Raises ``InvalidProof`` for what lies beyond the committed entries, ``Corrupt`` where hashes are missing.
        """
        ...

    async def keep(self, hashes: Sequence[tuple[Node, bytes]]) -> None:
        """Keep hashes of subtrees of 256 ** n leaves (levels 8, 16, …), so that ``hashes`` reads few rows however
        large the tree is. Again: no change; another hash for a kept one is ``Conflict``."""
        ...
