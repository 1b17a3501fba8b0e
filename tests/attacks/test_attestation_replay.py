"""The approval of one artifact is replayed for another that happens to have the same content: accepted work of an
earlier Task is presented as work of one that nobody reviewed."""

from dataclasses import replace
from typing import Any

import pytest
from tests.attacks.attested import Forger, accepted, fooled, refused

pytestmark = pytest.mark.attacks


async def test_an_approval_is_not_for_every_artifact_of_that_content(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())

    def mine(entry: dict[str, Any]) -> None:
        entry["subject"] = {**entry["subject"], "uid": "uid-of-an-artifact-nobody-reviewed"}

    forger.replace_entry(forger.seq_of("artifact.recorded"), mine)
    evidence = replace(forger.evidence, artifact_uid="uid-of-an-artifact-nobody-reviewed")
    assert fooled(monkeypatch, evidence, "subject")
    step, why = refused(evidence)
    assert step == "subject"
    assert "uid-of-an-artifact-nobody-reviewed" in why


async def test_an_approval_is_not_for_another_run_that_made_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log entry is bent to a session of the attacker's, which has no provenance; the real one is handed in its
    place."""
    forger = Forger(await accepted())
    session = "uid-of-another-session"

    def bent(entry: dict[str, Any]) -> None:
        entry["data"] = {**entry["data"], "sessionUid": session}

    def renamed(entry: dict[str, Any]) -> None:
        entry["id"] = f"attestation.recorded/{session}/1/provenance"
        entry["subject"] = {**entry["subject"], "uid": session}

    forger.replace_entry(forger.seq_of("artifact.recorded"), bent)
    forger.replace_entry(forger.place_of("https://slsa.dev/provenance/v1"), renamed)
    assert fooled(monkeypatch, forger.evidence, "provenance")
    step, why = refused(forger.evidence)
    assert step == "provenance"
    assert session in why


async def test_an_approval_of_one_installation_is_none_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both trust the same key, as after a restore; the statements say where they were made."""
    forger = Forger(await accepted())
    elsewhere = replace(forger.evidence.trust, origin="elsewhere/00000000000000000000000000000000")
    moved = Forger(forger.trusting(elsewhere))
    for seq in list(moved.evidence.entries):
        moved.move(seq, seq)
    steps = ("subject", "provenance", "reviews", "independence", "acceptance")
    assert fooled(monkeypatch, moved.evidence, *steps)
    assert refused(moved.evidence)[0] == "subject"
