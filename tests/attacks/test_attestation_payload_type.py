"""Octets that were signed as something else are shown as a statement: the type of the payload is part of what is
signed, and the reader says which one it wants."""

import orjson
import pytest
from tests.attacks.attested import Forger, accepted, fooled, refused
from tests.unit.audit.attested import OPERATOR, rest_on

from triplane.audit import dsse
from triplane.audit.attestation import PAYLOAD_TYPE, REVIEW, SUMMARY
from triplane.audit.digest import digest_of_bytes

pytestmark = pytest.mark.attacks

CONFUSED = "application/json"
"""A document that some other part of an installation might sign for a user."""


async def test_a_document_signed_as_json_is_no_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    real = forger.envelope(REVIEW)
    octets = dsse.seal(CONFUSED, real.payload, OPERATOR)
    old = digest_of_bytes(dsse.seal(PAYLOAD_TYPE, real.payload, OPERATOR))
    forger.put(REVIEW, octets)
    forger.restate(SUMMARY, lambda said: rest_on(said, old, digest_of_bytes(octets)))
    assert fooled(monkeypatch, forger.evidence, "payload type")
    step, why = refused(forger.evidence)
    assert step == "signatures"
    assert "holds a 'application/json'" in why


async def test_nor_is_it_when_the_envelope_claims_the_type_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    real = forger.envelope(REVIEW)
    document = orjson.loads(dsse.seal(CONFUSED, real.payload, OPERATOR))
    document["payloadType"] = PAYLOAD_TYPE
    octets = orjson.dumps(document)
    old = digest_of_bytes(dsse.seal(PAYLOAD_TYPE, real.payload, OPERATOR))
    forger.put(REVIEW, octets)
    forger.restate(SUMMARY, lambda said: rest_on(said, old, digest_of_bytes(octets)))
    with monkeypatch.context() as weakened:
        # A verifier that checks a signature over the payload alone would be fooled by whatever was signed for it.
        weakened.setattr(
            dsse, "pae", lambda kind, payload: b"DSSEv1 16 application/json %d %b" % (len(payload), payload)
        )
        assert dsse.signed_by(dsse.parse(octets), PAYLOAD_TYPE, forger.evidence.trust.keys)
    step, why = refused(forger.evidence)
    assert step == "signatures"
    assert "not signed by any trusted key" in why
