"""What the operator states about work, and signs: in-toto Statements v1 in DSSE envelopes.

Three statements lead to an accepted artifact: how a run produced it (SLSA provenance v1), what a reviewer said of it (a
predicate of our own), and that it was accepted by these reviews (SLSA verification summary v1). Each names the artifact
by digest and by the object that it is, and the last names the others by the digests of their envelopes: none of them
can be moved to another artifact, and the order in which they were made can be seen in them.

A statement is made of recorded facts only, so that making it again gives the same octets
(docs/reference/attestations.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.audit.dsse import Envelope, Signer, seal
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject
from triplane.errors import InvalidInput

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
REVIEW: Final = "https://triplane.dev/attestation/review/v1"
SUMMARY: Final = "https://slsa.dev/verification_summary/v1"
BUILD_TYPE: Final = "https://triplane.dev/build-types/agent-run/v1"
LEVELS: Final = ("SLSA_BUILD_LEVEL_1", "TRIPLANE_INDEPENDENT_REVIEW")
SLSA_VERSION: Final = "1.0"
KEYS: Final = {PROVENANCE: "provenance", REVIEW: "review", SUMMARY: "acceptance"}
"""Predicate type to the key of the event that records such a statement."""
EVENT: Final = "attestation.recorded"


@dataclass(frozen=True, slots=True)
class Subject:
    """An output by name and digest; ``uid`` of the Artifact it became."""

    name: str
    digest: str
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """Who produced, or who reviews. A person has neither Agent nor session, and is its own Harness's user."""

    principal: str | None
    harness_principal: str | None = None
    agent_uid: str | None = None
    agent_name: str | None = None
    session_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Dependency:
    """One material of a run (``triplane.api.meta.Material``)."""

    name: str
    role: str
    basis: str
    """What the digest rests on."""
    digest: str | None = None
    uid: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class RunStory:
    """A run whose outputs became Artifacts, as the store and the log have it."""

    task_uid: str
    task_name: str
    namespace: str
    round: int
    run: int
    producer: Party
    decided_on: Mapping[str, str]
    """Digests of what the launch was decided on, by name: snapshot, authority, policy, run inputs."""
    dependencies: Sequence[Dependency]
    byproducts: Sequence[tuple[str, str]]
    started_at: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A Review that counts."""

    uid: str
    name: str
    verdict: str
    task_uid: str
    round: int
    reviewer: Party
    producer: Party
    made_at: str | None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Why a round holds: what was asked for, and the statements that answer it."""

    task_uid: str
    round: int
    reviewers: int
    people: bool
    """Whether people had to be among the reviewers; ``agents`` likewise."""
    agents: bool
    spec_digest: str
    """Of the Task's spec, which asks for it."""
    rests_on: Sequence[tuple[str, str]]
    """``(event id, digest of the envelope)`` of the provenance and of each review."""
    decided_at: str | None


@dataclass(frozen=True, slots=True)
class Attestation:
    """A signed statement, and the entry that is to record it."""

    octets: bytes
    body: EventBody

    @property
    def digest(self) -> str:
        return str(self.body.data["envelopeDigest"])


def object_uri(origin: str, uid: str) -> str:
    """The name of an object everywhere: installation and UID."""
    return f"triplane://{origin}/objects/{uid}"


def run_uri(origin: str, session_uid: str, run: int) -> str:
    """The name of a run everywhere."""
    return f"{object_uri(origin, session_uid)}/runs/{run}"


def attestation_uri(origin: str, event: str) -> str:
    """The name of a statement everywhere: the id of the entry that records it."""
    return f"triplane://{origin}/log/{event}"


def operator_uri(origin: str) -> str:
    """Who builds and verifies: the operator of this installation."""
    return f"triplane://{origin}/operator"


def provenance(origin: str, story: RunStory) -> dict[str, Any]:
    """SLSA provenance v1 of a run (https://slsa.dev/spec/v1.0/provenance)."""
    internal: dict[str, Any] = {"run": story.run, "producer": _party(origin, story.producer), **story.decided_on}
    metadata = {
        "invocationId": run_uri(origin, str(story.producer.session_uid), story.run),
        "startedOn": story.started_at,
        "finishedOn": story.ended_at,
    }
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "namespace": story.namespace,
                "task": {"name": story.task_name, "uri": object_uri(origin, story.task_uid)},
                "round": story.round,
            },
            "internalParameters": internal,
            "resolvedDependencies": [_dependency(origin, item) for item in story.dependencies],
        },
        "runDetails": {
            "builder": {"id": operator_uri(origin)},
            "metadata": _known(metadata),
            "byproducts": [{"name": name, "digest": _digest(digest)} for name, digest in story.byproducts],
        },
    }


def review(origin: str, said: Verdict) -> dict[str, Any]:
    """What a reviewer said (docs/reference/attestations.md)."""
    return _known(
        {
            "recordedBy": {"id": operator_uri(origin)},
            "review": {"name": said.name, "uri": object_uri(origin, said.uid)},
            "task": {"uri": object_uri(origin, said.task_uid)},
            "round": said.round,
            "verdict": said.verdict,
            "reviewer": _party(origin, said.reviewer),
            "producer": _party(origin, said.producer),
            "reviewedOn": said.made_at,
        }
    )


def summary(origin: str, accepted: Acceptance) -> dict[str, Any]:
    """SLSA verification summary v1 (https://slsa.dev/spec/v1.0/verification_summary): the operator has verified."""
    asked = f"reviewers={accepted.reviewers}&agents={_flag(accepted.agents)}&people={_flag(accepted.people)}"
    resource = object_uri(origin, accepted.task_uid)
    return _known(
        {
            "verifier": {"id": operator_uri(origin)},
            "timeVerified": accepted.decided_at,
            "resourceUri": f"{resource}#round-{accepted.round}",
            "policy": {"uri": f"{resource}?{asked}#review", "digest": _digest(accepted.spec_digest)},
            "inputAttestations": [
                {"uri": attestation_uri(origin, event), "digest": _digest(digest)}
                for event, digest in accepted.rests_on
            ],
            "verificationResult": "PASSED",
            "verifiedLevels": list(LEVELS),
            "slsaVersion": SLSA_VERSION,
        }
    )


def statement(origin: str, subjects: Sequence[Subject], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The octets of an in-toto Statement v1; the same for the same facts. Raises ``InvalidInput`` without subjects."""
    if not subjects:
        raise InvalidInput(f"a statement of type {predicate_type} must be about something")
    document = {
        "_type": STATEMENT,
        "subject": [
            _known(
                {
                    "name": item.name,
                    "uri": None if item.uid is None else object_uri(origin, item.uid),
                    "digest": _digest(item.digest),
                }
            )
            for item in subjects
        ],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def attest(
    payload: bytes, predicate_type: str, signer: Signer, *, about: EventSubject, n: int, stream: str,
    subjects: Sequence[Subject],
) -> Attestation:  # fmt: skip
    """Sign a statement. It is recorded as ``attestation.recorded/<uid>/<n>/<key>``: of the session and run that a
    provenance tells of, of the Review (n 1), of the Task and round that were accepted."""
    octets = seal(PAYLOAD_TYPE, payload, signer)
    digest = digest_of_bytes(octets)
    data: dict[str, Any] = {
        "predicateType": predicate_type,
        "envelopeDigest": digest,
        "keyId": signer.key_id,
        "subjects": [{"name": item.name, "digest": item.digest} for item in subjects],
    }
    body = EventBody(
        id=attestation_id(predicate_type, about.uid, n),
        type=EVENT,
        stream=stream,
        actor=SYSTEM_ACTOR,
        subject=about,
        data=data,
        blobs=(digest,),
    )
    return Attestation(octets, body)


def attestation_id(predicate_type: str, uid: str, n: int) -> str:
    """The id of the entry that records such a statement of this object."""
    return event_id(EVENT, uid, n, KEYS[predicate_type])


def read_statement(envelope: Envelope) -> dict[str, Any]:
    """The statement in an envelope whose signature has been checked. Raises ``InvalidInput`` for anything else."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidInput(f"the envelope holds a {envelope.payload_type!r}, not an in-toto Statement")
    try:
        document = orjson.loads(envelope.payload)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the statement is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("_type") != STATEMENT:
        raise InvalidInput(f"the payload is no Statement of type {STATEMENT}")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or not subjects or not all(isinstance(item, dict) for item in subjects):
        raise InvalidInput("the statement has no subject")
    if not isinstance(document.get("predicateType"), str) or not isinstance(document.get("predicate"), dict):
        raise InvalidInput("the statement has no predicateType, or no predicate")
    return document


def _party(origin: str, party: Party) -> dict[str, Any]:
    return _known(
        {
            "kind": "Person" if party.agent_uid is None else "Agent",
            "principal": party.principal,
            "harnessPrincipal": party.harness_principal,
            "agent": None if party.agent_uid is None else object_uri(origin, party.agent_uid),
            "agentName": party.agent_name,
            "session": None if party.session_uid is None else object_uri(origin, party.session_uid),
        }
    )


def _dependency(origin: str, item: Dependency) -> dict[str, Any]:
    notes = _known({"role": item.role, "generation": item.generation, "basis": item.basis})
    return _known(
        {
            "name": item.name,
            "uri": None if item.uid is None else object_uri(origin, item.uid),
            "digest": None if item.digest is None else _digest(item.digest),
            "annotations": notes,
        }
    )


def _digest(digest: str) -> dict[str, str]:
    return {"sha256": parse_digest(digest)}


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not known: an absent member says so, null would be a value."""
    return {key: value for key, value in values.items() if value is not None}
