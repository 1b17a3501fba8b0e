"""Lineage and resources: reads of the graph store, which outlives the objects it describes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from triplane.api.kinds import KINDS
from triplane.domain.lineage import LineageFacts, Origin, Reviewed, lineage, material_digests
from triplane.errors import InvalidInput, NotFound
from triplane.gateway.answers import json_answer
from triplane.gateway.auth import CallerDep, require_person
from triplane.gateway.people import Access
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.views import resource_document
from triplane.ports import Edge, ResourceRecord

router = APIRouter(prefix="/v1")
_MAX_SHOWN: Final = 100
_OWNERS: Final = frozenset({"owns"})


@router.get("/resources")
async def resources(
    gateway: GatewayDep,
    caller: CallerDep,
    kind: Annotated[str, Query()],
    namespace: str = "",
    name: str = "",
) -> Response:
    """``{resources}``: every incarnation kept, newest first, also of objects that are gone."""
    model = KINDS.get(kind)
    if model is None:
        raise InvalidInput(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    await require_person(gateway, caller, Access("list", model.info.plural, namespace))
    if namespace and name:
        found: Sequence[ResourceRecord] = await gateway.backends.graph.find(kind, namespace, name)
    else:
        kept = await gateway.backends.graph.list(kind, namespace or None)
        found = [record for record in kept if not name or record.name == name]
    return json_answer({"resources": [resource_document(record) for record in found]})


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


async def _artifacts(gateway: Gateway, subject: str) -> list[ResourceRecord]:
    """Newest first. A digest may belong to several: the same octets produced twice."""
    if subject.startswith("sha256:"):
        return (await _artifacts_by_digest(gateway)).get(subject, [])
    record = await gateway.backends.graph.get(subject)
    return [record] if record is not None and record.kind == "Artifact" else []


async def _artifacts_by_digest(gateway: Gateway, namespace: str | None = None) -> dict[str, list[ResourceRecord]]:
    found: dict[str, list[ResourceRecord]] = {}
    records = await gateway.backends.graph.list("Artifact", namespace)
    for record in sorted(records, key=lambda record: record.seq, reverse=True):
        found.setdefault(str(record.spec.get("digest")), []).append(record)
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
    return LineageFacts(
        artifact=artifact,
        task=task,
        node=node,
        graph=container,
        session=session,
        agent=await _record(gateway, agent_uid),
        execution=execution,
        consumed=consumed,
        origins=await _origins(
            gateway, artifact.namespace, [digest for _, digest in material_digests(artifact, execution, consumed)]
        ),
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
        owners = [await _record(gateway, edge.source) for edge in edges]
        kept = [owner for owner in owners if owner is not None]
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
    known = await _artifacts_by_digest(gateway, namespace)
    return {
        digest: [
            Origin(artifact, await _record(gateway, _uid(artifact.spec.get("taskRef")))) for artifact in known[digest]
        ]
        for digest in dict.fromkeys(digests)
        if digest in known
    }


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
