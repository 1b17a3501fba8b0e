"""A key is stolen after it was retired, or before it was told of, and signs a review of today."""

from dataclasses import replace

import pytest
from tests.attacks.attested import Forger, accepted, fooled, holds, refused, verify

from triplane.audit.attestation import KEYS, PROVENANCE, REVIEW, SUMMARY

pytestmark = pytest.mark.attacks

AT = "2026-01-01T00:00:00.000000Z"


async def test_what_a_retired_key_signs_after_its_end_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    (key,) = forger.evidence.trust.keys
    end = forger.place_of(PROVENANCE) + 1
    assert end <= forger.place_of(REVIEW)
    retired = replace(
        forger.evidence.trust, keys=(replace(key, retired=end, retired_at="2026-01-01T00:00:00.000000Z"),)
    )
    evidence = forger.trusting(retired)
    assert fooled(monkeypatch, evidence, "covers")
    step, why = refused(evidence)
    assert step == "signatures"
    assert f"key {key.key_id} after it was retired" in why
    assert "review statement" in why


async def test_what_it_signed_before_stays_good() -> None:
    forger = Forger(await accepted())
    (key,) = forger.evidence.trust.keys
    end = max(forger.place_of(kind) for kind in KEYS) + 1
    retired = replace(
        forger.evidence.trust, keys=(replace(key, retired=end, retired_at="2026-01-01T00:00:00.000000Z"),)
    )
    assert holds(verify(forger.trusting(retired)))


async def test_a_key_signs_nothing_before_the_log_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    (key,) = forger.evidence.trust.keys
    late = replace(forger.evidence.trust, keys=(replace(key, created=forger.place_of(SUMMARY)),))
    evidence = forger.trusting(late)
    assert fooled(monkeypatch, evidence, "covers")
    assert "before it was created" in refused(evidence)[1]
