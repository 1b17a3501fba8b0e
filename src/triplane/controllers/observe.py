"""Every generation of every resource the operator acts on is logged once and kept in the graph store.

The log entry comes first, the row second; a crash between the two is healed by the next observation, because
the entry's id is the generation.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from triplane.api.text import REQUESTER
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, SYSTEM_STREAM, EventBody, EventSubject
from triplane.controllers.context import Context
from triplane.domain.redaction import redact_json
from triplane.errors import IdReused
from triplane.ports import ResourceRecord


def subject_of(obj: Mapping[str, Any]) -> EventSubject:
    """The log's name of an object: address, identity, generation and its ``triplane.dev/`` labels."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    return EventSubject(
        kind=obj["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=tuple(sorted((k, v) for k, v in labels.items() if k.startswith("triplane.dev/"))),
    )


def requester_of(obj: Mapping[str, Any]) -> str | None:
    """The user whom admission stamped on the object."""
    stamped = (obj["metadata"].get("annotations") or {}).get(REQUESTER)
    return str(stamped) if stamped else None


def _by_requester(subject: EventSubject) -> bool:
    """Whether this generation is surely the requester's doing: others may edit anything but Agents and Harnesses,
    and who did is in the API server's audit log alone."""
    return subject.generation == 1 or subject.kind in ("Agent", "Harness")


class Observer:
    """Logs and keeps generations; remembers in memory what it has seen, so that a resync costs nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, int] = {}

    async def principal_of(self, obj: Mapping[str, Any]) -> str | None:
        """Principal id of the requester, None when nobody was stamped."""
        username = requester_of(obj)
        return None if username is None else await self.principal(username)

    async def principal(self, username: str) -> str:
        """Principal id of a user, made at first sight."""
        return await self._context.principal(username, "")

    async def observe(self, obj: Mapping[str, Any], *, stream: str = SYSTEM_STREAM) -> None:
        """Make sure this generation is logged and kept. Costs nothing when it was seen before."""
        metadata = obj["metadata"]
        uid, generation = metadata["uid"], metadata.get("generation", 1)
        if self._seen.get(uid, 0) >= generation:
            return
        kept = await self._context.graph.get(uid)
        if kept is None or kept.generation < generation:
            await self._record(obj, stream, kept)
        self._seen[uid] = generation

    async def _record(self, obj: Mapping[str, Any], stream: str, kept: ResourceRecord | None) -> None:
        context = self._context
        subject = subject_of(obj)
        spec = redact_json(obj["spec"])
        principal = await self.principal_of(obj)
        recorded = await context.log.get(event_id("resource.observed", subject.uid, subject.generation))
        if recorded is None:
            digest = await context.store_json(spec)
            data: dict[str, Any] = {"specDigest": digest}
            first_skipped = 1 if kept is None else kept.generation + 1
            if first_skipped < subject.generation:
                data |= {"skippedFrom": first_skipped, "skippedTo": subject.generation - 1}
            body = EventBody(
                id=event_id("resource.observed", subject.uid, subject.generation),
                type="resource.observed",
                stream=stream,
                actor=(principal if _by_requester(subject) else None) or SYSTEM_ACTOR,
                subject=subject,
                data=data,
                blobs=(digest,),
            )
            seq = await self._append(body)
        else:
            seq = recorded.seq
        await context.graph.create(
            ResourceRecord(
                uid=subject.uid,
                kind=subject.kind,
                namespace=subject.namespace,
                name=subject.name,
                generation=subject.generation,
                labels=dict(obj["metadata"].get("labels") or {}),
                spec=spec,
                requester=principal,
                seq=seq,
            )
        )

    async def _append(self, body: EventBody) -> int:
        """The entry's sequence. What a worker beside us recorded of the same generation meanwhile stands."""
        try:
            (receipt,) = await self._context.log.append([body])
        except IdReused:
            recorded = await self._context.log.get(body.id)
            if recorded is None:
                raise
            return recorded.seq
        return receipt.seq

    async def gone(self, obj: Mapping[str, Any]) -> None:
        """Log that the object is gone; who deleted it is in the API server's audit log, not here."""
        context = self._context
        subject = subject_of(obj)
        body = EventBody(
            id=event_id("resource.gone", subject.uid, subject.generation),
            type="resource.gone",
            stream=SYSTEM_STREAM,
            actor=SYSTEM_ACTOR,
            subject=subject,
            data={"deletedBy": "unknown"},
        )
        recorded = await context.log.get(body.id)
        seq = recorded.seq if recorded is not None else await self._append(body)
        kept = await context.graph.get(subject.uid)
        if kept is not None and not kept.gone:
            await context.graph.update(replace(kept, seq=seq, gone=True))
        self._seen.pop(subject.uid, None)
