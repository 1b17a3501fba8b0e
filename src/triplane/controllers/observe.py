"""Every generation of every resource the operator acts on is logged once and kept in the graph store.

The log entry comes first; the row and its edges are the entry's projection (``domain/projection.py``). A crash between
the two is healed by the next observation, or by the ``GraphProjector``.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.text import REQUESTER
from triplane.audit.digest import digest_of_json
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, SYSTEM_STREAM, EventBody, EventSubject
from triplane.controllers.context import Context
from triplane.domain.projection import GONE, OBSERVED, OWN_LABELS, LogEntry, documents_of, project
from triplane.domain.redaction import redact_json
from triplane.domain.resourcegraph import GraphChange
from triplane.errors import IdReused

_WORK = frozenset({"Graph", "Node", "Task", "AgentSession", "Artifact", "Review"})
"""Kinds whose entries stand in the stream of a Graph; the others belong to no Graph."""
_STORED = 1024
"""Digests of label documents known to be stored: the operator's own objects share a handful."""


_LABELS_IN_ENTRY = 32
"""An entry has room for no more than some 400; users may add as many as they like, and those are kept in a blob."""
_PLACES = frozenset({"triplane.dev/graph", "triplane.dev/node", "triplane.dev/task"})
"""Labels by which the operator finds its own objects: they are in the entry, whatever else there is."""


def subject_of(obj: Mapping[str, Any]) -> EventSubject:
    """The log's name of an object: address, identity, generation and its ``triplane.dev/`` labels; of more than 32
    those that say where it belongs, and the first by name."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    return EventSubject(
        kind=obj["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=_labels_in_entry(labels),
    )


def _labels_in_entry(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    own = sorted((key, value) for key, value in labels.items() if key.startswith(OWN_LABELS))
    if len(own) > _LABELS_IN_ENTRY:
        own.sort(key=lambda pair: (pair[0] not in _PLACES, pair))
        own = sorted(own[:_LABELS_IN_ENTRY])
    return tuple(own)


def requester_of(obj: Mapping[str, Any]) -> str | None:
    """The user whom admission stamped on the object."""
    stamped = (obj["metadata"].get("annotations") or {}).get(REQUESTER)
    return str(stamped) if stamped else None


def _by_requester(subject: EventSubject) -> bool:
    """Whether this generation is surely the requester's doing: others may edit anything but Agents and Harnesses,
    and who did is in the API server's audit log alone."""
    return subject.generation == 1 or subject.kind in ("Agent", "Harness")


@dataclass(frozen=True, slots=True)
class _Sight:
    """One generation on its way into the log."""

    id: str
    subject: EventSubject
    body: EventBody
    documents: Mapping[str, Mapping[str, Any]]
    """Spec, and the labels that are not ours, by digest."""


class Observer:
    """Logs and keeps generations; remembers in memory what it has seen, so that a resync costs nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, int] = {}
        self._stored: set[str] = set()

    def prime(self, uid: str, generation: int) -> None:
        """The stores are known to hold this generation."""
        self._seen[uid] = max(generation, self._seen.get(uid, 0))

    def has_seen(self, obj: Mapping[str, Any]) -> bool:
        """Whether this generation is known to be logged and kept."""
        metadata = obj["metadata"]
        return self._seen.get(metadata["uid"], 0) >= int(metadata.get("generation", 1))

    async def principal_of(self, obj: Mapping[str, Any]) -> str | None:
        """Principal id of the requester, None when nobody was stamped."""
        username = requester_of(obj)
        return None if username is None else await self.principal(username)

    def person_of(self, obj: Mapping[str, Any]) -> str | None:
        """Name of the person behind the requester, as the installation's settings say."""
        username = requester_of(obj)
        return None if username is None else self._context.accounts.person(username)

    async def controller_of(self, obj: Mapping[str, Any]) -> str | None:
        """Principal id of the person who controls the object: what independence is judged by. None when nobody was
        stamped."""
        person = self.person_of(obj)
        return None if person is None else await self.principal(person)

    async def principal(self, username: str) -> str:
        """Principal id of a user, made at first sight."""
        return await self._context.principal(username, "")

    async def observe(self, obj: Mapping[str, Any], *, stream: str = SYSTEM_STREAM) -> None:
        """Make sure this generation is logged and kept. Costs nothing when it was seen before."""
        if not self.has_seen(obj):
            await self.observe_many([obj], stream=stream)

    async def observe_many(self, objs: Sequence[Mapping[str, Any]], *, stream: str = SYSTEM_STREAM) -> None:
        """As ``observe``, of several: one look at the log, one append, one write to the graph. Agents and what else
        belongs to no Graph are logged in the system's stream whatever ``stream`` is."""
        fresh = {obj["metadata"]["uid"]: obj for obj in objs if not self.has_seen(obj)}
        if not fresh:
            return
        context = self._context
        ids = {_id_of(obj): obj for obj in fresh.values()}
        recorded = await context.log.get_many(list(ids))
        kept = await self._kept_before([obj for id_, obj in ids.items() if id_ not in recorded])
        sights = [await self._sight(obj, stream, kept.get(obj["metadata"]["uid"], 0)) for obj in fresh.values()]
        new = [sight for sight in sights if sight.id not in recorded]
        await self._store(new)
        known = await self._not_kept([LogEntry.of_recorded(item) for item in recorded.values()])
        entries = [*known, *await self._append([sight.body for sight in new])]
        documents = {digest: document for sight in sights for digest, document in sight.documents.items()}
        for digest in {digest for entry in entries for digest in documents_of(entry)} - documents.keys():
            documents[digest] = await self._load(digest)  # recorded by somebody who saw other labels
        if entries:
            await context.graph.apply(GraphChange.merged(project(entry, documents) for entry in entries))
        for obj in fresh.values():
            self.prime(obj["metadata"]["uid"], obj["metadata"].get("generation", 1))

    async def _not_kept(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """Of what was recorded before, that which a crash kept out of the graph: an operator that starts again writes
        nothing."""
        if not entries:
            return []
        pairs = {(entry.subject.uid, entry.subject.generation): entry for entry in entries}
        present = await self._context.graph.present(pairs)
        return [entry for pair, entry in pairs.items() if pair not in present]

    async def _kept_before(self, objs: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
        """The last generation known of each: between it and this one, some were skipped."""
        later = [obj["metadata"]["uid"] for obj in objs if obj["metadata"].get("generation", 1) > 1]
        unknown = [uid for uid in later if uid not in self._seen]
        kept = await self._context.graph.get_many(unknown) if unknown else {}
        return {uid: record.generation for uid, record in kept.items()} | {
            uid: self._seen[uid] for uid in later if uid in self._seen
        }

    async def _sight(self, obj: Mapping[str, Any], stream: str, kept: int) -> _Sight:
        subject = subject_of(obj)
        spec = redact_json(obj["spec"])
        principal = await self.principal_of(obj)
        actor = (principal if _by_requester(subject) else None) or SYSTEM_ACTOR
        spec_digest = digest_of_json(spec)
        data: dict[str, Any] = {"specDigest": spec_digest}
        documents = {spec_digest: spec}
        if kept + 1 < subject.generation:
            data |= {"skippedFrom": kept + 1, "skippedTo": subject.generation - 1}
        if principal is not None and principal != actor:
            data["requester"] = principal
        if (owner := _owner(obj)) is not None:
            data["ownerUid"] = owner
        said = dict(subject.labels)
        labels = obj["metadata"].get("labels") or {}
        if others := {key: value for key, value in labels.items() if key not in said}:
            data["labelsDigest"] = digest_of_json(others)
            documents[data["labelsDigest"]] = others
        body = EventBody(
            id=event_id(OBSERVED, subject.uid, subject.generation),
            type=OBSERVED,
            stream=stream if subject.kind in _WORK else SYSTEM_STREAM,
            actor=actor,
            subject=subject,
            data=data,
            blobs=tuple(documents),
        )
        return _Sight(body.id, subject, body, documents)

    async def _store(self, sights: Sequence[_Sight]) -> None:
        """The documents first: an entry refers to nothing that is not there."""
        wanted = {digest: document for sight in sights for digest, document in sight.documents.items()}
        missing = {digest: document for digest, document in wanted.items() if digest not in self._stored}
        await asyncio.gather(*(self._context.store_json(document) for document in missing.values()))
        if len(self._stored) > _STORED:
            self._stored.clear()
        self._stored |= {digest for sight in sights if (digest := sight.body.data.get("labelsDigest")) is not None}

    async def _load(self, digest: str) -> Mapping[str, Any]:
        document = await self._context.load_json(digest)
        assert isinstance(document, Mapping)
        return document

    async def _append(self, bodies: Sequence[EventBody]) -> list[LogEntry]:
        """The entries as they stand. What a worker beside us recorded of a generation meanwhile stands."""
        if not bodies:
            return []
        try:
            receipts = await self._context.log.append(bodies)
        except IdReused:
            if len(bodies) > 1:
                return [entry for body in bodies for entry in await self._append([body])]
            recorded = await self._context.log.get(bodies[0].id)
            if recorded is None:
                raise
            return [LogEntry.of_recorded(recorded)]
        return [LogEntry.of_body(body, receipt.seq) for body, receipt in zip(bodies, receipts, strict=True)]

    async def gone(self, obj: Mapping[str, Any]) -> None:
        """Log that the object is gone; who deleted it is in the API server's audit log, not here."""
        context = self._context
        subject = subject_of(obj)
        body = EventBody(
            id=event_id(GONE, subject.uid, subject.generation),
            type=GONE,
            stream=SYSTEM_STREAM,
            actor=SYSTEM_ACTOR,
            subject=subject,
            data={"deletedBy": "unknown"},
        )
        recorded = await context.log.get(body.id)
        entries = [LogEntry.of_recorded(recorded)] if recorded is not None else await self._append([body])
        await context.graph.apply(GraphChange.merged(project(entry, {}) for entry in entries))
        self._seen.pop(subject.uid, None)


def _id_of(obj: Mapping[str, Any]) -> str:
    return event_id(OBSERVED, obj["metadata"]["uid"], obj["metadata"].get("generation", 1))


def _owner(obj: Mapping[str, Any]) -> str | None:
    """UID of the object that owns it: its controller, or its only owner."""
    owners: Sequence[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or []
    found = next((owner for owner in owners if owner.get("controller")), owners[0] if len(owners) == 1 else None)
    return None if found is None else str(found["uid"])
