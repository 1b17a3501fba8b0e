"""Verdicts: which of them decide a round, and why the others are void (design §3.3).

A verdict counts only for the exact digests of the round, and only from somebody independent of the producer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import Gate, Subject, Verdict
from triplane.api.text import plain_line


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A reviewer's ``verdict.json``, checked against the round."""

    verdict: Verdict
    findings: tuple[str, ...]
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class VerdictVoid:
    """A verdict that decides nothing, and why."""

    reason: str
    message: str


def read_verdict(document: Mapping[str, Any], produced: Sequence[Subject]) -> VerdictFile | VerdictVoid:
    """Check a reviewer's verdict document (already valid against its schema) against what was produced."""
    subjects = tuple(Subject(name=item["name"], digest=item["digest"]) for item in document["subjects"])
    if mismatch := subjects_differ(subjects, produced):
        return VerdictVoid("SubjectsDiffer", mismatch)
    findings = tuple(plain_line(finding) for finding in document["findings"])
    return VerdictFile(Verdict(document["verdict"]), findings, subjects)


def subjects_differ(subjects: Sequence[Subject], produced: Sequence[Subject]) -> str | None:
    """Why the verdict's subjects are not exactly the outputs of the round; None if they are."""
    given = {subject.name: subject.digest for subject in subjects}
    wanted = {subject.name: subject.digest for subject in produced}
    for name in sorted(wanted.keys() - given.keys()):
        return f"the verdict does not name output {name}"
    for name in sorted(given.keys() - wanted.keys()):
        return f"the verdict names {name}, which is no output of this round"
    for name, digest in sorted(wanted.items()):
        if given[name] != digest:
            return f"the verdict is on {name} {given[name]}, but the round produced {digest}"
    if len(subjects) != len(given):
        return "the verdict names an output twice"
    return None


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was made: by the API server's clock, where that says, and by its place in the log."""

    at: str | None = None
    """RFC 3339, whole seconds, UTC: a ``creationTimestamp``."""
    seq: int | None = None

    def before(self, other: "Moment") -> bool:
        """Whether it surely was earlier. Clocks of one server first; within a second the log's order tells."""
        if self.at and other.at and self.at != other.at:
            return self.at < other.at
        return self.seq is not None and other.seq is not None and self.seq < other.seq


@dataclass(frozen=True, slots=True)
class PersonReview:
    """A Review without a session: the reviewer is the user whom admission stamped."""

    name: str
    uid: str
    username: str | None
    principal: str | None
    round: int
    verdict: Verdict
    findings: tuple[str, ...]
    subjects: tuple[Subject, ...]
    gate: Gate = Gate.OUTPUTS
    made: Moment = Moment()


@dataclass(frozen=True, slots=True)
class Matter:
    """What people are asked, and who may answer: a verdict counts for exactly this."""

    subjects: tuple[Subject, ...]
    since: Moment
    """When there was something to answer."""
    people: tuple[str, ...]
    where: str
    """The field that names them."""
    controllers: frozenset[str | None]
    """Principals who control the Agent concerned; none of them may answer. None among them: nobody is known."""
    until: str | None = None
    """RFC 3339: what is made later is late."""


def void_for(review: PersonReview, matter: Matter) -> str | None:
    """Why a person's Review does not settle the matter; None if it does."""
    name = f"Review {review.name}"
    if review.username is None or review.principal is None:
        return f"{name} carries no authenticated requester"
    if review.username not in matter.people:
        return f"{name} is by {review.username}, who is not in {matter.where}"
    if None in matter.controllers or review.principal in matter.controllers:
        return f"{name} is by {review.username}, who controls the producing Agent or its Harness"
    if mismatch := subjects_differ(review.subjects, matter.subjects):
        return f"{name}: {mismatch}"
    if review.made.before(matter.since):
        return f"{name} was made before there was anything to judge; make another"
    if matter.until is not None and review.made.at is not None and review.made.at > matter.until:
        return f"{name} is late: the time was up at {matter.until}"
    return None
