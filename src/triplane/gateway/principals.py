"""Principals: the random id that stands for a user in the log. The name is in an erasable blob."""

from fastapi import APIRouter, Request, Response

from triplane.domain import events
from triplane.gateway.answers import json_answer
from triplane.gateway.appending import ensure_recorded
from triplane.gateway.auth import CallerDep, require_service
from triplane.gateway.bodies import PrincipalBody, read_body
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1")


@router.post("/principals")
async def principals(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The id of this user; first sight stores the blob and appends ``principal.created``.

    The blob is not stored again once the entry is there: it may have been erased on purpose.
    """
    require_service(caller, "operator")
    body = await read_body(request, PrincipalBody)
    return json_answer({"id": await principal_of(gateway, body.username, body.uid)})


async def principal_of(gateway: Gateway, username: str, uid: str) -> str:
    """The id that stands for this user in the log; at first sight it is logged."""
    row = await gateway.backends.accounts.principal(username, uid)
    document = events.principal_document(username=row.username, uid=row.uid, salt=row.salt)
    created = events.principal_created(row.id, document)
    if await gateway.backends.log.get(created.id) is None:
        await gateway.backends.content.store(document)
        await ensure_recorded(gateway.backends.log, [created])
    return row.id
