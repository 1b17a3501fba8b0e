"""Reading journals: for people as NDJSON, and for ourselves to know which observations were already recorded."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from triplane.domain.journal import Segment, on_the_servers_clock, read_segment, record_position
from triplane.domain.session import LIVE_RUN_STATES, RunState, SessionView
from triplane.errors import Corrupt
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.bell import wait_for_any
from triplane.gateway.people import Access
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.views import session_or_404
from triplane.ports import ContentStore

router = APIRouter(prefix="/v1/sessions/{uid}")
_LOOK_SECONDS = 2.0
_MAX_SESSIONS = 1000


@router.get("/journal")
async def journal(
    uid: str,
    gateway: GatewayDep,
    caller: CallerDep,
    run: Annotated[int | None, Query(ge=1)] = None,
    after: str | None = None,
    follow: bool = False,
) -> Response:
    """NDJSON of the records after record id ``after``; with ``follow`` until the session (or ``run``) is over."""
    view = await session_or_404(gateway, uid)
    access = Access("get", "agentsessions", view.offer.namespace, view.offer.name)
    await require_person(gateway, caller, access)
    start = record_position(after) if after else (0, 0, 0)
    lines = _lines(gateway, view, run, start, follow)
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _lines(
    gateway: Gateway, view: SessionView, run: int | None, after: tuple[int, int, int], follow: bool
) -> AsyncIterator[bytes]:
    while True:
        rung = gateway.bell.subscribe()
        for segment in _wanted(view, run, after[:2]):
            for record in (await _segment(gateway.backends.content, view, *segment)).records:
                position = record_position(record.id)
                if position > after:
                    shown = on_the_servers_clock(record, *run_time(gateway, view, segment[0]))
                    yield orjson.dumps(shown.wire()) + b"\n"
                    after = position
            after = max(after, (segment[0], segment[1], 0))
        if not follow or _over(view, run) or gateway.stopping.is_set():
            return
        await wait_for_any(_LOOK_SECONDS, rung, gateway.stopping)
        view = await session_or_404(gateway, view.offer.session_uid)


def run_time(gateway: Gateway, view: SessionView, run: int) -> tuple[datetime, datetime]:
    """From its claim to its end, or to now, by the server's clock."""
    found = next((item for item in view.runs if item.run == run), None)
    now = gateway.clock.now()
    claimed_at = found.claimed_at if found is not None else None
    earliest = datetime.fromisoformat(claimed_at) if claimed_at else datetime.min.replace(tzinfo=UTC)
    ended = datetime.fromisoformat(found.ended_at) if found and found.ended_at else now
    return earliest, max(ended, earliest)


def _wanted(view: SessionView, run: int | None, after: tuple[int, ...]) -> list[tuple[int, int, str]]:
    return [item for item in sorted(view.record_digests) if (run is None or item[0] == run) and item[:2] >= after]


def _over(view: SessionView, run: int | None) -> bool:
    """No further record will come: what is shown is the whole journal."""
    if run is None:
        last = view.last_run
        return (view.closed or view.revoked is not None) and (last is None or last.state not in LIVE_RUN_STATES)
    found = next((item for item in view.runs if item.run == run), None)
    return found is not None and found.state not in LIVE_RUN_STATES | {RunState.PERMITTED}


async def _segment(content: ContentStore, view: SessionView, run: int, sequence: int, digest: str) -> Segment:
    octets = b"".join([chunk async for chunk in content.resolve(digest)])
    uid = view.offer.session_uid
    try:
        document = orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        raise Corrupt(f"journal segment {run}.{sequence} of session {uid}: {digest} is not JSON") from error
    return read_segment(document, session_uid=uid, run=run, sequence=sequence)


async def earlier_observations(
    gateway: Gateway, uid: str, position: tuple[int, int], *, first: bool = False
) -> set[str]:
    """Ids of the observations in segments before ``position``; read from the journal once per session, and not at all
    when ``first`` says that the session has none yet."""
    known = gateway.observations.get(uid)
    if known is None:
        known = {}
        if not first:
            view = await session_or_404(gateway, uid)
            for run, sequence, digest in sorted(view.record_digests):
                segment = await _segment(gateway.backends.content, view, run, sequence, digest)
                _note(known, segment)
        if len(gateway.observations) >= _MAX_SESSIONS:
            gateway.observations.clear()
        gateway.observations[uid] = known
    return {observation for observation, place in known.items() if place < position}


def note_observations(gateway: Gateway, segment: Segment) -> None:
    """Remember a segment that has just been noted in the store."""
    _note(gateway.observations.setdefault(segment.session_uid, {}), segment)


def _note(known: dict[str, tuple[int, int]], segment: Segment) -> None:
    for observation in segment.observation_ids():
        place = known.get(observation, segment.position)
        known[observation] = min(place, segment.position)
