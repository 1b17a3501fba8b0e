"""What is shown for an artifact, and what a verification has made of it so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triplane.audit.attestation import PROVENANCE, REVIEW, SUMMARY, attestation_id
from triplane.audit.keys import TrustBundle

Object = Mapping[str, Any]


class Refused(Exception):
    """A step has failed; the message says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What somebody shows for an artifact. Nothing of it is trusted but ``trust``."""

    artifact_uid: str
    digest: str
    """Of the artifact's content, as whoever asks knows it."""
    entries: Mapping[int, bytes]
    """Octets of log entries, by sequence number."""
    envelopes: Mapping[str, bytes]
    """By the digest they are said to have."""
    trust: TrustBundle
    content: str | None = None
    """Digest of the content at hand; None: there is none."""
    named: Mapping[str, Any] = field(default_factory=dict)
    """What people are told it is: ``namespace`` and ``name`` of the Artifact, and its ``output``."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found. ``ok`` is None when it was not reached, or had nothing to look at."""

    number: int
    name: str
    ok: bool | None
    found: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry and its place."""

    seq: int
    entry: Object

    @property
    def data(self) -> Object:
        data: Object = self.entry["data"]
        return data


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement whose signature holds, and the entry that records it."""

    recorded: Entry
    digest: str
    predicate: Object
    subjects: Sequence[Object]
    key_id: str


@dataclass
class Case:
    """What the steps have established so far."""

    evidence: Evidence
    by_id: dict[str, Entry] = field(default_factory=dict)
    artifact: Entry | None = None
    accepted: Entry | None = None
    raw: dict[str, tuple[Entry, bytes]] = field(default_factory=dict)
    """Event id to its entry and envelope: the provenance, the reviews, the acceptance."""
    stated: dict[str, Stated] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return self.evidence.trust.origin

    @property
    def produced(self) -> Entry:
        assert self.artifact is not None  # step 1
        return self.artifact

    @property
    def acceptance(self) -> Entry:
        assert self.accepted is not None  # step 1
        return self.accepted

    @property
    def review_uids(self) -> list[str]:
        data = self.acceptance.data
        return [item["reviewUid"] for item in data.get("reviews") or (data,)]

    @property
    def provenance_id(self) -> str:
        return attestation_id(PROVENANCE, self.produced.data["sessionUid"], self.produced.data["run"])

    @property
    def summary_id(self) -> str:
        return attestation_id(SUMMARY, self.acceptance.entry["subject"]["uid"], self.acceptance.data["round"])

    @property
    def review_ids(self) -> list[str]:
        return [attestation_id(REVIEW, uid, 1) for uid in self.review_uids]

    @property
    def provenance(self) -> Stated:
        return self.stated[self.provenance_id]

    @property
    def reviews(self) -> list[Stated]:
        return [self.stated[id_] for id_ in self.review_ids]

    @property
    def summary(self) -> Stated:
        return self.stated[self.summary_id]
