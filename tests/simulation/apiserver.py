"""The simulated API server: objects with versions, watches that can be late, doubled or lost, garbage collection.

Everything ever written is kept in ``history``, so that checks can ask what was true at a moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION, REQUESTER
from triplane.errors import Conflict, NotFound
from triplane.ports import KubeEvent

NAMESPACE = "team"
Object = dict[str, Any]
Name = tuple[str, str]


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch."""

    type: str
    obj: Object


class ApiServer:
    """As much of kube-apiserver and its garbage collector as an operator can tell."""

    def __init__(self) -> None:
        self.objects: dict[Name, Object] = {}
        self.lines: dict[str, list[WatchEvent]] = {kind: [] for kind in KINDS}
        """Per kind, what a watch from the beginning would deliver."""
        self.told: list[KubeEvent] = []
        self.version = 0
        self.silenced: dict[str, float] = {}
        """Kinds whose watches are to be silent from now on, for so many seconds; the world takes it up."""
        self.writes = 0
        """Writes by the operator."""
        self.history: dict[str, list[tuple[int, int | None]]] = {}
        """UID → (version from which on, generation; None: gone)."""
        self._uids = 0

    # What users do

    def apply(self, kind: str, name: str, spec: Mapping[str, Any], requester: str | None = None) -> Object:
        """Make the object, or alter its spec; the same spec again writes nothing."""
        standing = self.objects.get((kind, name))
        if standing is None:
            annotations = {REQUESTER: requester} if requester else {}
            metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
            return self._add({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)})
        if standing["spec"] == spec:
            return standing
        metadata = {**standing["metadata"], "generation": standing["metadata"]["generation"] + 1}
        return self._put("MODIFIED", {**standing, "metadata": metadata, "spec": dict(spec)})

    def edit(self, kind: str, name: str, **fields: Any) -> None:
        """Alter fields of the spec."""
        standing = self.objects.get((kind, name))
        if standing is not None:
            self.apply(kind, name, {**standing["spec"], **fields})

    def remove(self, kind: str, name: str) -> None:
        """Delete it; what it owns is collected by and by (``collect``)."""
        standing = self.objects.pop((kind, name), None)
        if standing is None:
            return
        self.version += 1
        metadata = {**standing["metadata"], "resourceVersion": str(self.version)}
        self.history[metadata["uid"]].append((self.version, None))
        self.lines[kind].append(WatchEvent("DELETED", {**standing, "metadata": metadata}))

    def collect(self) -> bool:
        """Garbage collection of one object whose owners are all gone; False when there is none."""
        alive = {obj["metadata"]["uid"] for obj in self.objects.values()}
        for (kind, name), obj in self.objects.items():
            owners = obj["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in alive for owner in owners):
                self.remove(kind, name)
                return True
        return False

    def of(self, kind: str) -> Sequence[Object]:
        return [obj for (found, _), obj in self.objects.items() if found == kind]

    def stood_at(self, uid: str, generation: int, first: int, last: int) -> bool:
        """Whether the object existed with this generation at some version in [first, last]."""
        spans = self.history.get(uid, [])
        ends = [start for start, _ in spans[1:]] + [self.version + 1]
        return any(
            found == generation and start <= last and end > first
            for (start, found), end in zip(spans, ends, strict=True)
        )

    # What the operator does (``triplane.ports.Cluster``)

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind, name))

    async def list(self, kind: str, namespace: str | None = None) -> tuple[Sequence[Object], str]:
        return self.of(kind), str(self.version)

    async def create(self, obj: Mapping[str, Any]) -> tuple[Object, bool]:
        standing = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if standing is not None:
            return standing, False
        self.writes += 1
        return self._add({**obj, "metadata": {**obj["metadata"], "namespace": NAMESPACE}}), True

    async def write_status(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> Object:
        standing = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if standing is None or standing["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise NotFound("it is gone")
        if standing["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict("it has moved on")
        self.writes += 1
        return self._put("MODIFIED", {**standing, "status": dict(status)})

    async def delete(self, obj: Mapping[str, Any]) -> bool:
        standing = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if standing is None or standing["metadata"]["uid"] != obj["metadata"]["uid"]:
            return False
        self.writes += 1
        self.remove(obj["kind"], obj["metadata"]["name"])
        return True

    async def emit(self, event: KubeEvent) -> None:
        self.told.append(event)

    async def close(self) -> None: ...

    def _add(self, obj: Object) -> Object:
        self._uids += 1
        metadata = {"generation": 1, "uid": f"uid-{self._uids}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        return self._put("ADDED", {**obj, "metadata": {**metadata, **obj["metadata"]}})

    def _put(self, event: str, obj: Object) -> Object:
        self.version += 1
        written = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        metadata = written["metadata"]
        self.objects[obj["kind"], metadata["name"]] = written
        spans = self.history.setdefault(metadata["uid"], [])
        if not spans or spans[-1][1] != metadata["generation"]:
            spans.append((self.version, metadata["generation"]))
        self.lines[obj["kind"]].append(WatchEvent(event, written))
        return written


def names_of(objects: Iterable[Object]) -> list[str]:
    """For messages."""
    return sorted(f"{obj['kind']} {obj['metadata']['name']}" for obj in objects)
