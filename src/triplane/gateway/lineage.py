"""Lineage and resources: reads of the graph store, which outlives the objects it describes."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from triplane.api.kinds import KINDS
from triplane.domain.lineage import LineageFacts, Origin, Reviewed, lineage, material_digests
from triplane.domain.provenance import Way, is_digest
from triplane.domain.selector import parse_selector
from triplane.errors import InvalidInput, NotFound
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.moments import AsOf, sequence
from triplane.gateway.people import Access
from triplane.gateway.provenance import MAX_DEPTH, MAX_NODES, Walk, streamed
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.views import resource_document
from triplane.ports import Edge, GraphReader, ResourceRecord, Route

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
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
    as_of: AsOf = None,
) -> Response:
    """``{resources}``: what is kept, also of objects that are gone: of one name every incarnation, newest first; else
    by (namespace, name), those whose labels the selector matches. With ``limit`` also ``next``, for ``after``."""
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
    more = limit is not None and len(page) == limit
    last = "/".join((page[-1].namespace, page[-1].name, page[-1].uid)) if more else None
    shown = [resource_document(record) for record in page if not name or record.name == name]
    return json_answer({"resources": shown, **({"next": last} if limit is not None else {})})


def _place_of(after: str) -> tuple[str, str, str]:
    parts = after.split("/")
    if len(parts) != 3:
        raise InvalidInput(f"after={after[:128]!r} is not what an earlier answer called next")
    return parts[0], parts[1], parts[2]


@router.get("/lineage/{subject}")
async def read_lineage(subject: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """``{lineage}``: one document per Artifact with this digest, or the one with this UID."""
    found = await _artifacts(gateway, subject)
    if not found:
        await require_person(gateway, caller, Access("get", "artifacts"))
        raise NotFound(f"no Artifact has digest or UID {subject[:128]!r}; `triplane status` lists Artifacts")
    for namespace in sorted({artifact.namespace for artifact in found}):
        await require_person(gateway, caller, Access("get", "artifacts", namespace))
    documents = [lineage(await _gather(gateway, artifact)) for artifact in found[:_MAX_SHOWN]]
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
    everything that touches it."""
    seq = await sequence(gateway, as_of)
    graph = gateway.backends.graph if seq is None else gateway.backends.graph.as_of(seq)
    if is_digest(subject):
        namespaces = frozenset({namespace}) if namespace else await _touching(graph, subject)
        for place in sorted(namespaces) or [""]:
            await require_person(gateway, caller, Access("get", "artifacts", place))
        if not await _around(graph, subject, namespaces, 1):
            raise NotFound(f"nothing kept in namespace {namespace or 'of any name'} was made of or from {subject[:80]}")
    else:
        record = await graph.get(subject)
        await require_person(
            gateway,
            caller,
            Access(
                "get", KINDS[record.kind].info.plural if record else "artifacts", record.namespace if record else ""
            ),
        )
        if record is None:
            raise NotFound(f"no resource with UID {subject[:128]!r} is kept; `triplane graph query` lists what is")
        await require_person(gateway, caller, Access("get", "artifacts", record.namespace))
        namespaces = frozenset({record.namespace})
    walk = Walk(subject, way, depth, limit, namespaces, seq)
    return StreamingResponse(await streamed(gateway, graph, walk), media_type="application/x-ndjson")


async def _touching(graph: GraphReader, digest: str) -> frozenset[str]:
    """Namespaces of the resources that have an edge with this blob."""
    around = await _around(graph, digest, None, _MOST_TOUCHING)
    if len(around) == _MOST_TOUCHING:
        raise InvalidInput(f"over {_MOST_TOUCHING} things touch {digest}: name the namespace")
    records = await graph.get_many(around)
    return frozenset(record.namespace for record in records.values())


async def _around(graph: GraphReader, id_: str, namespaces: frozenset[str] | None, most: int) -> list[str]:
    route = Route(None, None, namespaces=namespaces, max_depth=1, limit=most)
    async with aclosing(graph.traverse(id_, route)) as hops:  # type: ignore[type-var]
        return [hop.id async for hop in hops]


async def _artifacts(gateway: Gateway, subject: str) -> list[ResourceRecord]:
    """Newest first. A digest may belong to several: the same octets produced twice."""
    if is_digest(subject):
        return (await _artifacts_by_digest(gateway, [subject])).get(subject, [])
    record = await gateway.backends.graph.get(subject)
    return [record] if record is not None and record.kind == "Artifact" else []


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
