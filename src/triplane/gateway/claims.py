"""Runners: hello, and the long poll for work.

A claim is handed out only when its entry is in the log. If that fails, or the runner has gone away meanwhile, the
claim waits here for the same instance; if this process dies too, the lease runs out and the run is lost and retried.
"""

import asyncio
from typing import Any, Final

import structlog
from fastapi import APIRouter, Request, Response

from triplane.audit.model import EventBody
from triplane.domain import events
from triplane.domain.runorder import order_of_run
from triplane.domain.session import LIVE_RUN_STATES, Claim, Offer, RunState, SessionView
from triplane.domain.trace import trace_id
from triplane.errors import Unavailable
from triplane.gateway.answers import json_answer
from triplane.gateway.appending import ensure_recorded, record_news
from triplane.gateway.auth import CallerDep, require_service
from triplane.gateway.bell import wait_for_any
from triplane.gateway.bodies import ClaimBody, HelloBody, read_body
from triplane.gateway.config import MAX_WAIT_SECONDS
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1")
_log = structlog.get_logger()
_LOOK_SECONDS: Final = 2.0
"""How often a long poll looks without having been woken."""
_PAUSE_SECONDS: Final = 0.01
"""Least time between two looks of one poll: a storm of rings must not become a storm of transactions."""


@router.post("/runners/{runner}/hello")
async def hello(runner: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """A new runner process: live runs of its earlier instances are lost."""
    require_service(caller, "runner")
    body = await read_body(request, HelloBody)
    sessions = gateway.backends.sessions
    lost = set(await sessions.lose_instances(runner, body.instance))
    # Also those an earlier hello lost and could not log: the answer is the same each time it is asked.
    lost |= {
        (last.session_uid, last.run)
        for last in await sessions.open_sessions()
        if last.runner == runner and last.instance != body.instance and last.state is RunState.LOST
    }
    views = await sessions.get_many(sorted({uid for uid, _ in lost}), records=True)
    bodies: list[EventBody] = []
    for uid, number in sorted(lost):
        bodies += events.run_history(views[uid], views[uid].runs[number - 1])
    await ensure_recorded(gateway.backends.log, bodies)
    for known in [key for key in gateway.undelivered if key[0] == runner and key[1] != body.instance]:
        del gateway.undelivered[known]
    _log.info("runner said hello", runner=runner, instance=body.instance, lost=len(lost))
    return json_answer({"lost": [list(pair) for pair in sorted(lost)]})


@router.post("/claims")
async def claims(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """One run to do, or 204 when there is none within ``waitSeconds`` (at most 30)."""
    require_service(caller, "runner")
    body = await read_body(request, ClaimBody)
    deadline = gateway.clock.monotonic() + min(body.wait_seconds, MAX_WAIT_SECONDS)
    while True:
        rung = gateway.bell.subscribe()
        claim = await _take(gateway, body.runner, body.instance)
        if claim is not None:
            return await _deliver(gateway, request, claim)
        remaining = deadline - gateway.clock.monotonic()
        if remaining <= 0 or gateway.stopping.is_set() or await request.is_disconnected():
            return Response(status_code=204)
        await asyncio.sleep(_PAUSE_SECONDS)
        await wait_for_any(min(remaining, _LOOK_SECONDS), rung, gateway.stopping)
        if await request.is_disconnected():
            return Response(status_code=204)


async def _take(gateway: Gateway, runner: str, instance: str) -> Claim | None:
    """A claim left over for this instance while it still lives, else a new one."""
    waiting = gateway.undelivered.get((runner, instance), [])
    while waiting:
        claim = waiting.pop(0)
        view = await gateway.backends.sessions.get(claim.session_uid)
        if view is not None and view.runs[claim.run - 1].state in LIVE_RUN_STATES:
            return claim
    gateway.undelivered.pop((runner, instance), None)
    return await gateway.backends.sessions.claim(runner, instance)


async def _deliver(gateway: Gateway, request: Request, claim: Claim) -> Response:
    """Log the claim, then answer with the token; the store's transition has been made already."""
    try:
        view = await gateway.backends.sessions.get(claim.session_uid)
        if view is None:
            raise Unavailable(f"session {claim.session_uid} was claimed but cannot be read; try again")
        await record_news(gateway.backends.log, events.run_claimed(view, view.runs[claim.run - 1]))
        gone = await request.is_disconnected()
    except BaseException:
        _keep(gateway, claim)
        raise
    if gone:
        _keep(gateway, claim)
        return Response(status_code=204)
    trace = trace_id(claim.task_uid)
    _log.info("run claimed", session=claim.session_uid, run=claim.run, runner=claim.runner, trace_id=trace)
    return json_answer(_document(gateway, claim, view))


def _keep(gateway: Gateway, claim: Claim) -> None:
    gateway.undelivered.setdefault((claim.runner, claim.instance), []).append(claim)


def _document(gateway: Gateway, claim: Claim, view: SessionView) -> dict[str, Any]:
    offer: Offer = view.offer
    issued_at = int(gateway.clock.now().timestamp())
    return {
        "sessionUid": claim.session_uid,
        "namespace": claim.namespace,
        "name": claim.name,
        "run": claim.run,
        "role": claim.role,
        "taskUid": claim.task_uid,
        "agentName": claim.agent_name,
        "runToken": gateway.tokens.mint(claim.session_uid, claim.run, issued_at=issued_at),
        "leaseSeconds": gateway.config.lease_seconds,
        "workOrder": order_of_run(offer, claim.run, claim.run_inputs),
    }
