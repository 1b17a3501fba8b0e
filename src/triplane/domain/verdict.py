"""Verdicts: which of them decide a round, and why the others are void (design §3.3).

A verdict counts only for the exact digests of the round, and only from somebody independent of the producer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import Subject, Verdict
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


def void_person_review(
    review: PersonReview,
    *,
    round_: int,
    produced: Sequence[Subject],
    people: Collection[str],
    producer_principals: Collection[str | None],
) -> str | None:
    """Why a person's Review does not decide this round; None if it does."""
    if review.round != round_:
        return f"Review {review.name} is for round {review.round}; round {round_} is open"
    if review.username is None or review.principal is None:
        return f"Review {review.name} carries no authenticated requester"
    if review.username not in people:
        return f"Review {review.name} is by {review.username}, who is not in spec.review.people"
    if None in producer_principals or review.principal in producer_principals:
        return f"Review {review.name} is by {review.username}, who controls the producing Agent or its Harness"
    return subjects_differ(review.subjects, produced)
