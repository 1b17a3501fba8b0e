"""Contracts of inputs, for the operator: the contents are here, and so are the workers that can be killed."""

from fastapi import APIRouter, Request, Response

from triplane.audit.digest import parse_digest
from triplane.domain.runresult import DeclaredOutput
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_service
from triplane.gateway.bodies import ContractBody, read_body
from triplane.gateway.contracts import ContractChecks
from triplane.gateway.state import GatewayDep

router = APIRouter(prefix="/v1")


@router.post("/contracts")
async def contracts(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """``{problem}``: how a stored blob breaks its media type or schema; null when it meets them."""
    require_service(caller, "operator")
    body = await read_body(request, ContractBody)
    parse_digest(body.digest)
    asked = DeclaredOutput("input", "input", body.media_type, body.schema_)
    content, seconds = gateway.backends.content, gateway.config.contract_seconds
    async with ContractChecks(content, seconds, gateway.workers) as checks:
        found = await checks.check(asked, body.digest)
    # What looks like a secret is refused where it is produced; an input may hold what it must hold.
    return json_answer({"problem": found.problem if found.reason == "ContractNotMet" else None})
