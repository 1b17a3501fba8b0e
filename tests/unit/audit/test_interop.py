"""The statements are what in-toto's own implementation takes for statements, every field of every predicate known to
it, and an independent verifier accepts their signatures."""

from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from tests.unit.audit.attested import KINDS, Forger, accepted

from triplane.audit import dsse
from triplane.audit.attestation import PAYLOAD_TYPE, PROVENANCE, REVIEW, SUMMARY

PREDICATES: dict[str, Any] = {PROVENANCE: provenance_pb2.Provenance, SUMMARY: vsa_pb2.VerificationSummary}


@pytest.mark.parametrize("kind", KINDS, ids=["provenance", "review", "acceptance"])
async def test_an_independent_verifier_and_parser_accept_the_statement(kind: str) -> None:
    evidence = await accepted()
    forger = Forger(evidence)
    (trusted,) = evidence.trust.keys
    envelope = forger.envelope(kind)
    document = {
        "payload": dsse._text(envelope.payload),
        "payloadType": envelope.payload_type,
        "signatures": [{"keyid": item.keyid, "sig": dsse._text(item.sig)} for item in envelope.signatures],
    }
    theirs = Envelope.from_dict(document)
    key = SSlibKey.from_crypto(dsse.load_public_key(trusted.public_key), trusted.key_id)
    assert theirs.verify([key], 1)
    assert theirs.payload_type == PAYLOAD_TYPE

    said = orjson.loads(theirs.payload)
    parsed = Statement.copy_from_pb(json_format.ParseDict(said, statement_pb2.Statement()))
    parsed.validate()
    assert parsed.pb.predicate_type == kind
    if kind != REVIEW:
        # It has one string where the specification has a list (slsa.dev/spec/v1.0/verification_summary#fields).
        levels = said["predicate"].pop("verifiedLevels", None)
        assert (levels is None) is (kind == PROVENANCE)
        # Refuses every field it does not know, and every value of another type.
        predicate = json_format.ParseDict(said["predicate"], PREDICATES[kind]())
        assert json_format.MessageToDict(predicate).keys() == said["predicate"].keys()
