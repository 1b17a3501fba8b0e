"""Who calls: a run, a service, or a person; and what each may do here.

The kind of token is plain from its form: ours start with ``trp1.``, service tokens are known by their hash, and
everything else is a Kubernetes token of a person, for the API server to judge.
"""

import hashlib
from typing import Annotated, Final, Literal

import structlog
from fastapi import Depends, Request

from triplane.domain.session import LIVE_RUN_STATES, RunView, SessionView
from triplane.domain.trace import trace_id
from triplane.errors import Forbidden
from triplane.gateway.answers import run_ended, unauthorized
from triplane.gateway.people import Access, Person
from triplane.gateway.services import ServiceCaller
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.tokens import PREFIX, RunClaim

Caller = RunClaim | ServiceCaller | Person
Role = Literal["operator", "runner", "admission"]
SERVICE_SECONDS: Final = 5.0
"""How long a replaced service token is still taken."""


async def authenticate(request: Request, gateway: GatewayDep) -> Caller:
    """The caller of this request; 401 when the token is missing or unknown, 503 when nobody can tell now."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("send Authorization: Bearer and a token")
    if token.startswith(PREFIX):
        claim = gateway.tokens.verify(token)
        if claim is None:
            raise unauthorized("this run token was not signed by this gateway, or its key was rotated out")
        return claim
    service = await _service(gateway, hashlib.sha256(token.encode()).hexdigest())
    if service is not None:
        return service
    person = await gateway.people.review(token)
    if person is None:
        raise unauthorized("neither this gateway nor the API server knows this token; log in again")
    return person


async def _service(gateway: Gateway, token_hash: str) -> ServiceCaller | None:
    """Whose service token this is. The answer is kept for a few seconds, as that about people is for longer."""
    now = gateway.clock.monotonic()
    kept = gateway.services.get(token_hash)
    if kept is not None and now < kept[0]:
        return kept[1]
    known = await gateway.backends.accounts.token_role(token_hash)
    if known is None:  # not kept: anybody may send any number of these
        gateway.services.pop(token_hash, None)
        return None
    service = ServiceCaller(*known)
    gateway.services[token_hash] = (now + SERVICE_SECONDS, service)
    return service


CallerDep = Annotated[Caller, Depends(authenticate)]


def require_service(caller: Caller, role: Role) -> ServiceCaller:
    """The caller is this service, or 403."""
    if isinstance(caller, ServiceCaller) and caller.role == role:
        return caller
    raise Forbidden(f"only the {role} may call this; {describe(caller)} may not")


def person(caller: Caller) -> Person:
    """The caller is a person, or 403."""
    if not isinstance(caller, Person):
        raise Forbidden(f"this is for people; {describe(caller)} may not call it")
    return caller


async def require_person(gateway: Gateway, caller: Caller, access: Access) -> Person:
    """The caller is a person whom the API server grants this access, or 403."""
    found = person(caller)
    await gateway.people.require(found, access)
    return found


async def require_person_or_operator(gateway: Gateway, caller: Caller, access: Access) -> None:
    """The operator, or a person with this access."""
    if isinstance(caller, ServiceCaller):
        require_service(caller, "operator")
    else:
        await require_person(gateway, caller, access)


async def require_admin(gateway: Gateway, caller: Caller) -> None:
    """The operator, or a person who may delete Artifacts in all namespaces: whoever keeps the content store."""
    await require_person_or_operator(gateway, caller, Access("delete", "artifacts"))


def require_run(caller: Caller, session_uid: str, run: int) -> RunClaim:
    """The caller is exactly this run, or 403."""
    if isinstance(caller, RunClaim) and (caller.session_uid, caller.run) == (session_uid, run):
        return caller
    raise Forbidden(f"only run {run} of session {session_uid} may call this; {describe(caller)} may not")


async def run_of(gateway: Gateway, claim: RunClaim, *, records: bool = False) -> tuple[SessionView, RunView]:
    """The session (with its records, where asked for) and run a genuine token speaks for, whatever its state; 401
    if the store has none."""
    view = await gateway.backends.sessions.get(claim.session_uid, records=records)
    run = next((run for run in view.runs if run.run == claim.run), None) if view is not None else None
    if view is None or run is None:
        raise unauthorized(f"run {claim.run} of session {claim.session_uid} is not known here")
    structlog.contextvars.bind_contextvars(trace_id=trace_id(view.offer.task_uid))  # of this request alone
    return view, run


async def live_run_of(gateway: Gateway, claim: RunClaim) -> tuple[SessionView, RunView]:
    """As ``run_of``, for calls that only a live run may make: a run token dies with its run."""
    view, run = await run_of(gateway, claim)
    if run.state not in LIVE_RUN_STATES:
        raise run_ended(
            f"run {run.run} of session {claim.session_uid} is {run.state.value}; its token is no longer valid"
        )
    return view, run


def describe(caller: Caller) -> str:
    """The caller in words, for messages."""
    match caller:
        case RunClaim():
            return f"run {caller.run} of session {caller.session_uid}"
        case ServiceCaller():
            return f"service {caller.name} ({caller.role})"
        case Person():
            return f"user {caller.username}"
