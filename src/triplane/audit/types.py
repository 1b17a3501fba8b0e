"""The event types and the published schema of each one's ``data``.

A schema says what a reader may rely on: members beyond it are allowed, so that adding one never breaks a verifier, and
a member appears as required only when every entry of the type ever written has it. Verifiers hash entries of types they
do not know all the same. Documented in docs/reference/log-format.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator

from triplane.audit.model import JsonObject

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_WORD: Final[Schema] = {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]{0,63}$"}
_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 253}
_UID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 128}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_UIDS: Final[Schema] = {"type": "array", "items": _UID}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_ORDINAL: Final[Schema] = {"type": "integer", "minimum": 1}
_FLAG: Final[Schema] = {"type": "boolean"}
_SUBJECTS: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "required": ["name", "digest"], "properties": {"name": _NAME, "digest": _DIGEST}},
}
_REVIEW: Final[Mapping[str, Schema]] = {
    "reviewerPrincipal": _UID,
    "reviewSessionUid": _UID,
    "reviewerAgentUid": _UID,
}
_REVIEWS: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["reviewName", "reviewUid"],
        "properties": {"reviewName": _NAME, "reviewUid": _UID, **_REVIEW},
    },
}
_GATE: Final[Schema] = {"enum": ["Outputs", "Launch", "Tool"]}
_ANSWER: Final[Mapping[str, Schema]] = {
    "reviewName": _NAME,
    "reviewUid": _UID,
    **_REVIEW,
    "sessionUid": _UID,
    "run": _ORDINAL,
    "tool": _NAME,
}


@dataclass(frozen=True, slots=True)
class EventType:
    """One type: what it tells, what ``n`` and ``key`` of its ids are, and the schema of ``data``."""

    name: str
    tells: str
    n: str
    key: str
    schema: Schema


def _type(
    name: str,
    tells: str,
    *,
    n: str,
    key: str = "",
    required: Mapping[str, Schema] | None = None,
    optional: Mapping[str, Schema] | None = None,
) -> EventType:
    must, may = dict(required or {}), dict(optional or {})
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": tells,
        "type": "object",
        "required": sorted(must),
        "properties": must | may,
    }
    return EventType(name, tells, n, key, schema)


_RUN: Final[Mapping[str, Schema]] = {"run": _ORDINAL}
_ENDED: Final[Mapping[str, Schema]] = {"run": _ORDINAL, "reason": _WORD}

TYPES: Final[Mapping[str, EventType]] = {
    event.name: event
    for event in (
        _type("origin.created", "The log begins.", n="0", required={"host": _NAME, "installId": _UID}),
        _type(
            "principal.created",
            "A random id stands for a user from now on; who that is lies in the erasable blob.",
            n="0",
            optional={"role": _TEXT},
        ),
        _type(
            "resource.observed",
            "A generation of a resource was seen; its spec is the blob.",
            n="generation",
            required={"specDigest": _DIGEST},
            optional={
                "skippedFrom": _ORDINAL,
                "skippedTo": _ORDINAL,
                "ownerUid": _UID,
                "requester": _UID,
                "labelsDigest": _DIGEST,
            },
        ),
        _type(
            "resource.gone",
            "A resource is no longer there; who deleted it is in the API server's audit log.",
            n="last generation",
            required={"deletedBy": {"const": "unknown"}},
        ),
        _type(
            "task.placed",
            "An agent was chosen for a role of a Task.",
            n="round",
            key="role, and from the second choice on `.` and its ordinal",
            required={"role": _NAME, "round": _COUNT, "agentUid": _UID, "agentName": _NAME},
            optional={
                "ordinal": _COUNT,
                "agentPrincipal": _UID,
                "harnessPrincipal": _UID,
                "modelFamily": _NAME,
                "seat": _COUNT,
                "ownerUid": _UID,
                "dependsOn": _UIDS,
            },
        ),
        _type(
            "session.offered",
            "A session may be claimed once a run is permitted.",
            n="1",
            required={"taskUid": _UID, "agentUid": _UID, "agentName": _NAME, "role": _NAME, "snapshotDigest": _DIGEST},
        ),
        _type(
            "run.permitted",
            "Leave to launch a run, and the state it was decided on.",
            n="run",
            key="permit counter",
            required={
                "run": _ORDINAL,
                "permit": _ORDINAL,
                "snapshotDigest": _DIGEST,
                "authorityDigest": _DIGEST,
                "policyDigest": _DIGEST,
                "revocationRevision": _COUNT,
                "runInputsDigest": _DIGEST,
            },
        ),
        _type(
            "run.claimed",
            "A runner took the run.",
            n="run",
            required={"run": _ORDINAL, "permit": _ORDINAL, "runner": _TEXT, "instance": _TEXT},
            optional={"taskUid": _UID, "agentUid": _UID, "role": _NAME},
        ),
        _type(
            "run.started",
            "The harness process runs; what its host measured is the blob.",
            n="run",
            required=_RUN,
            optional={"isolated": _FLAG},
        ),
        _type(
            "run.recorded",
            "A segment of the journal; the segment is the blob.",
            n="run",
            key="segment",
            required={"run": _ORDINAL, "sequence": _ORDINAL},
        ),
        _type(
            "run.finished",
            "The run has a result; reflection and outputs are the blobs.",
            n="run",
            required={
                "run": _ORDINAL,
                "outcome": {"enum": ["succeeded", "failed", "timed_out", "cancelled", "refused"]},
                "reason": _WORD,
                "inputTokens": _COUNT,
                "outputTokens": _COUNT,
                "costMinorUnits": _COUNT,
                "outputs": {**_SUBJECTS, "minItems": 0},
            },
            optional={"exitCode": {"type": "integer"}, "reflection": _DIGEST},
        ),
        _type(
            "session.stopped",
            "A session has more than it may have now and is about to be revoked; the message is the blob.",
            n="1",
            required={"reason": _WORD, "messageDigest": _DIGEST, "taskUid": _UID},
        ),
        _type("run.lost", "The run's runner is gone.", n="run", required=_ENDED),
        _type("run.revoked", "The run was ended because its session was revoked.", n="run", required=_ENDED),
        _type(
            "artifact.recorded",
            "An output became an Artifact.",
            n="run",
            key="output name",
            required={
                "sessionUid": _UID,
                "run": _ORDINAL,
                "output": _NAME,
                "digest": _DIGEST,
                "mediaType": _TEXT,
                "size": _COUNT,
            },
            optional={"round": _COUNT},
        ),
        _type(
            "review.recorded",
            "A verdict that counts, bound to digests; the actor is the reviewing principal.",
            n="1",
            required={
                "reviewName": _NAME,
                "reviewUid": _UID,
                "verdict": {"enum": ["Approve", "Reject"]},
                "subjects": _SUBJECTS,
            },
            optional={**_REVIEW, "artifactUids": _UIDS, "gate": _GATE},
        ),
        _type(
            "task.accepted",
            "The Task's outputs hold, by these Reviews; the one named beside the list is the last of them.",
            n="round",
            required={"round": _COUNT, "reviewName": _NAME, "reviewUid": _UID, "subjects": _SUBJECTS},
            optional={**_REVIEW, "reviews": _REVIEWS},
        ),
        _type(
            "approval.asked",
            "Leave to launch a session is asked for, of people.",
            n="round",
            key="session UID",
            required={"gate": _GATE, "round": _COUNT, "sessionUid": _UID, "subjects": _SUBJECTS},
        ),
        _type(
            "approval.given",
            "Leave was given: to launch a session, to call a tool, or by one of several reviewers of outputs. The "
            "actor is who gave it; `system` when the default did.",
            n="round",
            key="UID of the Review; for Launch the session's; for Tool the session's, `.` and the invocation",
            required={"gate": _GATE, "round": _COUNT, "subjects": _SUBJECTS},
            optional={**_ANSWER, "byDefault": _FLAG},
        ),
        _type(
            "approval.refused",
            "Leave to launch a session or to call a tool was refused; the findings are the blob.",
            n="round",
            key="as approval.given",
            required={"gate": _GATE, "round": _COUNT, "subjects": _SUBJECTS, "findingsDigest": _DIGEST},
            optional=_ANSWER,
        ),
        _type(
            "task.rejected",
            "The Task's outputs do not hold; the findings are the blob.",
            n="round",
            required={
                "round": _COUNT,
                "reviewName": _NAME,
                "reviewUid": _UID,
                "findingsDigest": _DIGEST,
                "findingsCount": _COUNT,
            },
            optional=_REVIEW,
        ),
        _type(
            "task.failed",
            "Nothing further will be tried; the message is the blob.",
            n="round",
            required={"round": _COUNT, "reason": _WORD, "messageDigest": _DIGEST},
        ),
        _type(
            "task.skipped",
            "The Task is not done: its condition is false, or nothing it needs was produced; the message is the blob.",
            n="1",
            required={"reason": _WORD, "messageDigest": _DIGEST},
            optional={
                "values": {
                    "type": "object",
                    "properties": {
                        "steps": {
                            "type": "array",
                            "items": {"type": "object", "required": ["step", "state"]},
                        }
                    },
                }
            },
        ),
        _type(
            "input.composed",
            "What other Tasks produced became an input; the blob is the input.",
            n="1",
            key="input name, and from the 17th edge on `.` and a number",
            required={
                "input": _NAME,
                "merge": _WORD,
                "digest": _DIGEST,
                "edges": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["taskUid", "output", "digest"],
                        "properties": {
                            "taskUid": _UID,
                            "step": _NAME,
                            "output": _NAME,
                            "digest": _DIGEST,
                            "path": _TEXT,
                            "to": _TEXT,
                        },
                    },
                },
            },
        ),
        _type(
            "node.planned",
            "The steps a Node runs, with parameters and overrides applied; the plan is the blob.",
            n="1",
            required={"planDigest": _DIGEST, "steps": _ORDINAL},
            optional={"workflowUid": _UID, "workflowGeneration": _ORDINAL},
        ),
        _type(
            "node.aborted",
            "Every unfinished step of the Node is cancelled.",
            n="1",
            required={"reason": _WORD},
            optional={"step": _NAME, "nodeUid": _UID},
        ),
        _type(
            "tool.asked",
            "A call of a tool waits for a person's leave; tool and arguments are the blob.",
            n="run",
            key="invocation",
            required={"run": _ORDINAL, "invocation": _NAME, "tool": _NAME, "digest": _DIGEST, "until": _TEXT},
        ),
        _type(
            "tool.begun",
            "A call that can reach beyond the runner is about to be made; tool and arguments are the blob.",
            n="run",
            key="invocation",
            required={"run": _ORDINAL, "invocation": _NAME, "tool": _NAME, "input": _DIGEST, "egress": _WORD},
        ),
        _type(
            "tool.invoked",
            "A call of a tool was made, or refused; tool with arguments, and what it answered, are the blobs.",
            n="run",
            key="invocation",
            required={
                "run": _ORDINAL,
                "invocation": _NAME,
                "tool": _NAME,
                "status": {"enum": ["succeeded", "failed", "timed_out", "refused"]},
                "approval": {"enum": ["not_required", "approved", "rejected", "timed_out", "not_asked"]},
                "input": _DIGEST,
                "output": _DIGEST,
                "egress": _WORD,
                "costMinorUnits": _COUNT,
                "milliseconds": _COUNT,
                "redacted": _FLAG,
            },
            optional={"rule": _WORD, "axis": _TEXT, "review": _UID, "approver": _UID},
        ),
        _type(
            "policy.violated",
            "A rule of a Policy did not hold; what it says and the object's spec are blobs. Tried again: once here.",
            n="generation of the Policy",
            key="digest of what was violated",
            required={
                "enforcement": {"enum": ["Deny", "Warn", "Audit"]},
                "stage": {"enum": ["Admission", "Launch"]},
                "operation": {"enum": ["CREATE", "UPDATE", "LAUNCH"]},
                "objectKind": _WORD,
                "objectNamespace": _TEXT,
                "objectName": _TEXT,
                "rule": _TEXT,
                "reason": _WORD,
                "messageDigest": _DIGEST,
                "specDigest": _DIGEST,
            },
            optional={"objectUid": _UID},
        ),
        _type(
            "attestation.recorded",
            "A statement was signed: how a run produced its outputs, what a Review said, or that a round was accepted. "
            "The envelope is the blob.",
            n="run, 1 of a Review, round of a Task",
            key="provenance, review or acceptance",
            required={"predicateType": _TEXT, "envelopeDigest": _DIGEST, "keyId": _NAME, "subjects": _SUBJECTS},
        ),
        _type(
            "key.created",
            "A key signs from here on.",
            n="0",
            required={"algorithm": {"const": "Ed25519"}, "publicKey": _TEXT},
        ),
        _type(
            "key.retired",
            "A key signs no more; what it has signed stays good.",
            n="0",
            required={"algorithm": {"const": "Ed25519"}},
        ),
        _type("task.stalled", "Someone must act.", n="generation", key="reason", required={"reason": _WORD}),
        _type("blob.quarantined", "A stored blob was not what was stored.", n="from 1", required={"digest": _DIGEST}),
        _type("blob.erased", "A blob was erased on purpose.", n="from 1", required={"digest": _DIGEST}),
        _type(
            "blob.collected",
            "Blobs that nothing named, and nobody held, were about to be removed; which ones is in the blob.",
            n="1",
            required={"count": _ORDINAL, "octets": _COUNT},
        ),
        _type(
            "log.archived",
            "Entries were archived, and are about to leave the database; `root` is that of all entries below `upto`.",
            n="upto",
            required={
                "first": _COUNT,
                "upto": _ORDINAL,
                "root": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "checkpointSize": _ORDINAL,
                "staying": _COUNT,
            },
            optional={"references": _COUNT, "referencesHash": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        ),
        _type(
            "checkpoint.abandoned",
            "Somebody let the operator go on though this log contradicts a checkpoint that was signed: that one, and "
            "all below it, were given up.",
            n="how many were given up",
            required={
                "origin": {"type": "string", "minLength": 1, "maxLength": 300},
                "size": _COUNT,
                "root": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            },
        ),
    )
}
"""Every type this release writes, by name."""

STAYING: Final = frozenset(
    {
        *("origin.created", "principal.created", "key.created", "key.retired", "checkpoint.abandoned", "log.archived"),
        *("blob.quarantined", "blob.erased", "blob.collected"),
    }
)
"""What an installation reads however old it is. Archiving the log leaves entries of these types where they are."""


def violations(event_type: str, data: JsonObject) -> list[str]:
    """What in ``data`` breaks the type's published schema, as ``path: message``; nothing for an unknown type."""
    if event_type not in TYPES:
        return []
    errors = _validator(event_type).iter_errors(data)
    return sorted(f"{error.json_path}: {error.message}" for error in errors)


@cache
def _validator(event_type: str) -> Draft202012Validator:
    return Draft202012Validator(TYPES[event_type].schema)
