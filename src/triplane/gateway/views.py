"""Sessions and resources as JSON, for people to read."""

from typing import Any

from triplane.domain.session import RunView, SessionView
from triplane.errors import NotFound
from triplane.gateway.state import Gateway
from triplane.ports import ResourceRecord


async def session_or_404(gateway: Gateway, uid: str) -> SessionView:
    """The session with its records; raises ``NotFound``."""
    view = await gateway.backends.sessions.get(uid, records=True)
    if view is None:
        raise NotFound(f"no session {uid[:128]!r}; `kubectl get agentsessions -o wide` lists them by UID")
    return view


def session_document(view: SessionView) -> dict[str, Any]:
    """``GET /v1/sessions/{uid}``."""
    offer = view.offer
    return {
        "sessionUid": offer.session_uid,
        "namespace": offer.namespace,
        "name": offer.name,
        "taskUid": offer.task_uid,
        "graphUid": offer.graph_uid,
        "agentUid": offer.agent_uid,
        "agentName": offer.agent_name,
        "role": offer.role,
        "snapshotDigest": offer.snapshot_digest,
        "workOrder": dict(offer.work_order),
        "revoked": view.revoked,
        "closed": view.closed,
        "segments": [
            {"run": run, "sequence": sequence, "digest": digest} for run, sequence, digest in view.record_digests
        ],
        "runs": [_run_document(run) for run in view.runs],
    }


def _run_document(run: RunView) -> dict[str, Any]:
    result = run.result
    return {
        "run": run.run,
        "state": run.state.value,
        "permit": run.permit_counter,
        "permitExpired": run.permit_expired,
        "runner": run.runner,
        "instance": run.instance,
        "counter": run.counter,
        "records": run.records,
        "runInputs": dict(run.run_inputs),
        "facts": dict(run.facts),
        "endReason": run.end_reason,
        "claimedAt": run.claimed_at,
        "startedAt": run.started_at,
        "endedAt": run.ended_at,
        "result": None
        if result is None
        else {
            "outcome": result.outcome.value,
            "reason": result.reason,
            "message": result.message,
            "exitCode": result.exit_code,
            "reflection": result.reflection,
            "outputs": [
                {
                    "name": item.name,
                    "path": item.path,
                    "digest": item.digest,
                    "mediaType": item.media_type,
                    "size": item.size,
                }
                for item in result.outputs
            ],
            "usage": {
                "inputTokens": result.usage.input_tokens,
                "outputTokens": result.usage.output_tokens,
                "costMinorUnits": result.usage.cost_minor_units,
            },
        },
    }


def resource_document(record: ResourceRecord) -> dict[str, Any]:
    """One element of ``GET /v1/resources``."""
    return {
        "uid": record.uid,
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "generation": record.generation,
        "labels": dict(record.labels),
        "spec": dict(record.spec),
        "requester": record.requester,
        "seq": record.seq,
        "gone": record.gone,
    }
