"""Sessions as the log tells of them: who did what for whom, when, and what it cost, also after all is deleted."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from triplane.audit.model import EventFilter
from triplane.domain.events import graph_stream
from triplane.domain.sessionhistory import HISTORY_TYPES, Histories
from triplane.errors import InvalidInput, NotFound
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.people import Access
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1")
_PAGE: Final = 2000


@router.get("/sessions")
async def sessions(
    gateway: GatewayDep,
    caller: CallerDep,
    namespace: Annotated[str, Query()],
    agent: str | None = None,
    graph: str | None = None,
    task: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """``{sessions}``: of this namespace, last at work first; of one agent, Graph or Task (name or UID), if given."""
    if not namespace:
        raise InvalidInput("name a namespace: sessions are read one namespace at a time")
    await require_person(gateway, caller, Access("get", "agentsessions", namespace))
    graphs = await uids_of(gateway, "Graph", namespace, graph)
    tasks = await uids_of(gateway, "Task", namespace, task)
    histories = Histories(agent=agent, task_uids=tasks)
    streams = [None] if graphs is None else [graph_stream(uid) for uid in sorted(graphs)]
    for stream in streams:
        await _read(gateway, EventFilter(types=HISTORY_TYPES, namespace=namespace, stream=stream), histories)
    found = [session.wire() for session in histories.newest_first()[:limit]]
    return json_answer({"sessions": await named(gateway, found)})


async def _read(gateway: Gateway, where: EventFilter, histories: Histories) -> None:
    after = -1
    while page := await gateway.backends.log.query(where, after=after, limit=_PAGE):
        histories.add((item.seq, item.entry) for item in page)
        after = page[-1].seq


async def uids_of(gateway: Gateway, kind: str, namespace: str, name: str | None) -> frozenset[str] | None:
    """Every incarnation of the name; a UID stands for itself. None when nothing was asked."""
    if name is None:
        return None
    found = [record.uid for record in await gateway.backends.graph.find(kind, namespace, name)]
    record = await gateway.backends.graph.get(name)
    if record is not None and (record.kind, record.namespace) == (kind, namespace):
        found.append(record.uid)
    if not found:
        raise NotFound(f"no {kind} {name[:128]!r} is known in namespace {namespace}, nor ever was")
    return frozenset(found)


async def named(gateway: Gateway, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the names of Task and Graph beside their UIDs, in one read."""
    records = await gateway.backends.graph.get_many({item[key] for item in found for key in ("taskUid", "graphUid")})
    for item in found:
        for kind in ("task", "graph"):
            uid = item.pop(f"{kind}Uid")
            record = records.get(uid)
            item[kind] = {"name": record.name if record else None, "uid": uid, "gone": record.gone if record else None}
    return found
