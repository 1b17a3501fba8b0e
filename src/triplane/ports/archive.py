"""Taking entries out of the log's store, once they are kept elsewhere."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Boundary:
    """Entries 0 to ``upto - 1`` are archived at ``place``."""

    upto: int
    place: str


@dataclass(frozen=True, slots=True)
class Cut:
    """What is to be recorded: the first ``upto`` entries have this root; they are kept at ``place``, which was verified
    up to the signed checkpoint ``note`` of ``size`` entries."""

    first: int
    upto: int
    root: bytes
    note: bytes
    size: int
    place: str


class Archivist(Protocol):
    """The database's side of it."""

    async def boundary(self) -> Boundary | None:
        """What is archived so far. Raises ``Unavailable``, ``Forbidden``."""
        ...

    async def record(self, cut: Cut, now: datetime) -> None:
        """Durably, in one transaction: the boundary, what stands for the entries, and ``log.archived``.

        Raises ``Conflict`` when it does not follow the boundary before, or an entry is missing."""
        ...

    async def remove(self, limit: int) -> int:
        """Remove at most about ``limit`` archived rows, or a whole partition; how many. 0: none are left."""
        ...
