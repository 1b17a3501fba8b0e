"""What a log entry says about the resource graph: the one function behind the live graph and the rebuilt one.

The graph is a projection: everything in it comes from an entry and the documents that the entry names. Whoever appends
such an entry applies its projection; ``triplane graph rebuild`` applies them all again and gets the same graph.

=================== ==============================================================================================
entry               what it adds
=================== ==============================================================================================
resource.observed   the generation; ``owns`` from its owner, or from the Graph in whose stream it was seen; of an
                    AgentSession ``uses`` and ``consumes`` from its snapshot; of an Artifact ``produces`` from its
                    session and to the digest of its content, and ``derivedFrom`` to its materials
resource.gone       that it is gone
node.planned        ``owns`` from the Graph, ``uses`` to the Workflow
task.placed         ``owns`` from the Node or Graph, ``dependsOn`` to the Tasks it waited for
input.composed      ``derivedFrom`` from the input's digest to each source's, with the paths
review.recorded     ``reviews`` to the Artifacts that were judged
=================== ==============================================================================================
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject, JsonObject, Recorded
from triplane.domain.resourcegraph import Edge, GraphChange, ResourceRecord

OBSERVED: Final = "resource.observed"
GONE: Final = "resource.gone"
PROJECTED: Final = frozenset({OBSERVED, GONE, "node.planned", "task.placed", "input.composed", "review.recorded"})
"""Types that say something about the graph."""
OWN_LABELS: Final = "triplane.dev/"
"""Labels with this prefix stand in the entry itself; others, which users choose, in a document."""
_USED: Final = frozenset({"agent", "harness", "capability", "tool", "guideline", "policy"})
_STREAM: Final = "graph/"
_OWNED_BY_GRAPH: Final = frozenset({"Node", "Task"})

Documents = Mapping[str, JsonObject]
"""By digest."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry as the projection reads it."""

    id: str
    type: str
    stream: str
    actor: str
    subject: EventSubject
    data: JsonObject
    seq: int

    @classmethod
    def of_body(cls, body: EventBody, seq: int) -> "LogEntry":
        """What was appended as entry ``seq``."""
        return cls(body.id, body.type, body.stream, body.actor, body.subject, body.data, seq)

    @classmethod
    def of_recorded(cls, recorded: Recorded) -> "LogEntry":
        """What was read from the log."""
        entry = recorded.entry
        subject = entry["subject"]
        return cls(
            id=entry["id"],
            type=entry["type"],
            stream=entry["stream"],
            actor=entry["actor"],
            subject=EventSubject(
                kind=subject["kind"],
                namespace=subject["namespace"],
                name=subject["name"],
                uid=subject["uid"],
                generation=subject.get("generation", 0),
                labels=tuple((key, value) for key, value in subject.get("labels") or ()),
            ),
            data=entry.get("data") or {},
            seq=recorded.seq,
        )

    @property
    def graph_uid(self) -> str | None:
        """The Graph in whose stream it stands."""
        return self.stream.removeprefix(_STREAM) if self.stream.startswith(_STREAM) else None


def documents_of(entry: LogEntry) -> tuple[str, ...]:
    """Digests of the documents that ``project`` needs for this entry."""
    if entry.type != OBSERVED:
        return ()
    labels = entry.data.get("labelsDigest")
    return (entry.data["specDigest"],) if labels is None else (entry.data["specDigest"], labels)


def project(entry: LogEntry, documents: Documents) -> GraphChange:
    """What the entry adds to the graph; nothing for types that say nothing about it.

    Raises ``KeyError`` with the digest of a document that is not among ``documents``.
    """
    match entry.type:
        case "resource.observed":
            record = _record(entry, documents)
            return GraphChange((record,), tuple(_observed_edges(entry, record.spec)))
        case "resource.gone":
            return GraphChange(gone=((entry.subject.uid, entry.seq),))
        case "node.planned":
            return GraphChange(edges=tuple(_planned_edges(entry)))
        case "task.placed":
            return GraphChange(edges=tuple(_placed_edges(entry)))
        case "input.composed":
            return GraphChange(edges=tuple(_composed_edges(entry)))
        case "review.recorded":
            return GraphChange(edges=tuple(_review_edges(entry)))
        case _:
            return GraphChange()


def _record(entry: LogEntry, documents: Documents) -> ResourceRecord:
    subject, data = entry.subject, entry.data
    labels: dict[str, Any] = dict(subject.labels)
    if (digest := data.get("labelsDigest")) is not None:
        labels |= documents[digest]
    actor = entry.actor if entry.actor != SYSTEM_ACTOR else None
    return ResourceRecord(
        uid=subject.uid,
        kind=subject.kind,
        namespace=subject.namespace,
        name=subject.name,
        generation=subject.generation,
        labels=labels,
        spec=documents[data["specDigest"]],
        requester=data.get("requester", actor),
        seq=entry.seq,
    )


def _observed_edges(entry: LogEntry, spec: JsonObject) -> Iterator[Edge]:
    uid, kind, seq = entry.subject.uid, entry.subject.kind, entry.seq
    owner = entry.data.get("ownerUid") or (entry.graph_uid if kind in _OWNED_BY_GRAPH else None)
    if owner is not None:
        yield Edge(owner, "owns", uid, seq)
    if kind == "AgentSession":
        yield from _session_edges(uid, spec, seq)
    elif kind == "Artifact":
        yield from _artifact_edges(uid, spec, seq)


def _session_edges(uid: str, spec: JsonObject, seq: int) -> Iterator[Edge]:
    for item in spec.get("snapshot") or ():
        role = item.get("role")
        if role in _USED and item.get("uid"):
            data = {"role": role, "generation": item.get("generation")}
            yield Edge(uid, "uses", item["uid"], seq, data, role)
        elif role == "input" and item.get("digest"):
            yield Edge(uid, "consumes", item["digest"], seq, {"name": item["name"]}, item["name"])


def _artifact_edges(uid: str, spec: JsonObject, seq: int) -> Iterator[Edge]:
    session = (spec.get("sessionRef") or {}).get("uid")
    if session is not None:
        yield Edge(session, "produces", uid, seq, {"run": spec.get("run"), "round": spec.get("round")})
    if spec.get("digest"):
        yield Edge(uid, "produces", spec["digest"], seq, {"output": spec.get("name")})
    for item in spec.get("materials") or ():
        yield Edge(uid, "derivedFrom", item["digest"], seq, {"name": item["name"]}, item["name"])


def _planned_edges(entry: LogEntry) -> Iterator[Edge]:
    node, data = entry.subject.uid, entry.data
    if entry.graph_uid is not None:
        yield Edge(entry.graph_uid, "owns", node, entry.seq)
    if (workflow := data.get("workflowUid")) is not None:
        yield Edge(
            node, "uses", workflow, entry.seq, {"role": "workflow", "generation": data.get("workflowGeneration")}
        )


def _placed_edges(entry: LogEntry) -> Iterator[Edge]:
    task, data = entry.subject.uid, entry.data
    if (owner := data.get("ownerUid")) is not None:
        yield Edge(owner, "owns", task, entry.seq)
    for uid in data.get("dependsOn") or ():
        yield Edge(task, "dependsOn", uid, entry.seq)


def _composed_edges(entry: LogEntry) -> Iterator[Edge]:
    """Field by field: what stands at ``to`` in the input is what stands at ``path`` in the source."""
    data = entry.data
    place = entry.id.partition("/")[2]
    for number, part in enumerate(data["edges"], start=1):
        facts = {
            "task": entry.subject.uid,
            "input": data["input"],
            "merge": data["merge"],
            **{key: part[key] for key in ("taskUid", "step", "output", "path", "to") if part.get(key) is not None},
        }
        yield Edge(data["digest"], "derivedFrom", part["digest"], entry.seq, facts, f"{place}/{number}")


def _review_edges(entry: LogEntry) -> Iterator[Edge]:
    for uid in entry.data.get("artifactUids") or ():
        yield Edge(entry.data["reviewUid"], "reviews", uid, entry.seq, {"verdict": entry.data["verdict"]})
