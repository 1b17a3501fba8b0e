"""Lineage and resources: reads of the graph store, which outlives the objects it describes."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from triplane.api.kinds import KINDS
from triplane.domain.lineage import LineageFacts, Origin, Reviewed, lineage, material_digests
from triplane.domain.provenance import Way, is_digest
from triplane.domain.resourcegraph import NO_KIND
from triplane.domain.selector import parse_selector
from triplane.errors import Forbidden, InvalidInput, NotFound
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, person, require_person
from triplane.gateway.moments import AsOf, sequence
from triplane.gateway.people import Access, Person
from triplane.gateway.provenance import MAX_DEPTH, MAX_NODES, Walk, streamed
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.views import resource_document
from triplane.ports import Edge, GraphReader, Hop, ResourceRecord, Route

router = APIRouter(prefix="/v1")
_MAX_SHOWN: Final = 100
_MOST_TOUCHING: Final = 10_000
"""Of a digest that more things touch, a namespace must be named."""
_OWNERS: Final = frozenset({"owns"})


@router.get("/resources")
async def resources(
    gateway: GatewayDep,
    caller: CallerDep,
    *,
    kind: Annotated[str, Query()],
    namespace: str = "",
    name: str = "",
    selector: str = "",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    as_of: AsOf = None,
) -> Response:
    """``{resources}``: what is kept, also of objects that are gone: of one name every incarnation, newest first; else
    by (namespace, name), those whose labels the selector matches, and ``next``, for ``after``."""
    model = KINDS.get(kind)
    if model is None:
        raise InvalidInput(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    await require_person(gateway, caller, Access("list", model.info.plural, namespace))
    chosen = parse_selector(selector)
    seq = await sequence(gateway, as_of)
    graph = gateway.backends.graph if seq is None else gateway.backends.graph.as_of(seq)
    if namespace and name:
        found = [record for record in await graph.find(kind, namespace, name) if chosen.matches(record.labels)]
        return json_answer({"resources": [resource_document(record) for record in found]})
    place = None if after is None else (kind, *_place_of(after))
    page = await graph.query_by_labels(chosen, kind=kind, namespace=namespace or None, after=place, limit=limit)
    last = "/".join((page[-1].namespace, page[-1].name, page[-1].uid)) if len(page) == limit else None
    shown = [resource_document(record) for record in page if not name or record.name == name]
    return json_answer({"resources": shown, "next": last})


def _place_of(after: str) -> tuple[str, str, str]:
    parts = after.split("/")
    if len(parts) != 3:
        raise InvalidInput(f"after={after[:128]!r} is not what an earlier answer called next")
    return parts[0], parts[1], parts[2]


@router.get("/lineage/{subject}")
async def read_lineage(subject: str, gateway: GatewayDep, caller: CallerDep, namespace: str = "") -> Response:
    """``{lineage}``: one document per Artifact with this digest (in ``namespace``, if given; newest first), or the one
    with this UID."""
    reader = person(caller)
    if is_digest(subject):
        await _require_place(gateway, reader, namespace)
        with await gateway.looks.take(reader.username):
            found = await _newest_of(gateway.backends.graph, subject, frozenset({namespace}) if namespace else None)
            documents = [lineage(await _gather(gateway, artifact)) for artifact in found]
    else:
        record = await _readable(gateway, gateway.backends.graph, reader, subject)
        with await gateway.looks.take(reader.username):
            found = [record] if record is not None and record.kind == "Artifact" else []
            documents = [lineage(await _gather(gateway, artifact)) for artifact in found]
    if not documents:
        raise NotFound(f"no Artifact has digest or UID {subject[:128]!r}; `triplane status` lists Artifacts")
    return json_answer({"lineage": documents})


@router.get("/provenance/{subject}")
async def read_provenance(
    subject: str,
    gateway: GatewayDep,
    caller: CallerDep,
    *,
    way: Way = Way.UP,
    depth: Annotated[int, Query(ge=1, le=MAX_DEPTH)] = 64,
    limit: Annotated[int, Query(ge=1, le=MAX_NODES)] = 2000,
    namespace: str = "",
    as_of: AsOf = None,
) -> Response:
    """The graph around a digest or a kept resource, as NDJSON, nearest first: ``walk``, then ``node`` and ``edge``,
    ``end`` last. It stays within the namespace of the resource; of a digest, within ``namespace``, or those of
    everything that touches it, for who may read in all."""
    reader = person(caller)
    record = None
    if is_digest(subject):
        await _require_place(gateway, reader, namespace)
    else:
        record = await _readable(gateway, gateway.backends.graph, reader, subject)
    with await gateway.walks.take(reader.username) as turn:
        seq = await sequence(gateway, as_of)
        graph = gateway.backends.graph if seq is None else gateway.backends.graph.as_of(seq)
        if is_digest(subject):
            namespaces = frozenset({namespace}) if namespace else await _touching(graph, subject)
            if not await _around(graph, subject, Route(None, None, namespaces=namespaces, max_depth=1, limit=1)):
                where = namespace or "of any name"
                raise NotFound(f"nothing kept in namespace {where} was made of or from {subject[:80]}")
        else:
            if record is None or await graph.get(subject) is None:
                raise NotFound(f"no resource with UID {subject[:128]!r} is kept; `triplane graph query` lists what is")
            namespaces = frozenset({record.namespace})
        walk = Walk(subject, way, depth, limit, namespaces, seq)
        lines = streamed(gateway, graph, walk, turn.pop_all())
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _require_place(gateway: Gateway, reader: Person, namespace: str) -> None:
    """Raise ``Forbidden`` unless they may read Artifacts there; without a namespace, in all: nothing was looked at yet,
    so a refusal says nothing of who has this digest."""
    place = Access("get", "artifacts", namespace)
    if not namespace and not await gateway.people.allows(reader, place):
        raise Forbidden(f"user {reader.username} may not {place}; name one you may read, with namespace=")
    await gateway.people.require(reader, place)


async def _readable(gateway: Gateway, graph: GraphReader, reader: Person, uid: str) -> ResourceRecord | None:
    """The resource, if they may read it. One of a namespace they may not read is refused as one that is not kept."""
    record = await graph.get(uid)
    everywhere = Access("get", "artifacts")
    if record is None:
        await gateway.people.require(reader, everywhere)
        return None
    if not await gateway.people.allows(reader, Access("get", "artifacts", record.namespace)):
        raise gateway.people.refusal(reader, everywhere)
    await gateway.people.require(reader, Access("get", KINDS[record.kind].info.plural, record.namespace))
    return record


async def _touching(graph: GraphReader, digest: str) -> frozenset[str]:
    """Namespaces of the resources that have an edge with this blob."""
    hops = await _around(graph, digest, Route(None, None, max_depth=1, limit=_MOST_TOUCHING))
    if len(hops) == _MOST_TOUCHING:
        raise InvalidInput(f"over {_MOST_TOUCHING} things touch {digest}: name the namespace")
    records = await graph.get_many([hop.id for hop in hops])
    return frozenset(record.namespace for record in records.values())


async def _newest_of(graph: GraphReader, digest: str, namespaces: frozenset[str] | None) -> list[ResourceRecord]:
    """The newest Artifacts with this digest, which several may have: the same octets produced twice."""
    route = Route(NO_KIND, frozenset({"produces"}), namespaces=namespaces, max_depth=1, limit=_MOST_TOUCHING)
    hops = await _around(graph, digest, route)
    if len(hops) == _MOST_TOUCHING:
        raise InvalidInput(f"over {_MOST_TOUCHING} things made {digest}: name an Artifact by its UID")
    newest = [hop.id for hop in sorted(hops, key=lambda hop: hop.via.seq, reverse=True)][:_MAX_SHOWN]
    records = await graph.get_many(newest)
    return [records[uid] for uid in newest if uid in records and records[uid].kind == "Artifact"]


async def _around(graph: GraphReader, id_: str, route: Route) -> list[Hop]:
    async with aclosing(graph.traverse(id_, route)) as hops:  # type: ignore[type-var]
        return [hop async for hop in hops]


async def _artifacts_by_digest(gateway: Gateway, digests: Sequence[str]) -> dict[str, list[ResourceRecord]]:
    """The Artifacts whose content each digest is, newest first."""
    graph = gateway.backends.graph
    edges = await graph.edges_of(digests, outgoing=False, kinds=frozenset({"produces"}))
    records = await graph.get_many([edge.source for edge in edges])
    found: dict[str, list[ResourceRecord]] = {}
    for edge in sorted(edges, key=lambda edge: edge.seq, reverse=True):
        record = records.get(edge.source)
        if record is not None and record.kind == "Artifact":
            found.setdefault(edge.target, []).append(record)
    return found


async def _gather(gateway: Gateway, artifact: ResourceRecord) -> LineageFacts:
    graph, sessions = gateway.backends.graph, gateway.backends.sessions
    produced = await graph.edges(artifact.uid, outgoing=False, kinds=frozenset({"produces"}))
    session_uid = produced[0].source if produced else _uid(artifact.spec.get("sessionRef"))
    session = await _record(gateway, session_uid)
    execution = await sessions.get(session_uid) if session_uid else None
    task = await _record(gateway, _uid(artifact.spec.get("taskRef")) or _uid(_spec(session).get("taskRef")))
    agent_uid = _uid(_spec(session).get("agentRef")) or (execution.offer.agent_uid if execution else None)
    node, container = await _containers(gateway, task, execution.offer.graph_uid if execution else None)
    consumed = await _consumed(gateway, session_uid)
    digests = [digest for _, digest in material_digests(artifact, execution, consumed)]
    composed = await _composed(gateway, task.uid if task is not None else None, digests)
    sources = [edge.target for edges in composed.values() for edge in edges]
    return LineageFacts(
        artifact=artifact,
        task=task,
        node=node,
        graph=container,
        session=session,
        agent=await _record(gateway, agent_uid),
        execution=execution,
        consumed=consumed,
        composed={digest: [(edge.target, edge.data) for edge in edges] for digest, edges in composed.items()},
        origins=await _origins(gateway, artifact.namespace, [*digests, *sources]),
        reviews=await _reviews(gateway, artifact),
    )


async def _containers(
    gateway: Gateway, task: ResourceRecord | None, graph_uid: str | None
) -> tuple[ResourceRecord | None, ResourceRecord | None]:
    """The Node and the Graph that own the Task, by ``owns`` edges upwards."""
    node = container = None
    current = task
    for _ in range(len(KINDS)):
        edges = await gateway.backends.graph.edges(current.uid, outgoing=False, kinds=_OWNERS) if current else ()
        kept = (await gateway.backends.graph.get_many([edge.source for edge in edges])).values() if edges else ()
        node = node or next((owner for owner in kept if owner.kind == "Node"), None)
        container = container or next((owner for owner in kept if owner.kind == "Graph"), None)
        current = next((owner for owner in kept if owner.kind == "Node"), None)
    return node, container or await _record(gateway, graph_uid)


async def _consumed(gateway: Gateway, session_uid: str | None) -> list[tuple[str, str]]:
    if not session_uid:
        return []
    edges = await gateway.backends.graph.edges(session_uid, kinds=frozenset({"consumes"}))
    return [(str(edge.data.get("name", "")), edge.target) for edge in edges]


async def _origins(gateway: Gateway, namespace: str, digests: Sequence[str]) -> dict[str, list[Origin]]:
    """Artifacts of the same namespace with these digests: the reader was let into that one only."""
    if not digests:
        return {}
    known = await _artifacts_by_digest(gateway, list(dict.fromkeys(digests)))
    uids = {_uid(artifact.spec.get("taskRef")) or "" for artifacts in known.values() for artifact in artifacts}
    tasks = await gateway.backends.graph.get_many(uids)
    found = {
        digest: [
            Origin(artifact, tasks.get(_uid(artifact.spec.get("taskRef")) or ""))
            for artifact in known.get(digest, ())
            if artifact.namespace == namespace
        ]
        for digest in dict.fromkeys(digests)
    }
    return {digest: origins for digest, origins in found.items() if origins}


async def _composed(gateway: Gateway, task_uid: str | None, digests: Sequence[str]) -> dict[str, list[Edge]]:
    """Of inputs made for this Task, the parts they were made of."""
    if task_uid is None or not digests:
        return {}
    found: dict[str, list[Edge]] = {}
    for edge in await gateway.backends.graph.edges_of(list(dict.fromkeys(digests)), kinds=frozenset({"derivedFrom"})):
        if edge.data.get("task") == task_uid:
            found.setdefault(edge.source, []).append(edge)
    return found


async def _reviews(gateway: Gateway, artifact: ResourceRecord) -> list[Reviewed]:
    edges = await gateway.backends.graph.edges(artifact.uid, outgoing=False, kinds=frozenset({"reviews"}))
    return [found for edge in edges if (found := await _review(gateway, edge)) is not None]


async def _review(gateway: Gateway, edge: Edge) -> Reviewed | None:
    review = await _record(gateway, edge.source)
    if review is None:
        return None
    session_uid = _uid(review.spec.get("sessionRef"))
    execution = await gateway.backends.sessions.get(session_uid) if session_uid else None
    agent = await _record(gateway, _uid(review.spec.get("agentRef")))
    return Reviewed(review, agent, execution, edge.data)


async def _record(gateway: Gateway, uid: str | None) -> ResourceRecord | None:
    return await gateway.backends.graph.get(uid) if uid else None


def _uid(reference: Any) -> str | None:
    found = reference.get("uid") if isinstance(reference, Mapping) else None
    return found if isinstance(found, str) else None


def _spec(record: ResourceRecord | None) -> Mapping[str, Any]:
    return record.spec if record is not None else {}
