"""``AdmissionReview`` in, ``AdmissionReview`` out (Kubernetes API reference, ``admission.k8s.io/v1``).

Nothing is written, whatever the answer: a dry run is answered like the write itself.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError

from triplane.admission.checks import Checks
from triplane.api.node import NodeSpec
from triplane.api.task import TaskSpec
from triplane.api.text import REQUESTED_AT
from triplane.api.workflow import WorkflowSpec
from triplane.domain.admission import Violation, refusal, size_violations
from triplane.errors import InvalidInput, TriplaneError
from triplane.ports import Clock

PATIENCE_SECONDS: Final = 4.0
"""Less than the API server waits (5 s), so that our words arrive instead of its own."""
TOLERATED_SECONDS: Final = 60.0
"""How far a time in an annotation may be off before its author is told."""


def request_of(review: Any) -> Mapping[str, Any]:
    """The request of an AdmissionReview. Raises ``InvalidInput`` for anything else."""
    if (
        isinstance(review, Mapping)
        and review.get("apiVersion") == "admission.k8s.io/v1"
        and isinstance(request := review.get("request"), Mapping)
        and isinstance(request.get("uid"), str)
    ):
        return request
    raise InvalidInput("the body is not an AdmissionReview of admission.k8s.io/v1; only the API server calls this")


async def graph_response(checks: Checks, request: Mapping[str, Any]) -> dict[str, Any]:
    """Allowed, or refused with everything that is wrong. What cannot be told now is refused too (503)."""
    # A name made of `generateName` stands in the object alone.
    name = str(((request.get("object") or {}).get("metadata") or {}).get("name") or request.get("name") or "")
    kind, namespace = _kind(request), str(request.get("namespace") or "")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            violations = await _violations(checks, kind, namespace, name, request)
    except TimeoutError:
        said = f"checking {kind} {name} took more than {PATIENCE_SECONDS:g} s; write simpler conditions, or try again"
        return _answer(request, {"status": "Failure", "code": 503, "reason": "ServiceUnavailable", "message": said})
    except TriplaneError as error:
        said = f"{kind} {name} cannot be checked now: {error}; try again"
        return _answer(request, {"status": "Failure", "code": 503, "reason": "ServiceUnavailable", "message": said})
    return _answer(request, refusal(kind, name, violations) if violations else None)


def clock_response(clock: Clock, request: Mapping[str, Any]) -> dict[str, Any]:
    """Always allowed; warns when ``triplane.dev/requestedAt`` is a time far from ours."""
    annotations = ((request.get("object") or {}).get("metadata") or {}).get("annotations") or {}
    said, now = str(annotations.get(REQUESTED_AT, "")), clock.now()
    try:
        given = datetime.fromisoformat(said)
    except ValueError:
        given = None
    answer = _answer(request, None)
    if given is not None and (given.tzinfo is None or abs((now - given).total_seconds()) > TOLERATED_SECONDS):
        answer["response"]["warnings"] = [
            f"annotation {REQUESTED_AT} says {said[:40]}, the server's time is {now.isoformat(timespec='seconds')}: "
            "it asks for a look now, nothing is done at that time"
        ]
    return answer


async def _violations(
    checks: Checks, kind: str, namespace: str, name: str, request: Mapping[str, Any]
) -> Sequence[Violation]:
    spec = (request.get("object") or {}).get("spec")
    if oversize := list(size_violations(len(orjson.dumps(spec)))):
        return oversize
    try:
        match kind:
            case "Task":
                return await checks.task(namespace, name, TaskSpec.model_validate(spec))
            case "Workflow":
                return await checks.workflow(WorkflowSpec.model_validate(spec))
            case "Node":
                return await checks.node(namespace, name, NodeSpec.model_validate(spec))
    except ValidationError as error:
        # The schema of the API server comes first: what passes it and not this belongs to another release.
        return [
            Violation(".".join(["spec", *map(str, item["loc"])]), f"{item['msg']} (an object of another release?)")
            for item in error.errors(include_url=False, include_input=False)
        ]
    return []


def _kind(request: Mapping[str, Any]) -> str:
    return str((request.get("kind") or {}).get("kind") or "")


def _answer(request: Mapping[str, Any], status: Mapping[str, Any] | None) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": request["uid"], "allowed": status is None}
    if status is not None:
        response["status"] = dict(status)
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
