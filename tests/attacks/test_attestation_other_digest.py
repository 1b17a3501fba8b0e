"""A review of one thing is shown for another: its digest is not the artifact's."""

from dataclasses import replace
from typing import Any

import pytest
from tests.attacks.attested import Forger, accepted, fooled, refused

from triplane.audit.attestation import PROVENANCE, REVIEW, SUMMARY

pytestmark = pytest.mark.attacks

OTHER = "f" * 64


def _of_another(document: dict[str, Any]) -> None:
    document["subject"][0]["digest"]["sha256"] = OTHER


def _logged(entry: dict[str, Any]) -> None:
    entry["data"] = {**entry["data"], "subjects": [{"name": "report", "digest": f"sha256:{OTHER}"}]}


async def test_a_review_of_another_digest_does_not_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    forger.restate(REVIEW, _of_another)
    forger.replace_entry(forger.seq_of("review.recorded"), _logged)
    assert fooled(monkeypatch, forger.evidence, "subject", "reviews")
    step, why = refused(forger.evidence)
    assert step == "subject"
    assert "review statement is not about report" in why
    assert OTHER in why


@pytest.mark.parametrize("kind", [PROVENANCE, SUMMARY], ids=["provenance", "acceptance"])
async def test_no_other_statement_of_another_digest_does_either(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    forger = Forger(await accepted())
    forger.restate(kind, _of_another)
    assert fooled(monkeypatch, forger.evidence, "subject", "acceptance")
    assert refused(forger.evidence)[0] == "subject"


async def test_the_real_statements_do_not_vouch_for_other_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody exchanges the content, and says that its digest is what the artifact has."""
    evidence = replace(await accepted(), digest=f"sha256:{OTHER}", content=f"sha256:{OTHER}")
    forger = Forger(evidence)
    forger.replace_entry(
        forger.seq_of("artifact.recorded"), lambda e: e.update(data={**e["data"], "digest": f"sha256:{OTHER}"})
    )
    forger.replace_entry(forger.seq_of("task.accepted"), _logged)
    assert fooled(monkeypatch, forger.evidence, "subject", "reviews", "acceptance")
    assert refused(forger.evidence)[0] == "subject"
