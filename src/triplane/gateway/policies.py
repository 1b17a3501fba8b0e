"""Violations of Policies that the admission webhook saw: told here to be logged, for it can write nothing itself."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from triplane.api.policy import Enforcement, Operation, Stage
from triplane.domain.policy_log import Seen
from triplane.gateway.answers import json_answer
from triplane.gateway.appending import ensure_recorded
from triplane.gateway.auth import CallerDep, require_service
from triplane.gateway.bodies import Body, Word, read_body
from triplane.gateway.principals import principal_of
from triplane.gateway.state import GatewayDep

router = APIRouter(prefix="/v1/policies")
_LIMIT: Final = 64 * 2**20
"""Octets of one call: each violation carries the spec it was seen on."""
_Name = Annotated[str, Field(min_length=1, max_length=253)]


class ViolationBody(Body):
    policy: _Name
    policy_namespace: _Name
    policy_uid: Word
    policy_generation: Annotated[int, Field(ge=1)]
    enforcement: Annotated[Enforcement, Field(strict=False)]
    stage: Annotated[Stage, Field(strict=False)]
    operation: Annotated[Operation, Field(strict=False)]
    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$")]
    namespace: _Name
    name: Annotated[str, Field(max_length=253)]
    rule: Annotated[str, Field(min_length=1, max_length=128)]
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,63}$")]
    message: Annotated[str, Field(max_length=1024)]
    spec: dict[str, Any]
    username: Annotated[str, Field(max_length=1024)] = ""
    user_uid: Annotated[str, Field(max_length=1024)] = ""

    def seen(self) -> Seen:
        """Without who it was: that is the entry's actor."""
        return Seen(**self.model_dump(exclude={"username", "user_uid"}))


class ViolationsBody(Body):
    violations: Annotated[list[ViolationBody], Field(max_length=100)]


@router.post("/violations")
async def violations(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Log them, for the admission webhook; what is logged already stands. Answers how many were told."""
    require_service(caller, "admission")
    body = await read_body(request, ViolationsBody, limit=_LIMIT)
    entries = []
    for each in body.violations:
        actor = await principal_of(gateway, each.username, each.user_uid) if each.username else "system"
        told = each.seen()
        for octets in told.documents().values():
            await gateway.backends.content.store(octets)
        entries.append(told.entry(actor))
    unique = {entry.id: entry for entry in entries}
    await ensure_recorded(gateway.backends.log, list(unique.values()))
    return json_answer({"recorded": len(unique)})
