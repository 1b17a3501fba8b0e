"""Somebody signs a review of their own work with a key of their own: well formed, and signed by nobody we trust."""

from dataclasses import replace

import pytest
from tests.attacks.attested import Forger, accepted, holds, refused, verify
from tests.unit.audit.attested import OPERATOR, signature

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.attestation import REVIEW
from triplane.audit.keys import TrustedKey

pytestmark = pytest.mark.attacks

MINE = MemorySigner(b"a key of the producer's own")


async def test_a_review_signed_with_the_producers_own_key_counts_for_nothing() -> None:
    forger = Forger(await accepted())
    forger.restate(REVIEW, lambda document: None, signer=MINE)
    believed = replace(forger.evidence.trust, keys=(*forger.evidence.trust.keys, TrustedKey(MINE.public_key, -1, "")))
    assert holds(verify(forger.trusting(believed))), "whoever trusts that key is fooled"
    step, why = refused(forger.evidence)
    assert step == "signatures"
    assert "not signed by any trusted key" in why


@pytest.mark.parametrize("real_too", [True, False], ids=["beside the operator's", "alone"])
async def test_a_second_signature_adds_nothing_and_takes_nothing_away(real_too: bool) -> None:
    forger = Forger(await accepted())
    envelope = forger.envelope(REVIEW)
    ours = [signature(OPERATOR, envelope)] if real_too else []
    forger.resign(REVIEW, [signature(MINE, envelope), *ours])
    assert holds(verify(forger.evidence)) is real_too
