"""``keyid`` is whatever whoever wrote the envelope put there: it names another key than the one that signed."""

import pytest
from tests.attacks.attested import Forger, accepted, holds, refused, verify
from tests.unit.audit.attested import OPERATOR, signature

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit import dsse
from triplane.audit.attestation import REVIEW

pytestmark = pytest.mark.attacks

MINE = MemorySigner(b"a key of the producer's own")


def _by_name(envelope: dsse.Envelope, payload_type: str, keys: tuple[dsse.PublicKey, ...]) -> list[dsse.PublicKey]:
    """The mistake: whom the envelope names is taken for who signed."""
    named = {item.keyid for item in envelope.signatures}
    return [key for key in keys if dsse.key_id_of(key.public_key) in named]


async def test_a_signature_that_names_the_operators_key_is_not_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    forger.resign(REVIEW, [signature(MINE, forger.envelope(REVIEW), keyid=OPERATOR.key_id)])
    with monkeypatch.context() as weakened:
        weakened.setattr(dsse, "signed_by", _by_name)
        assert holds(verify(forger.evidence))
    step, why = refused(forger.evidence)
    assert step == "signatures"
    assert "not signed by any trusted key" in why


@pytest.mark.parametrize("keyid", [MINE.key_id, "", "../../secrets", OPERATOR.key_id])
async def test_the_operators_signature_is_good_under_any_name(keyid: str) -> None:
    forger = Forger(await accepted())
    forger.resign(REVIEW, [signature(OPERATOR, forger.envelope(REVIEW), keyid=keyid)])
    assert holds(verify(forger.evidence))
