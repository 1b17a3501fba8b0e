"""The calls of a run: start, renew, records, finish; and reading a session.

Each write changes the store first and appends the entry that the stored row implies; a repeat of any call appends what
a crash left out.
"""

import asyncio
from functools import partial
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Request, Response

from triplane.audit.digest import canonical_json, digest_of_bytes
from triplane.domain import events
from triplane.domain.journal import clean_json, number_records, times_off
from triplane.domain.session import LIVE_RUN_STATES, RunResult, RunState, RunView, SessionView
from triplane.errors import Conflict, IdReused, InvalidInput, NotFound, SequenceGap
from triplane.gateway.answers import json_answer, run_ended
from triplane.gateway.appending import ensure_recorded, record_news
from triplane.gateway.auth import CallerDep, live_run_of, require_person, require_run, run_of
from triplane.gateway.bodies import FinishBody, RecordsBody, RenewBody, StartBody, read_body
from triplane.gateway.config import RECORDS_LIMIT
from triplane.gateway.finish import judge
from triplane.gateway.journal import earlier_observations, note_observations, run_time
from triplane.gateway.people import Access
from triplane.gateway.state import GatewayDep
from triplane.gateway.views import session_document, session_or_404

router = APIRouter(prefix="/v1/sessions/{uid}")
_log = structlog.get_logger()
_BULKY: Final = 32 * 1024
"""Octets from which on a segment is cleaned in a thread."""
RunNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/runs/{run}/start")
async def start(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The harness process runs; ``facts`` is what the host measured."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, StartBody)
    view, now = await live_run_of(gateway, claim)
    facts = clean_json(body.facts)
    if now.state is RunState.STARTED:
        if canonical_json(now.facts) != canonical_json(facts):
            raise IdReused(f"run {run} of session {uid} was started with other facts; a run starts once")
    else:
        await gateway.backends.content.store(canonical_json(facts))
        await gateway.backends.sessions.start(uid, run, facts)
        view, now = await run_of(gateway, claim)
    if digest_of_bytes(events.facts_document(now)) != digest_of_bytes(canonical_json(facts)):
        raise IdReused(f"run {run} of session {uid} was started with other facts; a run starts once")
    await ensure_recorded(gateway.backends.log, [events.run_claimed(view, now), events.run_started(view, now)])
    return json_answer({"run": run, "startedAt": now.started_at})


@router.post("/runs/{run}/renew")
async def renew(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The host still works, and what was used so far. Answered for an ended run too: that is how the host learns of a
    revocation."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, RenewBody)
    try:
        reason = await gateway.backends.sessions.renew(uid, run, body.counter)
        if body.usage is not None and reason is None:
            await gateway.backends.sessions.report(uid, run, body.usage.usage())
    except (Conflict, NotFound):
        _, now = await run_of(gateway, claim)
        if now.state is RunState.FINISHED:
            raise run_ended(f"run {run} of session {uid} has finished") from None
        raise
    return json_answer({"revoked": reason})


@router.post("/runs/{run}/records")
async def records(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """One journal segment: cleaned, numbered, stored as a blob, noted, logged."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, RecordsBody, limit=RECORDS_LIMIT)
    view, now = await live_run_of(gateway, claim)
    if body.sequence > now.records + 1:
        expected = now.records + 1
        raise SequenceGap(
            f"run {run} of session {uid}: segment {body.sequence} came, {expected} is next; send that one",
            expected=expected,
        )
    first = run == 1 and now.records == 0
    seen = await earlier_observations(gateway, uid, (run, body.sequence), first=first)
    numbered = partial(number_records, uid, run, body.sequence, body.records, seen)
    segment = await asyncio.to_thread(numbered) if _is_bulky(request) else numbered()
    digest = await gateway.backends.content.store(segment.octets())
    held = body.held_milliseconds / 1000
    receipt = await gateway.backends.sessions.record(uid, run, body.sequence, digest, held_seconds=held)
    note_observations(gateway, segment)
    await record_news(gateway.backends.log, events.run_recorded(view, run, receipt.sequence, receipt.digest))
    answer = {"sequence": receipt.sequence, "digest": receipt.digest}
    if off := times_off(segment.records, *run_time(gateway, view, run)):
        answer["warning"] = f"{off} records say times outside of their run; readers see the server's time instead"
        _log.warning("the clock of a session host is off", session=uid, run=run, segment=body.sequence, records=off)
    return json_answer(answer)


@router.post("/runs/{run}/finish")
async def finish(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The run is over: judged, recorded once, logged. The same report again gets the same answer."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, FinishBody)
    view, now = await run_of(gateway, claim)
    if now.state not in LIVE_RUN_STATES | {RunState.FINISHED}:
        raise run_ended(f"run {run} of session {uid} is {now.state.value}; it cannot finish any more")
    result = await judge(gateway, view, now, body)
    await gateway.backends.sessions.finish(uid, run, result)
    view, now = await run_of(gateway, claim, records=True)
    await ensure_recorded(gateway.backends.log, events.run_history(view, now))
    gateway.observations.pop(uid, None)
    recorded = _recorded(view, now)
    _log.info("run finished", session=uid, run=run, outcome=recorded.outcome.value, reason=recorded.reason)
    return json_answer({"outcome": recorded.outcome.value, "reason": recorded.reason, "message": recorded.message})


@router.get("")
async def read_session(uid: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Offer and runs, for people."""
    view = await session_or_404(gateway, uid)
    access = Access("get", "agentsessions", view.offer.namespace, view.offer.name)
    await require_person(gateway, caller, access)
    return json_answer(session_document(view))


def _is_bulky(request: Request) -> bool:
    """Cleaning a full segment takes tenths of a second where a harness means it to: not on everybody's time."""
    length = request.headers.get("content-length", "")
    return not length.isdigit() or int(length) > _BULKY


def _recorded(view: SessionView, run: RunView) -> RunResult:
    if run.result is None:
        raise InvalidInput(f"run {run.run} of session {view.offer.session_uid} has no result")
    return run.result
