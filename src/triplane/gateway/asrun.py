"""As-run records: what took part in which run, read from the log, also after everything else was deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Response

from triplane.audit.model import EventFilter, Recorded
from triplane.domain.asrun import ENDS, LONGEST, Documents, Entry, RunEntries, as_run, ids_of, moment
from triplane.domain.events import graph_stream
from triplane.errors import BlobMissing, Corrupt, InvalidInput
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.history import named, uids_of
from triplane.gateway.people import Access
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1")
_LOOKED_AT: Final = 500
_LARGEST: Final = 4 * 1024 * 1024
_PARTS: Final = ("offered", "permitted", "started", "session")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which runs are asked for."""

    agent: str | None
    tasks: frozenset[str] | None
    since: datetime | None
    until: datetime | None

    def admits(self, run: RunEntries) -> bool:
        """Whether it is of this agent and Task, and was at work in this time."""
        data = run.offered["data"] if run.offered is not None else {}
        ended = run.ended["time"] if run.ended is not None else None
        return (
            self.agent in (None, data.get("agentName"), data.get("agentUid"))
            and (self.tasks is None or data.get("taskUid") in self.tasks)
            and (self.until is None or moment(run.claimed["time"]) < self.until)
            and (self.since is None or ended is None or moment(ended) >= self.since)
        )

    def is_past(self, claimed: Entry) -> bool:
        """Whether this run, and every earlier one, was over before the time that is asked for."""
        return self.since is not None and moment(claimed["time"]) < self.since - LONGEST


@router.get("/asrun")
async def asrun(
    gateway: GatewayDep,
    caller: CallerDep,
    *,
    namespace: Annotated[str, Query()],
    task: str | None = None,
    session: str | None = None,
    agent: str | None = None,
    graph: str | None = None,
    since: str | None = None,
    until: str | None = None,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """``{runs, next}``: of this namespace, newest first; ``next`` is for ``before``, null at the end. An answer may
    hold less than ``limit`` and have a ``next`` all the same."""
    if not namespace:
        raise InvalidInput("name a namespace: as-run records are read one namespace at a time")
    await require_person(gateway, caller, Access("get", "agentsessions", namespace))
    graphs = await uids_of(gateway, "Graph", namespace, graph)
    wanted = _Wanted(
        agent=agent,
        tasks=await uids_of(gateway, "Task", namespace, task),
        since=moment(since) if since else None,
        until=moment(until) if until else None,
    )
    where = EventFilter(
        types=frozenset({"run.claimed"}),
        namespace=namespace,
        uids=await uids_of(gateway, "AgentSession", namespace, session) or frozenset(),
        stream=graph_stream(next(iter(graphs))) if graphs is not None and len(graphs) == 1 else None,
        before=before,
    )
    page = await gateway.backends.log.query(where, limit=_LOOKED_AT, newest_first=True)
    streams = None if graphs is None else {graph_stream(uid) for uid in graphs}
    found, last, past = await _read(gateway, page, wanted, streams, limit)
    more = not past and last is not None and (len(page) == _LOOKED_AT or last > page[-1].seq)
    return json_answer({"runs": await named(gateway, found), "next": last if more else None})


async def _read(
    gateway: Gateway, page: Sequence[Recorded], wanted: _Wanted, streams: set[str] | None, limit: int
) -> tuple[list[dict[str, Any]], int | None, bool]:
    """The wanted runs of the page, the last entry looked at, and whether all earlier ones are too old."""
    ids = {id_ for item in page for id_ in ids_of(item.entry).values()}
    known = await gateway.backends.log.get_many(sorted(ids)) if ids else {}
    found: list[dict[str, Any]] = []
    last: int | None = None
    for item in page:
        last = item.seq
        if wanted.is_past(item.entry):
            return found, last, True
        run = _run(item.entry, known)
        if (streams is not None and item.entry["stream"] not in streams) or not wanted.admits(run):
            continue
        found.append({"seq": item.seq, **as_run(run, await _documents(gateway, run))})
        if len(found) == limit:
            break
    return found, last, False


def _run(claimed: Entry, known: Mapping[str, Recorded]) -> RunEntries:
    ids = ids_of(claimed)
    parts = {name: known[ids[name]].entry if ids[name] in known else None for name in _PARTS}
    permit = known.get(ids["permitted"])
    if permit is not None:
        parts["permitted"] = {**permit.entry, "seq": permit.seq}
    ended = next((known[ids[kind]].entry for kind in ENDS if ids[kind] in known), None)
    return RunEntries(claimed=claimed, ended=ended, **parts)


async def _documents(gateway: Gateway, run: RunEntries) -> Documents:
    spec = await _document(gateway, run.session["data"]["specDigest"]) if run.session is not None else None
    facts = await _document(gateway, run.started["blobs"][0]) if run.started is not None else None
    asked: Any = ()
    if run.permitted is not None and run.permitted.get("blobs"):
        asked = await _document(gateway, run.permitted["data"]["policyDigest"])
    return Documents(
        spec=spec if isinstance(spec, dict) else None,
        facts=facts if isinstance(facts, dict) else None,
        policies=asked if isinstance(asked, list | tuple) else None,
    )


async def _document(gateway: Gateway, digest: str) -> Any:
    """None when it was erased or is damaged."""
    content = gateway.backends.content
    try:
        if await content.size(digest) > _LARGEST:
            return None
        return orjson.loads(b"".join([chunk async for chunk in content.resolve(digest)]))
    except (BlobMissing, Corrupt, orjson.JSONDecodeError):
        return None
