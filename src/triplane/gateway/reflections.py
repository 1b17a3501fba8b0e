"""Reflections as the log tells of them: what every run said of itself, also after everything else was deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Response

from triplane.audit.entry import event_id
from triplane.audit.model import EventFilter, Recorded
from triplane.domain.events import graph_stream
from triplane.domain.reflection import as_sure, mentions
from triplane.errors import BlobMissing, Corrupt, InvalidInput
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.history import named, uids_of
from triplane.gateway.people import Access
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1")
_LOOKED_AT: Final = 1000
"""Runs looked at for one answer: a search that finds little says where to go on."""
_LARGEST: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a search is for."""

    agent: str | None
    tasks: frozenset[str] | None
    streams: frozenset[str] | None
    words: tuple[str, ...]
    least: int | None

    def admits(self, offered: Mapping[str, Any]) -> bool:
        """Whether a session of this offer is meant."""
        data = offered["data"]
        return (
            self.agent in (None, data["agentName"], data["agentUid"])
            and (self.tasks is None or data["taskUid"] in self.tasks)
            and (self.streams is None or offered["stream"] in self.streams)
        )

    def likes(self, document: Mapping[str, Any] | None) -> bool:
        """Whether a reflection says what is asked for; one that was erased says nothing."""
        if document is None:
            return not self.words and self.least is None
        return mentions(document, self.words) and as_sure(document, self.least)


@router.get("/reflections")
async def reflections(
    gateway: GatewayDep,
    caller: CallerDep,
    namespace: Annotated[str, Query()],
    agent: str | None = None,
    graph: str | None = None,
    task: str | None = None,
    text: Annotated[str, Query(max_length=1024)] = "",
    min_confidence: Annotated[int | None, Query(alias="minConfidence", ge=0, le=100)] = None,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """``{reflections, next}``: of the runs of this namespace, newest first; ``next`` is for ``before``, null at the
    end. ``text``: every word of it must stand in the reflection. An answer may hold less than ``limit`` and have a
    ``next`` all the same."""
    if not namespace:
        raise InvalidInput("name a namespace: reflections are read one namespace at a time")
    await require_person(gateway, caller, Access("get", "agentsessions", namespace))
    graphs = await uids_of(gateway, "Graph", namespace, graph)
    wanted = _Wanted(
        agent=agent,
        tasks=await uids_of(gateway, "Task", namespace, task),
        streams=None if graphs is None else frozenset(map(graph_stream, graphs)),
        words=tuple(text.split()),
        least=min_confidence,
    )
    stream = next(iter(wanted.streams)) if wanted.streams is not None and len(wanted.streams) == 1 else None
    where = EventFilter(types=frozenset({"run.finished"}), namespace=namespace, stream=stream, before=before)
    page = await gateway.backends.log.query(where, limit=_LOOKED_AT, newest_first=True)
    found, last = await _search(gateway, page, wanted, limit)
    more = last is not None and (len(page) == _LOOKED_AT or last > page[-1].seq)
    return json_answer({"reflections": await named(gateway, found), "next": last if more else None})


async def _search(
    gateway: Gateway, page: list[Recorded], wanted: _Wanted, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Those of the page that are wanted, at most ``limit``, and the last entry that was looked at."""
    finished = [item for item in page if item.entry["data"].get("reflection")]
    ids = {event_id("session.offered", item.entry["subject"]["uid"], 1) for item in finished}
    offers = await gateway.backends.log.get_many(sorted(ids)) if ids else {}
    found: list[dict[str, Any]] = []
    last: int | None = page[-1].seq if page else None
    for item in finished:
        offered = offers.get(event_id("session.offered", item.entry["subject"]["uid"], 1))
        if offered is None or not wanted.admits(offered.entry):
            continue
        document = await _document(gateway, item.entry["data"]["reflection"])
        if not wanted.likes(document):
            continue
        found.append(_told(item, offered, document))
        if len(found) == limit:
            last = item.seq
            break
    return found, last


async def _document(gateway: Gateway, digest: str) -> Mapping[str, Any] | None:
    """The reflection; None when it was erased or is damaged: that a run reflected stays known."""
    content = gateway.backends.content
    try:
        if await content.size(digest) > _LARGEST:
            return None
        document = orjson.loads(b"".join([chunk async for chunk in content.resolve(digest)]))
    except (BlobMissing, Corrupt, orjson.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _told(item: Recorded, offered: Recorded, document: Mapping[str, Any] | None) -> dict[str, Any]:
    entry, data, offer = item.entry, item.entry["data"], offered.entry["data"]
    said = document or {}
    return {
        "seq": item.seq,
        "time": entry["time"],
        "session": {"name": entry["subject"]["name"], "uid": entry["subject"]["uid"]},
        "run": data["run"],
        "role": str(offer["role"]).capitalize(),
        "agent": {"name": offer["agentName"], "uid": offer["agentUid"]},
        "taskUid": offer["taskUid"],
        "graphUid": str(offered.entry["stream"]).removeprefix("graph/"),
        "outcome": data["outcome"],
        "reason": data["reason"],
        "digest": data["reflection"],
        "erased": document is None,
        "source": said.get("source", "harness") if document is not None else None,
        "confidence": said.get("confidence"),
        "wentWell": list(said.get("wentWell") or ()),
        "wentBadly": list(said.get("wentBadly") or ()),
        "lessons": list(said.get("lessons") or ()),
    }
