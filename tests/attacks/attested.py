"""What the attacks on attestations share: an accepted artifact, and a verifier with one check left out."""

from collections.abc import Sequence

import orjson
import pytest
from tests.unit.audit.attested import Forger, accepted, failed, refused

from triplane.audit import dsse, verification
from triplane.audit.evidence import Evidence
from triplane.audit.verification import holds, verify

__all__ = ["Forger", "accepted", "failed", "holds", "refused", "verify", "without"]


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The verifier with these steps or checks (``covers``, ``payload type``) left out."""
    for name in names:
        if name == "covers":
            monkeypatch.setattr("triplane.audit.keys.TrustedKey.covers", lambda key, seq: True)
        elif name == "payload type":
            monkeypatch.setattr(dsse, "signed_by", _of_any_type)
            monkeypatch.setattr(verification, "read_statement", lambda envelope: orjson.loads(envelope.payload))
        else:
            steps = tuple(
                (step, (lambda case: "left out") if step == name else check) for step, check in verification.STEPS
            )
            assert steps != verification.STEPS
            monkeypatch.setattr(verification, "STEPS", steps)


def _of_any_type(envelope: dsse.Envelope, _: str, keys: Sequence[dsse.PublicKey]) -> list[dsse.PublicKey]:
    octets = dsse.pae(envelope.payload_type, envelope.payload)
    return [key for key in keys if dsse._verifies(key.public_key, envelope.signatures[0].sig, octets)]


def fooled(monkeypatch: pytest.MonkeyPatch, evidence: Evidence, *names: str) -> bool:
    """Whether a verifier without these checks is satisfied."""
    with monkeypatch.context() as weakened:
        without(weakened, *names)
        return holds(verify(evidence))
