"""What may be collected: blobs that nothing names, that nobody holds, and that have been so for long enough.

Marking is conservative. Whatever looks like a digest anywhere in an entry of the log or a row of the session store is
a reference, so that no new kind of entry can be forgotten here. A wrong mark keeps garbage; a missed one loses work.

Between marking and removing, new references appear. They are safe because content is stored (or stored again) before
it is named, storing renews its age, and ``KeptContent.collect`` looks at the age once more at the moment of removal.
So the grace must be longer than anybody takes from storing a blob to naming it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from triplane.audit.model import Recorded
from triplane.errors import InvalidInput

LEAST_GRACE: Final = timedelta(hours=1)
"""Six times what a store may be late in noting that content was stored again."""
SPEAKS_OF_BLOBS: Final = frozenset({"blob.quarantined", "blob.erased"})
"""Entries that name a blob without needing it."""

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}(?![0-9a-zA-Z])", re.ASCII)
_HOLDER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One blob as the store lists it."""

    digest: str
    size: int
    """Octets."""
    stored_at: datetime
    """When it was last stored, by the store's clock."""


@dataclass(frozen=True, slots=True)
class ArchivedReferences:
    """What the first ``upto`` entries, which are archived, name: 32 octets each."""

    upto: int
    named: frozenset[bytes] = frozenset()
    """Every digest in them, but in entries that only speak of blobs (``SPEAKS_OF_BLOBS``)."""
    needed: frozenset[bytes] = frozenset()
    """Those among them in ``blobs`` of an entry. Others may never have been blobs."""


@dataclass(frozen=True, slots=True)
class ReferencesFacts:
    """What ``log.archived`` says of the rows that hold these references."""

    count: int
    hash: str
    """SHA-256 in hex over all of them (docs/reference/log-storage.md)."""


class Kept(StrEnum):
    """Why a blob stays."""

    YOUNG = "young"
    REFERENCED = "referenced"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Rules:
    """How careful to be. Raises ``InvalidInput`` for rules that could lose work."""

    grace: timedelta = timedelta(days=7)
    """A blob younger than this stays, whatever names it or not."""
    most: int = 100_000
    """Blobs that go in one run; the rest waits for the next."""
    share: float = 0.5
    """A run in which more than this part of all blobs would go does nothing: more likely the log is not the store's."""
    few: int = 100
    """So many may go in any case."""

    def __post_init__(self) -> None:
        if self.grace < LEAST_GRACE:
            raise InvalidInput(
                f"a grace of {self.grace} is too short: blobs are stored before anything names them; "
                f"give at least {LEAST_GRACE}"
            )
        if self.most < 1 or not 0 < self.share <= 1 or self.few < 0:
            raise InvalidInput("collection needs most ≥ 1, 0 < share ≤ 1 and few ≥ 0; correct the rules")


@dataclass(frozen=True, slots=True)
class Marks:
    """What must stay, gathered after the lease began."""

    referenced: frozenset[bytes]
    """SHA-256 in 32 octets each: there may be millions."""
    held: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run removes."""

    condemned: tuple[StoredBlob, ...]
    seen: int
    refused: str = ""
    """Why nothing may go; empty when the plan may be carried out."""


def kept_because(blob: StoredBlob, marks: Marks, before: datetime) -> Kept | None:
    """The first reason to keep it; None when it may go."""
    if blob.stored_at >= before:
        return Kept.YOUNG
    if octets_of(blob.digest) in marks.referenced:
        return Kept.REFERENCED
    return Kept.HELD if blob.digest in marks.held else None


def plan(condemned: tuple[StoredBlob, ...], seen: int, rules: Rules) -> Plan:
    """Whether so many may go out of so many: a store whose references cannot be found is not garbage."""
    if len(condemned) > max(rules.few, rules.share * seen):
        return Plan(
            (),
            seen,
            f"{len(condemned)} of {seen} blobs are named by nothing, more than the allowed part of {rules.share:g}: is "
            "this the log of this content store? Verify the log first; raise the share if it is right",
        )
    return Plan(condemned[: rules.most], seen)


def digests_in(octets: bytes) -> Iterator[bytes]:
    """Everything in there that has the form of a digest, as 32 octets each."""
    for found in _DIGEST.finditer(octets):
        yield bytes.fromhex(found.group()[7:].decode())


def digests_named(text: str) -> frozenset[str]:
    """The same, as digests."""
    return frozenset(found.group().decode() for found in _DIGEST.finditer(text.encode("utf-8", "surrogatepass")))


def references_of(entries: Iterable[Recorded]) -> Iterator[bytes]:
    """What these entries of the log need."""
    for recorded in entries:
        if recorded.entry.get("type") not in SPEAKS_OF_BLOBS:
            yield from digests_in(recorded.octets)


def octets_of(digest: str) -> bytes:
    """A digest in 32 octets."""
    return bytes.fromhex(digest[7:])


def check_holder(holder: str) -> str:
    """The name, if it is one. Raises ``InvalidInput``."""
    if not _HOLDER.fullmatch(holder):
        raise InvalidInput(f"{holder[:80]!r} is no name of a holder; use 1 to 63 lowercase letters, digits and hyphens")
    return holder
