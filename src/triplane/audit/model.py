"""The values of the log: event bodies, receipts, recorded entries, and what verification found.

An *event body* is everything the caller decides; the sequencer adds ``v``, ``origin``, ``seq``, ``prev``
and ``time``. See docs/reference/log-format.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]

SYSTEM_STREAM = "system"
SYSTEM_ACTOR = "system"
GENESIS_PREV = "0" * 64


@dataclass(frozen=True, slots=True)
class EventSubject:
    """The object an event is about. Names are declared non-personal; labels only ``triplane.dev/…``."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int = 0
    api_version: str = "triplane.dev/v1alpha1"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EventBody:
    """What a caller appends. ``id`` is ``type/uid/n[/key]`` and deterministic; no clock is involved."""

    id: str
    type: str
    stream: str
    """``graph/<uid>`` or ``system``."""
    actor: str
    """Principal id, or ``system``."""
    subject: EventSubject
    data: JsonObject = field(default_factory=dict)
    """Small structured facts, at most 16 KiB as JSON, no floats, no personal data, no prose."""
    blobs: tuple[str, ...] = ()
    """Digests (``sha256:…``) of payloads in the content store, at most 64."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append returns, the first time and every time after."""

    id: str
    seq: int
    leaf_hash: str
    """Lowercase hex RFC 6962 leaf hash of the stored octets."""
    time: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry as stored: the octets are the truth, ``entry`` is their parsed form."""

    seq: int
    octets: bytes
    leaf_hash: str
    entry: JsonObject


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Conjunction of conditions for ``query`` and ``stream``; empty means everything."""

    types: frozenset[str] = frozenset()
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    uids: frozenset[str] = frozenset()
    """Subjects; empty means all."""
    stream: str | None = None
    actor: str | None = None
    before: int | None = None
    """Only entries with a lower ``seq``: pages of a query that goes newest first."""

    def matches(self, recorded: Recorded) -> bool:
        """Whether all conditions hold for this entry."""
        entry, subject = recorded.entry, recorded.entry["subject"]
        if self.uids and subject["uid"] not in self.uids:
            return False
        if self.before is not None and recorded.seq >= self.before:
            return False
        return (not self.types or entry["type"] in self.types) and all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.kind, subject["kind"]),
                (self.namespace, subject["namespace"]),
                (self.name, subject["name"]),
                (self.uid, subject["uid"]),
                (self.stream, entry["stream"]),
                (self.actor, entry["actor"]),
            )
        )


@dataclass(frozen=True, slots=True)
class Break:
    """The first thing wrong with a chain."""

    seq: int
    reason: str
    """One of the documented reasons, CamelCase (docs/reference/log-format.md)."""
    message: str
    remedy: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify_chain`` established. ``ok`` is False also when nothing was checked."""

    origin: str
    first: int
    last: int
    count: int
    root: str
    """Hex RFC 6962 root over entries 0..last, empty when verification began later than 0 without a ``TreeState``."""
    broken: Break | None = None
    compared: tuple[int, ...] = ()
    """Sizes of the signed checkpoints whose roots these entries have, ascending."""
    unanchored: bool = False
    """It began later than 0, and no signed checkpoint vouches for what is before: a log whose first entries were
    rewritten, with all hashes, would have passed."""
    provably_empty: bool = False
    """There is nothing to check, and a signed checkpoint says that there is nothing."""

    @property
    def ok(self) -> bool:
        return self.broken is None and (self.count > 0 or self.provably_empty)
