"""The signature is taken off an envelope, or exchanged for nothing, and the statement is altered."""

import base64
from typing import Any

import orjson
import pytest
from tests.attacks.attested import Forger, accepted, holds, refused, verify

from triplane.audit import dsse
from triplane.audit.attestation import REVIEW

pytestmark = pytest.mark.attacks

STRIPPED = [
    pytest.param(None, "has no signatures", id="none at all"),
    pytest.param([], "has no signatures", id="an empty list"),
    pytest.param([{"keyid": "k"}], "has no sig", id="without octets"),
    pytest.param([{"keyid": "k", "sig": ""}], "has no sig", id="of no octets"),
    pytest.param([{"keyid": "k", "sig": base64.b64encode(bytes(64)).decode()}], "any trusted key", id="of zeros"),
]


def _believing(*_: Any) -> Any:
    """A check that takes what was not signed for signed."""
    return list(_[2])


@pytest.mark.parametrize(("signatures", "why"), STRIPPED)
async def test_a_statement_without_its_signature_is_worth_nothing(
    monkeypatch: pytest.MonkeyPatch, signatures: list[dict[str, str]] | None, why: str
) -> None:
    forger = Forger(await accepted())
    forger.resign(REVIEW, signatures)  # type: ignore[arg-type]
    with monkeypatch.context() as weakened:
        weakened.setattr(dsse, "parse", _lenient)
        weakened.setattr(dsse, "signed_by", _believing)
        assert holds(verify(forger.evidence))
    step, found = refused(forger.evidence)
    assert step == "signatures"
    assert why in found


def _lenient(octets: bytes) -> dsse.Envelope:
    document = orjson.loads(octets)
    return dsse.Envelope(document["payloadType"], base64.b64decode(document["payload"]), ())
