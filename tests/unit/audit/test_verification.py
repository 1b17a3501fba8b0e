"""Verification of an accepted artifact: what holds, and that each thing that is missing or other is named."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.audit.attested import KINDS, Change, Forger, accepted, refused

from triplane.audit.attestation import PROVENANCE, REVIEW, SUMMARY
from triplane.audit.entry import parse
from triplane.audit.verification import STEPS, holds, verify

MIXED: dict[str, Any] = {"review": {"reviewers": 2, "capability": "review", "people": ["carol"]}}


async def test_what_was_accepted_holds_step_by_step() -> None:
    steps = verify(await accepted())
    assert holds(steps), steps
    assert [(step.number, step.name) for step in steps] == [(n, name) for n, (name, _) in enumerate(STEPS, 1)]
    assert [step.number for step in steps] == list(range(1, 11))


async def test_a_quorum_of_an_agent_and_a_person_holds() -> None:
    steps = verify(await accepted("carol", **MIXED))
    assert holds(steps), steps
    assert "2 of 2 reviewers approved" in [step.found for step in steps]


async def test_without_the_content_everything_else_is_shown() -> None:
    steps = verify(replace(await accepted(), content=None))
    assert holds(steps)
    assert (steps[-1].ok, steps[-1].found) == (None, "nothing to look at")


async def test_another_content_is_named() -> None:
    step, why = refused(replace(await accepted(), content="sha256:" + "0" * 64))
    assert step == "content"
    assert "sha256:0000" in why


async def test_two_entries_of_one_id_are_refused() -> None:
    forger = Forger(await accepted())
    seq = forger.seq_of("task.accepted")
    twice = Forger(replace(forger.evidence, entries=dict(forger.evidence.entries)))
    twice.move(seq, 900)
    step, why = refused(replace(forger.evidence, entries={**twice.evidence.entries, **forger.evidence.entries}))
    assert step == "log entries"
    assert f"entries {seq} and 900 have one id" in why or f"entries 900 and {seq} have one id" in why


async def test_the_provenance_of_another_namespace_is_refused() -> None:
    forger = Forger(await accepted())

    def elsewhere(said: dict[str, Any]) -> None:
        said["predicate"]["buildDefinition"]["externalParameters"]["namespace"] = "elsewhere"

    forger.restate(PROVENANCE, elsewhere)
    step, why = refused(forger.evidence)
    assert step == "provenance"
    assert why.startswith("namespace: 'elsewhere'")


def test_no_step_counts_for_another() -> None:
    assert not holds([])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_statement_that_is_missing_is_no_approval(kind: str) -> None:
    forger = Forger(await accepted())
    entries = dict(forger.evidence.entries)
    octets = entries.pop(forger.place_of(kind))
    step, why = refused(replace(forger.evidence, entries=entries))
    assert step == "statements"
    assert "there is no" in why
    digest = parse(octets)["data"]["envelopeDigest"]
    envelopes = {key: value for key, value in forger.evidence.envelopes.items() if key != digest}
    step, why = refused(replace(forger.evidence, envelopes=envelopes))
    assert step == "statements"
    assert f"{digest} of entry" in why


@pytest.mark.parametrize("type_", ["artifact.recorded", "task.accepted", "review.recorded"])
async def test_an_entry_that_is_missing_is_no_approval(type_: str) -> None:
    forger = Forger(await accepted())
    entries = dict(forger.evidence.entries)
    del entries[forger.seq_of(type_)]
    step, _ = refused(replace(forger.evidence, entries=entries))
    assert step == {"review.recorded": "reviews"}.get(type_, "log entries")


def _drop(*path: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        at = document["predicate"]
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (PROVENANCE, ("buildDefinition",)),
        (PROVENANCE, ("buildDefinition", "buildType")),
        (PROVENANCE, ("buildDefinition", "externalParameters", "task")),
        (PROVENANCE, ("buildDefinition", "internalParameters", "producer")),
        (PROVENANCE, ("buildDefinition", "internalParameters", "producer", "principal")),
        (PROVENANCE, ("buildDefinition", "internalParameters", "producer", "session")),
        (PROVENANCE, ("runDetails", "builder", "id")),
        (PROVENANCE, ("runDetails", "metadata", "invocationId")),
        (REVIEW, ("verdict",)),
        (REVIEW, ("reviewer",)),
        (REVIEW, ("reviewer", "principal")),
        (REVIEW, ("reviewer", "kind")),
        (REVIEW, ("producer",)),
        (REVIEW, ("task",)),
        (REVIEW, ("round",)),
        (REVIEW, ("recordedBy",)),
        (SUMMARY, ("verifier",)),
        (SUMMARY, ("verificationResult",)),
        (SUMMARY, ("policy",)),
        (SUMMARY, ("inputAttestations",)),
        (SUMMARY, ("resourceUri",)),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else value.rsplit("/", 2)[-2],
)
async def test_a_field_that_is_missing_is_no_approval(kind: str, path: tuple[str, ...]) -> None:
    forger = Forger(await accepted())
    forger.restate(kind, _drop(*path))
    step, why = refused(forger.evidence)
    assert step in ("provenance", "reviews", "independence", "acceptance")
    assert why
    assert not holds(verify(forger.evidence))


def _set(value: Any, *path: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        at = document["predicate"]
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("kind", "path", "value", "step"),
    [
        pytest.param(
            PROVENANCE, ("runDetails", "builder", "id"), "triplane://elsewhere/x/operator", "provenance", id="builder"
        ),
        pytest.param(PROVENANCE, ("buildDefinition", "buildType"), "https://x", "provenance", id="another build type"),
        pytest.param(REVIEW, ("verdict",), "Reject", "reviews", id="a rejection"),
        pytest.param(REVIEW, ("round",), 7, "reviews", id="another round"),
        pytest.param(SUMMARY, ("verificationResult",), "FAILED", "acceptance", id="a failed verification"),
        pytest.param(SUMMARY, ("verifier", "id"), "https://x", "acceptance", id="another verifier"),
        pytest.param(SUMMARY, ("inputAttestations",), [], "acceptance", id="an acceptance of nothing"),
    ],
)
async def test_a_value_that_is_another_is_named(kind: str, path: tuple[str, ...], value: Any, step: str) -> None:
    forger = Forger(await accepted())
    forger.restate(kind, _set(value, *path))
    assert refused(forger.evidence)[0] == step


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("reviewers=3&agents=true&people=true", "3 reviewers were asked for, 2 approved"),
        ("reviewers=2&agents=true", "people"),
        ("agents=true&people=true", "reviewers"),
        ("reviewers=2&agents=perhaps&people=true", "does not say"),
        ("reviewers=all&agents=true&people=true", "malformed"),
    ],
)
async def test_a_quorum_that_is_short_or_unsaid_is_no_quorum(asked: str, why: str) -> None:
    forger = Forger(await accepted("carol", **MIXED))

    def change(document: dict[str, Any]) -> None:
        policy = document["predicate"]["policy"]
        policy["uri"] = policy["uri"].partition("?")[0] + f"?{asked}#review"

    forger.restate(SUMMARY, change)
    step, found = refused(forger.evidence)
    assert step == "acceptance"
    assert why in found


async def test_a_person_who_had_to_review_must_be_among_them() -> None:
    forger = Forger(await accepted())

    def change(document: dict[str, Any]) -> None:
        policy = document["predicate"]["policy"]
        policy["uri"] = policy["uri"].replace("people=false", "people=true")

    forger.restate(SUMMARY, change)
    assert refused(forger.evidence) == ("acceptance", "a Person had to be among the reviewers, and none was")


async def test_entries_of_another_log_are_none() -> None:
    evidence = await accepted()
    other = replace(evidence.trust, origin="elsewhere/0123")
    assert refused(replace(evidence, trust=other))[0] == "log entries"


async def test_an_entry_given_for_another_place_is_refused() -> None:
    evidence = await accepted()
    seq, octets = next(iter(evidence.entries.items()))
    entries = {key: value for key, value in evidence.entries.items() if key != seq} | {seq + 500: octets}
    assert f"was given as entry {seq + 500}" in refused(replace(evidence, entries=entries))[1]
