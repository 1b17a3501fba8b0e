"""Secrets for a run: the gateway reads them for it, with nobody's rights but those of who asked for the work.

Steps, each of which may refuse:

1. the caller is that run, and it is live;
2. the Secret is in the work order that was frozen, and within the authority frozen beside it;
3. the run's Task is still there, and the user whom admission stamped on it (or its Node) may ``get`` the Secret *now*
   (SubjectAccessReview, never kept): nobody borrows the rights of operator or gateway by writing a Task;
4. the gateway's own account may ``get`` it: an administrator has bound a Role to it in that namespace
   (docs/how-to/give-a-run-a-secret.md). It may list none.

Values are in the answer alone: not in a log, a message, a store.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi import APIRouter, Response
from pydantic import ValidationError

from triplane.api.authority import SecretKey, SecretUse
from triplane.api.text import API_VERSION, REQUESTER
from triplane.api.tool import ExecTool, ToolSpec
from triplane.domain.pattern import any_fits
from triplane.domain.runorder import order_of_run
from triplane.domain.session import Offer
from triplane.gateway.answers import Refusal, json_answer
from triplane.gateway.auth import CallerDep, live_run_of, require_run
from triplane.gateway.people import Subject
from triplane.gateway.sessions import RunNumber
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1/sessions/{uid}")
_log = structlog.get_logger()
MAX_VALUE: Final = 64 * 1024
"""Octets of one value: it becomes an environment variable."""
_ACCOUNTS: Final = "system:serviceaccount:"
_NOTHING: Final = ExecTool(program="none")


@router.get("/runs/{run}/secrets")
async def secrets(uid: str, run: RunNumber, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The values this run's work order names, for the harness and for each of its Tools. 422 ``SecretForbidden`` or
    ``SecretUnavailable`` names the first that it does not get, and who can change that; then it gets none."""
    claim = require_run(caller, uid, run)
    view, now = await live_run_of(gateway, claim)
    order = order_of_run(view.offer, run, now.run_inputs)
    uses = _uses(order)
    for _, use in uses:
        _within_authority(use, order)
    subject = await _requester(gateway, view.offer) if uses else None
    objects: dict[str, Mapping[str, Any]] = {}
    given: dict[str | None, list[dict[str, Any]]] = {None: []}
    for tool, use in uses:
        if use.name not in objects:
            assert subject is not None
            objects[use.name] = await _secret(gateway, view.offer.namespace, use.name, subject)
        given.setdefault(tool, []).append(_answer(use, objects[use.name], view.offer.namespace))
    # Again: a run that was ended while we asked gets nothing.
    await live_run_of(gateway, claim)
    if uses:
        _log.info("secrets given to a run", session=uid, run=run, secrets=sorted(objects))
    own = given.pop(None)
    return json_answer({"secrets": own, "tools": given}, headers={"Cache-Control": "no-store"})


def forbidden(message: str) -> Refusal:
    """Somebody may not use the Secret."""
    return Refusal(422, "SecretForbidden", message)


def unavailable(message: str) -> Refusal:
    """The Secret is not there, or not as it must be."""
    return Refusal(422, "SecretUnavailable", message)


def _uses(order: Mapping[str, Any]) -> list[tuple[str | None, SecretKey]]:
    """What the harness (None) and each Tool by name is to be given."""
    try:
        uses: list[tuple[str | None, SecretKey]] = [
            (None, SecretUse.model_validate(item)) for item in order.get("secrets") or ()
        ]
        for tool in order.get("tools") or ():
            spec = ToolSpec.model_validate(tool["spec"])
            wanted: list[SecretKey] = [*((spec.stdio or spec.exec_ or _NOTHING).secrets or ())]
            if spec.http is not None and spec.http.token is not None:
                wanted.append(spec.http.token)
            uses += [(tool["name"], use) for use in wanted]
    except ValidationError as error:
        raise unavailable(f"the work order names a secret that none can be: {error.errors()[0]['msg']}") from error
    return uses


def _within_authority(use: SecretKey, order: Mapping[str, Any]) -> None:
    granted = (order.get("authority") or {}).get("secrets") or []
    if not any_fits(granted, use.name):
        raise forbidden(
            f"secret {use.name} is not within the authority of this session. Limit of axis secrets: "
            f"{', '.join(granted) or 'none'}. Whoever sets the authority of the Task, its Node, Graph or Agent may "
            "grant it"
        )


async def _requester(gateway: Gateway, offer: Offer) -> Subject:
    """Whose rights count: who made the Task, or the Node it is a step of. Admission wrote both, and neither changes."""
    name = (offer.work_order.get("task") or {}).get("name", "")
    task = await gateway.people.read(f"/apis/{API_VERSION}/namespaces/{offer.namespace}/tasks/{name}")
    if task is None or task["metadata"]["uid"] != offer.task_uid or task["metadata"].get("deletionTimestamp"):
        raise unavailable(f"Task {offer.namespace}/{name} of this session is gone, and with it whose right it was")
    metadata, spec = task["metadata"], task.get("spec") or {}
    username = spec.get("onBehalfOf") or (metadata.get("annotations") or {}).get(REQUESTER)
    if not username:
        raise forbidden(f"nobody is stamped on Task {offer.namespace}/{name}: make it anew, with admission at work")
    return Subject(username, groups_of(username))


def groups_of(username: str) -> tuple[str, ...]:
    """The groups that follow from the name alone. What else a person is in was known only when they asked, so a right
    that rests on such a group does not count."""
    if username.startswith(_ACCOUNTS) and username.count(":") == 3:
        namespace = username.removeprefix(_ACCOUNTS).partition(":")[0]
        return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return ("system:authenticated",)


async def _secret(gateway: Gateway, namespace: str, name: str, subject: Subject) -> Mapping[str, Any]:
    if not await gateway.people.may(subject, verb="get", resource="secrets", namespace=namespace, name=name):
        raise forbidden(
            f"user {subject.username}, who made the Task, may not get Secret {namespace}/{name}: give them that right "
            "(Role with verb get on secrets of that name), or let somebody who has it make the Task"
        )
    try:
        found = await gateway.people.read(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except Refusal as error:
        raise forbidden(
            f"the gateway's account may not get Secret {namespace}/{name}: an administrator binds it a Role with verb "
            "get on secrets of that name, in that namespace (docs/how-to/give-a-run-a-secret.md)"
        ) from error
    if found is None:
        raise unavailable(f"Secret {namespace}/{name} does not exist: create it, or correct spec.secrets of the Task")
    return found


def _answer(use: SecretKey, found: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """One value with what is recorded of it. Its octets must be text: an environment variable holds nothing else."""
    place = f"key {use.key} of Secret {namespace}/{use.name}"
    encoded = (found.get("data") or {}).get(use.key)
    if encoded is None:
        raise unavailable(f"{place} does not exist: add it, or correct spec.secrets of the Task")
    try:
        value = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise unavailable(f"{place} is not UTF-8 text, so no environment variable can hold it") from error
    if "\0" in value or len(value.encode()) > MAX_VALUE:
        raise unavailable(f"{place} holds NUL or more than {MAX_VALUE} octets: no environment variable can hold it")
    return {
        **use.wire(),
        "value": value,
        "uid": found["metadata"]["uid"],
        "resourceVersion": found["metadata"]["resourceVersion"],
    }
