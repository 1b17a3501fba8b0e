"""The operator's public keys over HTTP: whom signatures are checked against, for whoever may log in."""

from fastapi import APIRouter, Response

from triplane.audit.keys import KEY_EVENTS, TrustBundle, keys_of
from triplane.audit.model import EventFilter
from triplane.errors import Forbidden
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, describe
from triplane.gateway.people import Person
from triplane.gateway.state import GatewayDep

router = APIRouter(prefix="/v1")

_MOST = 10_000


@router.get("/keys")
async def keys(gateway: GatewayDep, caller: CallerDep) -> Response:
    """A trust bundle (docs/reference/attestations.md): public keys are no secret, so any person may read them."""
    if not isinstance(caller, Person):
        raise Forbidden(f"this is for people; {describe(caller)} may not call it")
    log = gateway.backends.log
    entries = await log.query(EventFilter(types=KEY_EVENTS), limit=_MOST)
    return json_answer(TrustBundle(log.origin, keys_of(entries)).wire())
