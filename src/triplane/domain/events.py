"""The log entries about runs, built from what the session store keeps and nothing else.

Gateway and operator both append them, whoever comes first after a crash: each body depends only on the stored offer
and run, so both write the same octets and the second append is a no-op. Data members are listed in
docs/reference/gateway-api.md ("What is logged").
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from triplane.audit.digest import canonical_json, digest_of_bytes, digest_of_json, parse_digest
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, SYSTEM_STREAM, EventBody, EventSubject
from triplane.domain.collection import ReferencesFacts
from triplane.domain.session import Offer, Permit, RunState, RunView, SessionView

_MAX_BLOBS: Final = 64
_WORD = re.compile(r"[A-Z][A-Za-z0-9]{0,63}", re.ASCII)


def graph_stream(graph_uid: str) -> str:
    """The stream of everything that happens in a Graph."""
    return f"graph/{graph_uid}"


def session_offered(offer: Offer) -> EventBody:
    """``session.offered/<session>/1``: claimable once permitted. n is 1: a session is offered once."""
    data = {
        "taskUid": offer.task_uid,
        "agentUid": offer.agent_uid,
        "agentName": offer.agent_name,
        "role": offer.role,
        "snapshotDigest": offer.snapshot_digest,
    }
    return _body("session.offered", offer, 1, data)


def session_stopped(offer: Offer, reason: str, message_digest: str) -> EventBody:
    """``session.stopped/<session>/1``: it has more than it may have now, and is about to be revoked."""
    data = {"reason": reason, "messageDigest": message_digest, "taskUid": offer.task_uid}
    return _body("session.stopped", offer, 1, data, blobs=(message_digest,))


def run_permitted(offer: Offer, permit: Permit, *, asked: bool = False) -> EventBody:
    """``run.permitted/<session>/<run>/<counter>``: leave to launch, and on which state it was decided. The list of
    the Policies that were ``asked`` is the blob, under ``policyDigest``."""
    data = {
        "run": permit.run,
        "permit": permit.counter,
        "snapshotDigest": permit.snapshot_digest,
        "authorityDigest": permit.authority_digest,
        "policyDigest": permit.policy_digest,
        "revocationRevision": permit.revocation_revision,
        "runInputsDigest": digest_of_json(permit.run_inputs),
    }
    blobs = (permit.policy_digest,) if asked else ()
    return _body("run.permitted", offer, permit.run, data, key=str(permit.counter), blobs=blobs)


def run_claimed(view: SessionView, run: RunView) -> EventBody:
    """A runner took the run."""
    data = {
        "run": run.run,
        "permit": run.permit_counter,
        "runner": run.runner or "",
        "instance": run.instance or "",
        "taskUid": view.offer.task_uid,
        "agentUid": view.offer.agent_uid,
        "role": view.offer.role,
    }
    return _body("run.claimed", view.offer, run.run, data)


def run_started(view: SessionView, run: RunView) -> EventBody:
    """The harness process runs. The measured facts are the blob (``facts_document``)."""
    data: dict[str, Any] = {"run": run.run}
    if isinstance(run.facts.get("isolated"), bool):
        data["isolated"] = run.facts["isolated"]
    return _body("run.started", view.offer, run.run, data, blobs=(digest_of_bytes(facts_document(run)),))


def facts_document(run: RunView) -> bytes:
    """The blob of what the host measured: canonical JSON of the facts."""
    return canonical_json(run.facts)


def run_recorded(view: SessionView, run: int, sequence: int, digest: str) -> EventBody:
    """One journal segment; its blob is the segment."""
    return _body(
        "run.recorded", view.offer, run, {"run": run, "sequence": sequence}, key=str(sequence), blobs=(digest,)
    )


def run_finished(view: SessionView, run: RunView) -> EventBody:
    """The run has a result. Its message is prose and stays in the session store."""
    result = run.result
    if result is None:
        raise ValueError(f"run {run.run} of session {view.offer.session_uid} has no result to log")
    data: dict[str, Any] = {
        "run": run.run,
        "outcome": result.outcome.value,
        "reason": _word(result.reason),
        "inputTokens": result.usage.input_tokens,
        "outputTokens": result.usage.output_tokens,
        "costMinorUnits": result.usage.cost_minor_units,
        "outputs": [{"name": item.name, "digest": item.digest} for item in result.outputs],
    }
    if result.exit_code is not None:
        data["exitCode"] = result.exit_code
    digests = [item.digest for item in result.outputs]
    if result.reflection is not None:
        data["reflection"] = result.reflection
        digests.insert(0, result.reflection)
    blobs = tuple(dict.fromkeys(digests))[:_MAX_BLOBS]
    return _body("run.finished", view.offer, run.run, data, blobs=blobs)


def run_lost(view: SessionView, run: RunView) -> EventBody:
    """The run was declared lost: its runner is gone."""
    return _body("run.lost", view.offer, run.run, {"run": run.run, "reason": _word(run.end_reason or "")})


def run_revoked(view: SessionView, run: RunView) -> EventBody:
    """The run was ended by a revocation of its session."""
    reason = _word(run.end_reason or view.revoked or "")
    return _body("run.revoked", view.offer, run.run, {"run": run.run, "reason": reason})


def run_history(view: SessionView, run: RunView) -> tuple[EventBody, ...]:
    """Every entry about this run that the store's state implies, in order, but for permits.

    Appending them all heals whatever a crash between a store transition and its entry left out. ``view`` must have
    been read with its records: without them the history would have gaps nobody would notice.
    """
    known = sum(1 for number, _, _ in view.record_digests if number == run.run)
    if known < run.records:
        raise ValueError(
            f"session {view.offer.session_uid} was read without its records: {known} of {run.records} of run {run.run}"
        )
    bodies: list[EventBody] = []
    if run.runner is not None:
        bodies.append(run_claimed(view, run))
    if run.started_at is not None:
        bodies.append(run_started(view, run))
    bodies += [
        run_recorded(view, number, sequence, digest)
        for number, sequence, digest in view.record_digests
        if number == run.run
    ]
    if run.state is RunState.FINISHED:
        bodies.append(run_finished(view, run))
    elif run.state is RunState.LOST:
        bodies.append(run_lost(view, run))
    elif run.state is RunState.REVOKED:
        bodies.append(run_revoked(view, run))
    return tuple(bodies)


def principal_created(principal_id: str, document: bytes) -> EventBody:
    """First sight of a user: the name is only in the salted, erasable blob."""
    subject = EventSubject(kind="Principal", namespace="", name=principal_id, uid=principal_id)
    return EventBody(
        id=event_id("principal.created", principal_id, 0),
        type="principal.created",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=subject,
        blobs=(digest_of_bytes(document),),
    )


def principal_document(*, username: str, uid: str, salt: str) -> bytes:
    """The erasable blob behind a principal id."""
    return canonical_json({"username": username, "uid": uid, "salt": salt})


def blob_quarantined(digest: str, n: int) -> EventBody:
    """The ``n``-th time (from 1) that a stored blob was not what was stored."""
    return _blob_event("blob.quarantined", digest, n)


def blob_erased(digest: str, n: int) -> EventBody:
    """The ``n``-th time (from 1) that this blob was erased on purpose."""
    return _blob_event("blob.erased", digest, n)


def blobs_collected(manifest: bytes, count: int, octets: int) -> EventBody:
    """So many blobs of so many octets are about to be collected; ``manifest`` lists them (``collection_manifest``)."""
    digest = digest_of_bytes(manifest)
    uid = blob_uid(digest)
    return EventBody(
        id=event_id("blob.collected", uid, 1),
        type="blob.collected",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Blob", namespace="", name=uid, uid=uid),
        data={"count": count, "octets": octets},
        blobs=(digest,),
    )


def log_archived(
    origin: str, first: int, upto: int, root: str, size: int, staying: int, references: ReferencesFacts | None
) -> EventBody:
    """``log.archived/<install id>/<upto>``: entries ``first`` to ``upto - 1`` are about to leave the database.

    ``root`` is the RFC 6962 root of the first ``upto`` entries, in hex; ``size`` the entries of the signed checkpoint
    up to which the archive was verified; ``staying`` how many of these entries stay (``triplane.audit.types.STAYING``);
    ``references`` what the database keeps of all that archived entries name, where that is known.
    Where the archive is, is a path of somebody's machine, and not for the log.
    """
    host, _, install_id = origin.partition("/")
    kept = {} if references is None else {"references": references.count, "referencesHash": references.hash}
    return EventBody(
        id=event_id("log.archived", install_id, upto),
        type="log.archived",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Origin", namespace="", name=host, uid=install_id),
        data={"first": first, "upto": upto, "root": root, "checkpointSize": size, "staying": staying, **kept},
    )


def checkpoint_abandoned(log: str, n: int, origin: str, size: int, root: bytes) -> EventBody:
    """``checkpoint.abandoned/<install id>/<n>``: in the log of origin ``log`` the ``n``-th time that somebody gave up a
    signed checkpoint, of ``origin`` (this log's, or an earlier one's)."""
    host, _, install_id = log.partition("/")
    return EventBody(
        id=event_id("checkpoint.abandoned", install_id, n),
        type="checkpoint.abandoned",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Origin", namespace="", name=host, uid=install_id),
        data={"origin": origin, "size": size, "root": root.hex()},
    )


def collection_manifest(began: str, digests: Sequence[str]) -> bytes:
    """The blob behind ``blob.collected``: when the collector began, by the store's clock, and what it condemned."""
    return canonical_json({"began": began, "digests": list(digests)})


def blob_uid(digest: str) -> str:
    """The ``uid`` under which the log speaks of a blob: the digits of its digest."""
    return parse_digest(digest)


def _blob_event(kind: str, digest: str, n: int) -> EventBody:
    uid = blob_uid(digest)
    return EventBody(
        id=event_id(kind, uid, n),
        type=kind,
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Blob", namespace="", name=uid, uid=uid),
        data={"digest": digest},
    )


def _body(
    kind: str,
    offer: Offer,
    n: int,
    data: dict[str, Any],
    *,
    key: str | None = None,
    blobs: tuple[str, ...] = (),
) -> EventBody:
    return EventBody(
        id=event_id(kind, offer.session_uid, n, key),
        type=kind,
        stream=graph_stream(offer.graph_uid),
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="AgentSession", namespace=offer.namespace, name=offer.name, uid=offer.session_uid),
        data=data,
        blobs=blobs,
    )


def _word(reason: str) -> str:
    """Reasons are CamelCase words, prose may follow after a colon; prose is not for the log."""
    word = reason.partition(":")[0]
    return word if _WORD.fullmatch(word) else "Unspecified"
