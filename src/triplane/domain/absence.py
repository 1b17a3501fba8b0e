"""Why a blob is not there. Erased on purpose, moved aside as damaged, lost, or never needed: they look the same to
whoever asks the content store, and mean very different things. The log tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from triplane.audit.model import Recorded


class Absence(StrEnum):
    """What the log says of a blob that is not there."""

    ERASED = "erased"
    QUARANTINED = "quarantined"
    LOST = "lost"
    """The log needs it or a namespace owns it, and nothing says that it went: somebody or something took it."""
    UNKNOWN = "unknown"
    """Nothing in the log needs it: it was never stored, or collected."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The verdict, and the entry it rests on."""

    absence: Absence
    digest: str
    seq: int | None
    """The entry that erased it, found it damaged, or needs it first; None where that is an archived one."""

    @property
    def message(self) -> str:
        """What happened, and what to do."""
        match self.absence:
            case Absence.ERASED:
                return f"{self.digest} was erased on purpose (log entry {self.seq}); nothing is to be done"
            case Absence.QUARANTINED:
                return (
                    f"{self.digest} was found altered and moved aside (log entry {self.seq}); find out what altered "
                    "it, then store the right content again"
                )
            case Absence.LOST:
                naming = "an archived entry" if self.seq is None else f"log entry {self.seq}"
                return (
                    f"{self.digest} is lost: {naming} names it and no entry says that it was erased since "
                    "it was last put; "
                    "restore it from a backup and find out who removed it"
                )
            case Absence.UNKNOWN:
                return (
                    f"{self.digest} is needed by nothing in the log: it was never stored, or collected; store it first"
                )


@dataclass(slots=True)
class Fate:
    """What the log says of one blob, gathered entry by entry: the sequence numbers that the verdict rests on."""

    needed_first: int = -1
    needed_last: int = -1
    needed_archived: bool = False
    """By an archived entry, whose number is not known here."""
    erased: int = -1
    quarantined: int = -1

    def add(self, seq: int, of_blob: str | None) -> None:
        """An entry that names it: ``of_blob`` is its type where it speaks of the blob without needing it."""
        if of_blob == "blob.erased":
            self.erased = max(self.erased, seq)
        elif of_blob == "blob.quarantined":
            self.quarantined = max(self.quarantined, seq)
        else:
            self.needed_first = seq if self.needed_first < 0 else min(self.needed_first, seq)
            self.needed_last = max(self.needed_last, seq)

    @property
    def _is_needed(self) -> bool:
        return self.needed_archived or self.needed_first >= 0

    @property
    def _first_need(self) -> int | None:
        return None if self.needed_archived else self.needed_first

    def verdict(self, digest: str, *, owned: bool) -> Absent:
        """Erasure is final until the blob is put again, which gives it an owner (``SessionStore.blob_owned``). That an
        entry names it later says nothing: a review names what it was about, there or not."""
        if self.erased > self.quarantined:
            if not owned:
                return Absent(Absence.ERASED, digest, self.erased)
            return Absent(Absence.LOST, digest, self._first_need if self._is_needed else self.erased)
        if self.quarantined > self.needed_last:
            return Absent(Absence.QUARANTINED, digest, self.quarantined)
        if self._is_needed:
            return Absent(Absence.LOST, digest, self._first_need)
        return Absent(Absence.UNKNOWN, digest, None)


def why_absent(digest: str, of_blob: Sequence[Recorded], needing: Sequence[Recorded], *, owned: bool = False) -> Absent:
    """``of_blob``: the entries ``blob.erased`` and ``blob.quarantined`` about it; ``needing``: those that name it
    otherwise. Both in any order. ``owned``: whether it belongs to a namespace."""
    fate = Fate()
    for entry in of_blob:
        fate.add(entry.seq, str(entry.entry.get("type")))
    for entry in needing:
        fate.add(entry.seq, None)
    return fate.verdict(digest, owned=owned)
