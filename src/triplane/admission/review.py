"""``AdmissionReview`` in, ``AdmissionReview`` out (Kubernetes API reference, ``admission.k8s.io/v1``).

All layers judge one request side by side, and one answer says everything that is wrong with it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError

from triplane.admission.asked import Asked, Check, OneView, Outcome, Reads
from triplane.api.policy import Operation
from triplane.api.text import REQUESTED_AT
from triplane.domain.admission import Violation, refusal, size_violations
from triplane.errors import InvalidInput, TriplaneError
from triplane.ports import Clock

PATIENCE_SECONDS: Final = 4.0
"""Less than the API server waits (5 s), so that our words arrive instead of its own."""
TOLERATED_SECONDS: Final = 60.0
"""How far a time in an annotation may be off before its author is told."""
MAX_WARNINGS: Final = 20
MAX_WARNING: Final = 250
"""Characters of one warning; the API server cuts longer ones itself when all together are too many."""


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


def asked_of(request: Mapping[str, Any]) -> Asked:
    """What the request is about. Raises ``InvalidInput`` when it is no CREATE or UPDATE of an object."""
    obj, old = request.get("object"), request.get("oldObject")
    operation = request.get("operation")
    if not isinstance(obj, Mapping) or operation not in tuple(Operation):
        raise InvalidInput(f"a webhook for CREATE and UPDATE of objects was asked about {operation!r}")
    # A name made of `generateName` stands in the object alone.
    name = str((obj.get("metadata") or {}).get("name") or request.get("name") or "")
    return Asked(
        uid=str(request["uid"]),
        operation=Operation(operation),
        kind=str((request.get("kind") or {}).get("kind") or ""),
        namespace=str(request.get("namespace") or ""),
        name=name,
        object=obj,
        old=old if isinstance(old, Mapping) else None,
        user=request.get("userInfo") or {},
        dry_run=request.get("dryRun") is True,
    )


async def answer_to(asked: Asked, checks: Sequence[Check], reads: Reads) -> dict[str, Any]:
    """Allowed, or refused with everything that is wrong. What cannot be told now is refused too (503)."""
    if oversize := tuple(size_violations(len(orjson.dumps(asked.object.get("spec"))))):
        return _answer(asked.uid, refusal(asked.kind, asked.name, oversize))
    view = OneView(reads)
    judging = [asyncio.create_task(_judged(check, asked, view)) for check in checks]
    try:
        done, late = await asyncio.wait(judging, timeout=PATIENCE_SECONDS)
    finally:
        for task in judging:
            task.cancel()
        await view.close()
    outcomes = [task.result() for task in judging if task in done]
    said = [each for each in outcomes if isinstance(each, Outcome)]
    violations = [violation for each in said for violation in each.violations]
    if violations:
        answer = _answer(asked.uid, refusal(asked.kind, asked.name, violations))
    elif failed := [each for each in outcomes if not isinstance(each, Outcome)]:
        answer = _unavailable(asked, f"cannot be checked now: {failed[0]}; try again")
    elif late:
        took = f"was not checked within {PATIENCE_SECONDS:g} s"
        answer = _unavailable(asked, f"{took}; write simpler conditions, or try again")
    else:
        answer = _answer(asked.uid, None)
    return _with(answer, said)


def clock_response(clock: Clock, request: Mapping[str, Any]) -> dict[str, Any]:
    """Always allowed; warns when ``triplane.dev/requestedAt`` is a time far from ours."""
    annotations = ((request.get("object") or {}).get("metadata") or {}).get("annotations") or {}
    said, now = str(annotations.get(REQUESTED_AT, "")), clock.now()
    try:
        given = datetime.fromisoformat(said)
    except ValueError:
        given = None
    answer = _answer(request["uid"], None)
    if given is not None and (given.tzinfo is None or abs((now - given).total_seconds()) > TOLERATED_SECONDS):
        answer["response"]["warnings"] = [
            f"annotation {REQUESTED_AT} says {said[:40]}, the server's time is {now.isoformat(timespec='seconds')}: "
            "it asks for a look now, nothing is done at that time"
        ]
    return answer


def probe_response(request: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """The refusal by which an installer knows that the API server uses the configuration with this ``mark``."""
    status = {"status": "Failure", "code": 422, "reason": "Invalid", "message": f"configuration {mark} is in force"}
    return _answer(str(request["uid"]), status)


async def _judged(check: Check, asked: Asked, reads: Reads) -> Outcome | TriplaneError:
    try:
        return await check(asked, reads)
    except ValidationError as error:
        # The schema of the API server comes first: what passes it and not this belongs to another release.
        return Outcome(
            tuple(
                Violation(".".join(["spec", *map(str, item["loc"])]), f"{item['msg']} (an object of another release?)")
                for item in error.errors(include_url=False, include_input=False)
            )
        )
    except TriplaneError as error:
        return error


def _unavailable(asked: Asked, said: str) -> dict[str, Any]:
    message = f"{asked.kind} {asked.name} {said}"
    status = {"status": "Failure", "code": 503, "reason": "ServiceUnavailable", "message": message}
    return _answer(asked.uid, status)


def _with(answer: dict[str, Any], said: Sequence[Outcome]) -> dict[str, Any]:
    """With the warnings and audit annotations of all layers."""
    warnings = [warning[:MAX_WARNING] for each in said for warning in each.warnings]
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS - 1 :] = [f"and {len(warnings) - MAX_WARNINGS + 1} more warnings"]
    if warnings:
        answer["response"]["warnings"] = warnings
    if audit := {key: text for each in said for key, text in each.audit.items()}:
        answer["response"]["auditAnnotations"] = audit
    return answer


def _answer(uid: str, status: Mapping[str, Any] | None) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": status is None}
    if status is not None:
        response["status"] = dict(status)
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
